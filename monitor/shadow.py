"""The previous champion in the shadow: it scores the labelled records of the present one, and no client gets its score.

Within one class, only the records count on which exactly one of the two versions is right. While the previous one is
not better, each such record is in its favour with a chance of at most one half, and the evidence is an e-process with
restarts, as in `monitor.promise`. The classes are apart because over both together a version with a low recall and a
high specificity would beat a version with a high recall where positives are few.
"""

from __future__ import annotations

import msgspec

from monitor.promise import Bets, Promise, Side, Stream, stream

SHARES = (0.3, 0.6, 0.9)
_FOR = [1 + share for share in SHARES]
_AGAINST = [1 - share for share in SHARES]


class Shadow(msgspec.Struct):
    """The comparison with version `previous`.

    `better` has the classes in which the evidence has reached `threshold`; a class stays in it. `kept_positives` and
    `kept_negatives` are the promises of the present version's card, with the outcomes of the previous version.
    """

    previous: int
    threshold: float
    positives: Bets
    negatives: Bets
    kept_positives: Stream
    kept_negatives: Stream
    better: list[Side] = []

    def add(self, positive: bool, right: bool, previous_right: bool) -> None:
        """Add one labelled record: whether the present version and the previous one are right."""
        (self.kept_positives if positive else self.kept_negatives).add(not previous_right)
        if right == previous_right:
            return
        bets = self.positives if positive else self.negatives
        bets.multiply(_FOR if previous_right else _AGAINST)
        side: Side = "positives" if positive else "negatives"
        if bets.evidence >= self.threshold and side not in self.better:
            self.better.append(side)

    def keeps(self, side: Side, alarm: float) -> bool:
        """Whether the previous version keeps the promise of a class: its own evidence is below the alarm."""
        kept = self.kept_positives if side == "positives" else self.kept_negatives
        return kept.evidence < alarm


def start(promise: Promise, previous: int, threshold: float, size: int) -> Shadow:
    """A comparison without records, in blocks of `size` of them."""
    empty = [0.0] * len(SHARES)
    return Shadow(
        previous,
        threshold,
        Bets(size, [*empty]),
        Bets(size, [*empty]),
        stream(promise.positives.limit, promise.positives.bets.size),
        stream(promise.negatives.limit, promise.negatives.bets.size),
    )
