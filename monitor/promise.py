"""The promise of a version, and the evidence that the version breaks it.

The card promises for each class how many of its records are classified wrongly. The evidence is an e-process: its
expected value is at most 1 at each time while the promise holds, so that it reaches 200 with a chance of at most 1 in
200, however often one looks (J. Ville, 1939). Bets begin again after each block of labels, with prior weights, so that
a late change is found nearly as fast as an early one (J. Shin, A. Ramdas and A. Rinaldo, NEJSDS 2023). A. Podkopaev
and A. Ramdas (ICLR 2022) track the risk of a deployed model in this way.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from lab.card import Card

Side = Literal["positives", "negatives"]
SIDES: tuple[Side, Side] = ("positives", "negatives")
# The metric of the card that promises a class: a failure is a missed positive, or a false alarm.
METRIC: dict[Side, str] = {"positives": "recall", "negatives": "specificity"}
# The shares of failures that are bet on lie above the limit, and these are shares of the way from the limit to 1 where
# the limit is HIGH or more.
MEANS, STEPS, HIGH = (0.1, 0.2, 0.4), (0.1, 0.25, 0.5), 0.2
# Evidence does not grow beyond this number, which is far above each threshold, so that it stays a finite number.
MOST = 1e300


class Bets(msgspec.Struct):
    """Bets with prior-weighted restarts. `sums[i]` is the sum over the blocks j of L_j(i) / (j (j + 1)).

    A bet's factor is the same in each block that has begun, so that one sum for each bet is enough. The evidence after
    J blocks have begun is the mean of the sums, plus 1 / (J + 1), the prior weight of the blocks to come.
    """

    size: int
    sums: list[float]
    count: int = 0
    blocks: int = 0

    def multiply(self, factors: list[float]) -> None:
        """Add one outcome; `factors` are the factors of the bets."""
        sums = self.sums
        if self.count % self.size == 0:
            self.blocks += 1
            weight = 1 / (self.blocks * (self.blocks + 1))
            for i in range(len(sums)):
                sums[i] += weight
        self.count += 1
        for i in range(len(sums)):
            value = sums[i] * factors[i]
            sums[i] = value if value < MOST else MOST

    @property
    def evidence(self) -> float:
        return sum(self.sums) / len(self.sums) + 1 / (self.blocks + 1)


class Stream(msgspec.Struct):
    """The promise of one class: its share of failures is at most `limit`. `failures` of `bets.count` failed so far."""

    limit: float
    on_failure: list[float]
    on_success: list[float]
    bets: Bets
    failures: int = 0

    def add(self, failed: bool) -> None:
        """Add the outcome of one label."""
        self.failures += failed
        self.bets.multiply(self.on_failure if failed else self.on_success)

    @property
    def evidence(self) -> float:
        return self.bets.evidence


class Promise(msgspec.Struct):
    """The promises of both classes. The mean of both streams is an e-process, and its alarm is at `alarm` = 1 / alpha.

    `broken` has the classes whose own evidence has reached the alarm since the mean has reached it. A class stays in
    it.
    """

    positives: Stream
    negatives: Stream
    alarm: float
    raised: bool = False
    broken: list[Side] = []

    def add(self, positive: bool, failed: bool) -> None:
        """Add the outcome of one label."""
        (self.positives if positive else self.negatives).add(failed)
        first, second = self.positives.evidence, self.negatives.evidence
        if self.raised or first + second >= 2 * self.alarm:
            self.raised = True
            for side, evidence in (("positives", first), ("negatives", second)):
                if evidence >= self.alarm and side not in self.broken:
                    self.broken.append(side)  # type: ignore[arg-type]

    @property
    def evidence(self) -> float:
        return (self.positives.evidence + self.negatives.evidence) / 2


def limit(failures: int, rows: int, delta: float) -> float:
    """The upper limit of the share of failures, with an error of `delta` (C. Clopper and E. Pearson, 1934).

    It is 1 - Beta⁻¹(δ; n - f, f + 1), the share at which f or fewer failures have the chance δ; it is found by
    bisection, because scipy would take more memory than the whole monitor.
    """
    if failures >= rows:
        return 1.0
    low, high = failures / rows, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(failures, rows, middle) > delta else (low, middle)
    return high


def _chance(failures: int, rows: int, share: float) -> float:
    """The chance of at most `failures` failures among `rows` records when each fails with chance `share`.

    `share` is at least `failures / rows`, or 0.
    """
    if not 0 < share < 1:
        return float(share <= 0)
    # The chance of k - 1 failures is that of k times `odds * k / (rows - k + 1)`. A few terms are the whole sum, which
    # saves seconds for a card with a million rows.
    odds, whole = (1 - share) / share, math.lgamma(rows + 1)
    first = whole - math.lgamma(failures + 1) - math.lgamma(rows - failures + 1)
    first += failures * math.log(share) + (rows - failures) * math.log1p(-share)
    total = term = 1.0
    for k in range(failures, 0, -1):
        term *= odds * k / (rows - k + 1)
        total += term
        if term < total * 1e-17:
            break
    return math.exp(min(first + math.log(total), 0.0))


def stream(share: float, size: int) -> Stream:
    """A stream with the limit `share`, in blocks of `size` labels. A limit of 1 cannot be broken."""
    if share >= 1:
        means = [1.0]
    elif share >= HIGH:
        means = [share + (1 - share) * step for step in STEPS]
    else:
        means = [mean for mean in MEANS if mean > share]
    bad = [mean / share for mean in means]
    good = [(1 - mean) / (1 - share) if share < 1 else 1.0 for mean in means]
    return Stream(share, bad, good, Bets(size, [0.0] * len(means)))


def start(card: Card, alpha: float, delta: float, sizes: tuple[int, int]) -> Promise | None:
    """The promise of a card, with blocks of `sizes` (positives, negatives); None when the card states no counts."""
    limits = []
    for side in SIDES:
        promise = card.promises.get(METRIC[side])
        if promise is None or promise.failures is None or not promise.rows:
            return None
        limits.append(limit(promise.failures, promise.rows, delta))
    return Promise(stream(limits[0], sizes[0]), stream(limits[1], sizes[1]), 1 / alpha)
