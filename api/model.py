"""A model that is served: loaded from its package, verified, warm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from api.codec import Codec
from lab import card as cards
from lab.errors import LabError


@dataclass(frozen=True)
class Model:
    """A verified model. It is never changed: a new champion is a new Model."""

    version: int
    card: cards.Card
    codec: Codec
    session: onnxruntime.InferenceSession

    def probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The positive class's probability for `rows` of shape (n, features), NaN for missing; shape (n,)."""
        scores: NDArray[np.float32] = self.session.run(["probabilities"], {"features": rows})[0]
        return scores[:, 1]

    def label(self, probability: float) -> str:
        classes = self.card.classes
        return classes.positive if probability >= self.card.threshold else classes.negative


def load(version: int, card_text: bytes, model: bytes) -> Model:
    """Make a Model of a package; raise LabError unless its schema, hash and self-test hold.

    The self-test also warms it: the runtime has laid out its memory before the first request comes.
    """
    card = cards.decode(card_text)
    cards.check_hash(card, model)
    options = onnxruntime.SessionOptions()
    # One row is far too little work to share out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        loaded = Model(version, card, Codec(card), session)
        rows = np.array([[np.nan if v is None else v for v in row] for row in card.self_test.rows], np.float32)
        given = loaded.probabilities(rows)
        loaded.probabilities(rows[:1])
    except Exception as error:  # the runtime raises its own kinds, not all of them documented
        raise LabError(f"version {version} does not run: {error}", "promote another version") from error
    worst = float(np.abs(given - np.array(card.self_test.probabilities)).max())
    if not worst <= cards.TOLERANCE:
        raise LabError(
            f"version {version} fails its self-test: a probability is off by {worst:.2g}", "promote another version"
        )
    return loaded
