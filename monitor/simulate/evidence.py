"""The evidence of many runs at once. A test holds it to `monitor.promise` and `monitor.shadow`, number by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor import promise, shadow
from monitor.promise import MOST

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
ALARM, DELTA, THRESHOLD = 200.0, 0.0025, 100.0
SIZES, SHADOW_SIZE = (25, 50), 10


class Bank:
    """`promise.Bets` of `runs` runs: `sums` has the shape (bets, runs)."""

    def __init__(self, runs: int, size: int, on_failure: list[float], on_success: list[float]) -> None:
        self.size = size
        self.bad, self.good = np.array(on_failure)[:, None], np.array(on_success)[:, None]
        self.sums = np.zeros((len(on_failure), runs))
        self.count = np.zeros(runs, np.int64)
        self.blocks = np.zeros(runs, np.int64)

    def add(self, active: Flags, failed: Flags) -> None:
        """Add one outcome to the runs in `active`; both have the shape (runs,)."""
        starts = active & (self.count % self.size == 0)
        self.blocks += starts
        self.sums += np.where(starts, 1 / np.maximum(self.blocks * (self.blocks + 1.0), 1.0), 0.0)
        self.count += active
        self.sums *= np.where(active, np.where(failed, self.bad, self.good), 1.0)
        np.minimum(self.sums, MOST, out=self.sums)

    @property
    def evidence(self) -> Floats:
        total: Floats = self.sums.mean(axis=0) + 1 / (self.blocks + 1)
        return total


class Rule:
    """The promise, the shadow and the joint rule of `runs` runs; `limits` are those of positives and negatives.

    `alarmed`, `ahead` and `rolled_back` say for each run whether the rule has decided so far, shape (runs,).
    """

    def __init__(self, runs: int, limits: tuple[float, float]) -> None:
        streams = [promise.stream(limit, size) for limit, size in zip(limits, SIZES, strict=True)]

        self.promises = [Bank(runs, s.bets.size, s.on_failure, s.on_success) for s in streams]
        self._limits = np.array(limits)[:, None]
        self._counts, self._failures = np.zeros((2, runs)), np.zeros((2, runs))
        won, lost = [1 + share for share in shadow.SHARES], [1 - share for share in shadow.SHARES]
        self.duels = [Bank(runs, SHADOW_SIZE, won, lost) for _ in SIZES]
        self.alarmed = np.zeros(runs, np.bool_)
        self._broken, self._better = np.zeros((2, runs), np.bool_), np.zeros((2, runs), np.bool_)
        self.ahead, self.rolled_back = np.zeros((2, runs), np.bool_)

    def add(self, positive: Flags, failed: Flags, previous_failed: Flags) -> None:
        """Add one labelled record to each run; all have the shape (runs,)."""
        for side, active in enumerate((positive, ~positive)):
            self.promises[side].add(active, failed)
            self._counts[side] += active
            self._failures[side] += active & previous_failed
            self.duels[side].add(active & (failed != previous_failed), failed)
        evidence = np.array([bank.evidence for bank in self.promises])
        self.alarmed |= evidence.sum(axis=0) >= 2 * ALARM
        self._broken |= self.alarmed & (evidence >= ALARM)
        duels = np.array([bank.evidence for bank in self.duels])
        self._better |= duels >= THRESHOLD
        self.ahead |= duels[0] >= THRESHOLD / duels[1]
        keeps = self._failures <= self._limits * self._counts
        self.rolled_back |= (self._broken & self._better & keeps[::-1]).any(axis=0)
