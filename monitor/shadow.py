"""The previous champion in the shadow: it scores the labelled records of the present one, and no client gets its score.

Within one class, only the records count on which exactly one of the two versions is right. While the previous one is
not better, each such record is in its favour with a chance of at most one half, and the evidence is an e-process with
restarts, as in `monitor.promise`. The classes are apart because over both together a version with a low recall and a
high specificity would beat a version with a high recall where positives are few. For the same reason the previous
version must also keep the promise of the other class.

The product of the evidence of both classes is an e-process, too, because each record changes one factor only. It says
that the previous version is better in one of the classes or in both, and it grows faster than either of them.
"""

from __future__ import annotations

import msgspec

from monitor.promise import MOST, Bets, Promise, Side

SHARES = (0.3, 0.6, 0.9)
_FOR = [1 + share for share in SHARES]
_AGAINST = [1 - share for share in SHARES]


class Record(msgspec.Struct):
    """The outcomes of the previous version in one class, whose promised share of failures is at most `limit`."""

    limit: float
    count: int = 0
    failures: int = 0

    @property
    def kept(self) -> bool:
        """Whether the share of failures is within the promise. It is no test: a doubt keeps the present champion."""
        return self.failures <= self.limit * self.count


class Shadow(msgspec.Struct):
    """The comparison with version `previous`.

    `better` has the classes in which the evidence has reached `threshold`; a class stays in it. `ahead` is set when the
    product of both has reached it, and stays set. `record_positives` and `record_negatives` hold the previous version
    to the promises of the present one.
    """

    previous: int
    threshold: float
    positives: Bets
    negatives: Bets
    record_positives: Record
    record_negatives: Record
    better: list[Side] = []
    ahead: bool = False

    def add(self, positive: bool, right: bool, previous_right: bool) -> None:
        """Add one labelled record: whether the present version and the previous one are right."""
        record = self.record(positive)
        record.count += 1
        record.failures += not previous_right
        if right == previous_right:
            return
        bets = self.positives if positive else self.negatives
        bets.multiply(_FOR if previous_right else _AGAINST)
        side: Side = "positives" if positive else "negatives"
        if bets.evidence >= self.threshold and side not in self.better:
            self.better.append(side)
        self.ahead = self.ahead or self.evidence >= self.threshold

    @property
    def evidence(self) -> float:
        """The evidence that the previous version is better in at least one of the classes."""
        return min(self.positives.evidence * self.negatives.evidence, MOST)

    def record(self, positive: bool) -> Record:
        return self.record_positives if positive else self.record_negatives


def start(promise: Promise, previous: int, threshold: float, size: int) -> Shadow:
    """A comparison without records, in blocks of `size` of them."""
    empty = [0.0] * len(SHARES)
    return Shadow(
        previous,
        threshold,
        Bets(size, [*empty]),
        Bets(size, [*empty]),
        Record(promise.positives.limit),
        Record(promise.negatives.limit),
    )
