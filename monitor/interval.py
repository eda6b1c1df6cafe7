"""Intervals for live figures that stay valid however often one looks at them.

At level .95 the chance that an interval ever misses the true value, at any of its updates, is at most .05. Both methods
bet against each candidate for the value, and the interval has the candidates against which the bets win less than 20
times their stake (I. Waudby-Smith and A. Ramdas, JRSS-B 86, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The candidates for the mean of values from 0 to 1, and the number of values that are added to the bets at once.
CANDIDATES = 201
BLOCK = 256
# This many factors are multiplied before their logarithm is taken, which is faster and cannot overflow.
GROUP = 16
# The largest share of the stake that is bet.
MOST_BET = 0.5
GRID = np.linspace(0, 1, CANDIDATES)


def bernoulli(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval for the chance of success after `n` outcomes.

    The bet is the mixture of all constant bets with the uniform prior on the chance. Its capital depends on the
    counts alone: B(s + 1, f + 1) / (m^s (1 - m)^f) for the candidate m.
    """
    if not n:
        return 0.0, 1.0
    failures = n - successes
    whole = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)
    most = -math.log(1 - level)

    def excluded(mean: float) -> bool:
        log = (successes * math.log(mean) if successes else 0.0) + (failures * math.log1p(-mean) if failures else 0.0)
        return whole - log >= most

    middle = successes / n
    low = 0.0 if not successes else _edge(excluded, 0.0, middle)
    high = 1.0 if not failures else _edge(excluded, 1.0, middle)
    return low, high


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    for _ in range(50):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


class Mean(msgspec.Struct):
    """Values from 0 to 1: their sums, and the logarithms of the capitals of the bets on the grid of candidates.

    `up` bets that the mean is greater than the candidate, and `down` that it is smaller. The values wait in `buffer`
    for a whole block, so that the state depends on the values and not on the sizes of the batches in which they came.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    up: list[float] = []
    down: list[float] = []
    buffer: list[float] = []

    def add(self, value: float) -> None:
        """Add one value."""
        self.buffer.append(value)
        if len(self.buffer) == BLOCK:
            self.count, self.total, self.squares, up, down = self._folded()
            self.up, self.down, self.buffer = up.tolist(), down.tolist(), []

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval for the mean: the candidates that neither bet excludes, widened by one step of the grid."""
        if not self.count and not self.buffer:
            return 0.0, 1.0
        _, _, _, up, down = self._folded()
        # Half of the stake is on each side, so that the larger capital counts with one half.
        kept = np.flatnonzero(np.maximum(up, down) < math.log(2 / (1 - level)))
        if not len(kept):
            return 0.0, 1.0
        return float(GRID[max(kept[0] - 1, 0)]), float(GRID[min(kept[-1] + 1, CANDIDATES - 1)])

    def _folded(self) -> tuple[int, float, float, Floats, Floats]:
        """The counts, sums and capitals with the values in the buffer; a bet depends on earlier values only."""
        up = np.array(self.up) if self.up else np.zeros(CANDIDATES)
        down = np.array(self.down) if self.down else np.zeros(CANDIDATES)
        if not self.buffer:
            return self.count, self.total, self.squares, up, down
        x = np.array(self.buffer)
        n = self.count + np.arange(len(x))
        sums = self.total + np.concatenate([[0.0], np.cumsum(x)])
        means = (0.5 + sums[:-1]) / (n + 1)
        parts = np.concatenate([[self.squares], (x - means) ** 2])
        squares = np.cumsum(parts)
        variance = (0.25 + squares[:-1]) / (n + 1)
        # The predictable plug-in bet for an interval that is looked at always, with the level .05.
        stake = np.sqrt(2 * math.log(2 / 0.05) / (variance * (n + 1) * np.log(n + 2)))[:, None]
        with np.errstate(divide="ignore"):
            above = np.minimum(stake, MOST_BET / GRID[None, :])
            below = np.minimum(stake, MOST_BET / (1 - GRID[None, :]))
        gap = x[:, None] - GRID[None, :]
        up = up + _log_product(1 + above * gap)
        down = down + _log_product(1 - below * gap)
        return self.count + len(x), float(sums[-1]), float(squares[-1]), up, down


def _log_product(factors: Floats) -> Floats:
    """The logarithm of the product over the first axis; `factors` has the shape (values, candidates)."""
    starts = np.arange(0, len(factors), GROUP)
    logs: Floats = np.log(np.multiply.reduceat(factors, starts, axis=0)).sum(axis=0)
    return logs
