"""The registered versions as the watch needs them, from the registry and the ledger.

A package is verified once (`lab.trial`) and kept in a folder, so that the monitor goes on while the registry is away.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lab import card as cards
from lab import http, ledger, package, trial
from lab.card import CARD_FILE, MODEL_FILE, Card
from lab.errors import LabError
from lab.http import RefusedError
from lab.ledger import AnyEntry, Ledger
from lab.record import to_input, value_fault
from lab.registry import Registry
from monitor import history
from monitor.join import DEMO

# Sessions that are held in memory. The monitor scores with one version at a time.
SESSIONS = 2


class RegisteredModels:
    """The versions of one registered model. `folder` keeps the packages; `entries` are those of the ledger.

    Every method raises LabError when the registry or the ledger is away and the answer is not known yet.
    """

    def __init__(self, registry: Registry, book: Ledger, folder: Path) -> None:
        self._registry, self._book, self._folder = registry, book, folder
        self.entries: list[AnyEntry] = []
        self._demo: dict[int, bool] = {}
        self._cards: dict[int, Card | None] = {}
        self._sessions: OrderedDict[int, onnxruntime.InferenceSession] = OrderedDict()

    def refresh(self) -> None:
        """Read the ledger; raise LabError when an entry is damaged, because the order of the champions needs all."""
        listing = self._book.read()
        if listing.damaged:
            raise ledger.damage(listing.damaged)
        self.entries = listing.entries

    def is_demo(self, version: int, /) -> bool:
        """Whether the version has the tag `demo`; a version gets its tags when it is registered."""
        if version not in self._demo:
            registered = self._registry.find_version(version)
            self._demo[version] = registered is not None and DEMO in registered.tags
        return self._demo[version]

    def card(self, version: int, /) -> Card | None:
        """The card of a version; None when the version does not exist or its package is not sound."""
        if version not in self._cards:
            self._cards[version] = self._load(version)
        return self._cards[version]

    def previous(self, version: int, /) -> int | None:
        """The version to go back to from `version`: the last champion before it with a sound package, if any."""
        order = history.champions(self.entries)
        before = history.previous(self.entries, version, [each for each in order if self.is_demo(each)])
        return before if before is not None and self.card(before) else None

    def answers(self, version: int, records: list[dict[str, Any]], /) -> list[bool | None]:
        """Whether the version calls each record positive; None for a record that is not valid for this version."""
        card = self.card(version)
        if card is None:
            return [None] * len(records)
        rows = [_row(card, record) for record in records]
        known = [row for row in rows if row is not None]
        if not known:
            return [None] * len(records)
        scores = iter(package.score(self._session(version), np.array(known, np.float32)))
        return [None if row is None else next(scores) >= card.threshold for row in rows]

    def _session(self, version: int) -> onnxruntime.InferenceSession:
        if version not in self._sessions:
            self._sessions[version] = package.open_session((self._place(version) / MODEL_FILE).read_bytes())
        self._sessions.move_to_end(version)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return self._sessions[version]

    def _place(self, version: int) -> Path:
        return self._folder / str(version)

    def _load(self, version: int) -> Card | None:
        place = self._place(version)
        try:
            text, model = (place / CARD_FILE).read_bytes(), (place / MODEL_FILE).read_bytes()
            card = cards.decode(text)
            cards.check_hash(card, model)
        except (OSError, LabError):
            return self._fetch(version)
        return card

    def _fetch(self, version: int) -> Card | None:
        registered = self._registry.find_version(version)
        if registered is None:
            return None
        try:
            text, model = self._registry.download(registered)
            card = trial.verify(self._registry.model, text, model)
        except http.UnreachableError:
            raise
        except RefusedError as error:
            if error.status != 404:
                raise
            return None
        except LabError:
            return None
        place = self._place(version)
        place.mkdir(parents=True, exist_ok=True)
        (place / MODEL_FILE).write_bytes(model)
        (place / CARD_FILE).write_bytes(text)
        return card


def _row(card: Card, record: dict[str, Any]) -> list[float | None] | None:
    """The model's input of a record; None when a value is not valid for this version."""
    row = []
    for feature in card.features:
        value = record.get(feature.name)
        if value_fault(feature, value):
            return None
        row.append(to_input(feature, value))
    return row
