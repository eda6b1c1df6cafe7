"""Roll a champion back, once, also when the monitor is killed in the middle.

A decision has three steps, in this order: the decision is stored with the id of its ledger entry, the champion is
moved, the decision is marked as finished. After a kill, the monitor looks for the id in the ledger. When the entry is
there, the move was made; when it is not, and the champion is still the one that was to be rolled back, the move is made
now.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from lab import champion, ledger
from lab.card import Card
from lab.champion import ConflictError
from lab.ledger import Entry, Ledger, RolledBack
from lab.registry import Registry
from monitor import history
from monitor.store import Store

DECISION, LAST = "decision", "last_decision"
BY = "monitor"
Outcome = Literal["open", "rolled back", "superseded"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback from `version` to `to`, decided at `at` (seconds since 1970) for `reason`."""

    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    version: int
    to: int
    reason: str
    at: float
    outcome: Outcome = "open"


def obstacle(entries: Sequence[Entry], version: int, to: int | None, now: float, cooldown: float, last: float) -> str:
    """The reason why `version` must not be rolled back to `to` now, as a sentence; empty when there is none.

    `last` is the time of the last rollback by the monitor and `cooldown` the least time between two, in seconds.
    """
    order = history.champions(entries)
    if not order or order[-1] != version:
        return f"version {version} is not the champion"
    if to is None:
        return "there is no earlier champion to go back to"
    if to in history.rolled_back(entries):
        return f"version {to} was rolled back before"
    if now - last < cooldown:
        minutes = max(now - last, 0) / 60
        return f"the last rollback was {minutes:.0f} minutes ago, and the least time is {cooldown / 60:.0f}"
    return ""


class Decisions:
    """The decisions in `store`, and the moves of the champion that they make."""

    def __init__(self, store: Store, book: Ledger, registry: Registry) -> None:
        self._store, self._book, self._registry = store, book, registry

    @property
    def open(self) -> Decision | None:
        """The decision that was begun and is not finished."""
        saved = self._store.get(DECISION)
        decision = msgspec.json.decode(saved, type=Decision) if saved else None
        return decision if decision and decision.outcome == "open" else None

    @property
    def last(self) -> float:
        """The time of the last rollback, in seconds since 1970; 0 before the first."""
        return float(self._store.get(LAST) or 0)

    def begin(self, version: int, to: int, reason: str) -> Decision:
        """Store a decision before anything is moved."""
        decision = Decision(version=version, to=to, reason=reason, at=time.time())
        with self._store.transaction():
            self._store.set(DECISION, msgspec.json.encode(decision))
        return decision

    def finish(self, decision: Decision, card: Card) -> tuple[Decision, Entry | None]:
        """Make the move, unless it was made, and give the finished decision with its entry.

        `card` is that of the version that is rolled back. The outcome is `superseded`, without an entry, when the
        champion is another version now. Raises LabError when the ledger or the registry is away; call it again then.
        """
        entry = next((each for each in self._book.read().entries if each.id == decision.id), None)
        if entry is not None:
            champion.settle(self._book, self._registry)
            return self._end(decision, "rolled back"), entry
        draft = RolledBack(
            id=decision.id,
            by=BY,
            model=self._registry.model,
            reason=decision.reason,
            subject=ledger.subject_of(card),
        )
        try:
            written = champion.move(self._book, self._registry, decision.to, decision.version, draft)
        except ConflictError:
            return self._end(decision, "superseded"), None
        return self._end(decision, "rolled back"), written

    def _end(self, decision: Decision, outcome: Outcome) -> Decision:
        ended = msgspec.structs.replace(decision, outcome=outcome)
        with self._store.transaction():
            self._store.set(DECISION, msgspec.json.encode(ended))
            if outcome == "rolled back":
                self._store.set(LAST, repr(decision.at).encode())
        return ended
