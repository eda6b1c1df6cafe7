"""Load the champion, verify it, follow the alias."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lab import card as cards
from lab.errors import LabError
from lab.registry import Registry, Version

POLL_SECONDS = 1.0
REFUSED_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A verified model. It is never changed: a new champion is a new Model."""

    version: int
    card: cards.Card
    session: onnxruntime.InferenceSession

    def probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The positive class's probability for `rows` of shape (n, features), NaN for missing; shape (n,)."""
        scores: NDArray[np.float32] = self.session.run(["probabilities"], {"features": rows})[0]
        return scores[:, 1]


def load(version: int, card_text: bytes, model: bytes) -> Model:
    """Make a Model of a package; raise LabError unless its schema, hash and self-test hold."""
    card = cards.decode(card_text)
    cards.check_hash(card, model)
    options = onnxruntime.SessionOptions()
    # One row is far too little work to share out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        loaded = Model(version, card, session)
        rows = np.array([[np.nan if v is None else v for v in row] for row in card.self_test.rows], np.float32)
        given = loaded.probabilities(rows)
    except Exception as error:  # the runtime raises its own kinds, not all of them documented
        raise LabError(f"version {version} does not run: {error}", "promote another version") from error
    worst = float(np.abs(given - np.array(card.self_test.probabilities)).max())
    if not worst <= cards.TOLERANCE:
        raise LabError(
            f"version {version} fails its self-test: a probability is off by {worst:.2g}", "promote another version"
        )
    return loaded


class Follower:
    """Holds the model that is served and replaces it when the alias moves to a version that is sound.

    `model` is one attribute, read once a request: a request meets one model from its start to its end.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.model: Model | None = None
        self.fault = "the registry was not asked yet"
        # The version found unsound last, and when to look at it again.
        self._refused = (0, 0.0)

    def start(self) -> None:
        threading.Thread(target=self._follow, name="follower", daemon=True).start()

    def poll(self) -> None:
        """Look at the alias once; swap when it names another version and that version is sound."""
        try:
            champion = self.registry.champion()
            if champion is None:
                self._blame(f"{self.registry.model} has no champion yet: train one with `make train`")
            elif self.model is not None and champion.number == self.model.version:
                self.fault, self._refused = "", (0, 0.0)
            elif self._refused[0] != champion.number or time.monotonic() > self._refused[1]:
                self._swap(champion)
        except LabError as error:
            self._blame(error.message)

    def _swap(self, champion: Version) -> None:
        package = self.registry.download(champion)
        try:
            model = load(champion.number, *package)
        except LabError:
            self._refused = (champion.number, time.monotonic() + REFUSED_SECONDS)
            raise
        self.model, self.fault = model, ""
        log.warning("serving %s version %d", self.registry.model, model.version)

    def _blame(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("%s", fault)
        self.fault = fault

    def _follow(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.poll()
            except Exception:  # this thread must outlive whatever an answer holds
                log.exception("looking at the champion failed")
                self.fault = "looking at the champion failed; see the API's log"
            pause.wait(POLL_SECONDS)
