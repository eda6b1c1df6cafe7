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
CANDIDATES = 501
BLOCK = 256
# This many factors are multiplied before their logarithm is taken, which is faster. A factor lies between .5 and 8, so
# that the product of so many is a finite number.
GROUP = 64
# The largest share of the stake that is bet.
MOST_BET = 0.5
# A bet ends when the logarithm of its capital has left these limits: the candidate is excluded at each level that a
# float can state, or it will not be. A bet may end at any time, and most bets end early, which saves their time.
LOST, WON = -40.0, 40.0
# The candidates are closer to each other near 0 and 1, where means have the smallest variance.
GRID = np.sin(np.linspace(0, np.pi / 2, CANDIDATES)) ** 2


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
        """The interval for the mean, from the last candidate that is too small to the first one that is too large.

        The capital of `up` falls with the candidate, and that of `down` rises, so that the interval also has each mean
        between two candidates that neither bet excludes.
        """
        _, _, _, up, down = self._folded()
        # Half of the stake is on each side, so that a capital counts with one half.
        most = math.log(2 / (1 - level))
        small, large = np.flatnonzero(up >= most), np.flatnonzero(down >= most)
        low, high = float(GRID[small[-1]]) if len(small) else 0.0, float(GRID[large[0]]) if len(large) else 1.0
        return min(low, high), max(low, high)

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
        # The predictable plug-in bet for an interval that is looked at always, with the level .95.
        bets = np.sqrt(2 * math.log(2 / 0.05) / (variance * (n + 1) * np.log(n + 2)))
        _bet(up, x, bets, GRID)
        _bet(down, 1 - x, bets, 1 - GRID)  # a mean that is smaller is a greater mean of the complements
        return self.count + len(x), float(sums[-1]), float(squares[-1]), up, down


def _bet(capitals: Floats, values: Floats, bets: Floats, candidates: Floats) -> None:
    """Add to the log capitals, in place, the bets that the mean of the values is greater than each candidate.

    `bets` has the bet on each value; `capitals` and `candidates` have the same shape.
    """
    open_bets = np.flatnonzero((capitals > LOST) & (capitals < WON))
    logs, means = capitals[open_bets], candidates[open_bets]
    most = MOST_BET / np.maximum(means, 1e-9)
    for start in range(0, len(values), GROUP):
        group = slice(start, start + GROUP)
        factors = values[group, None] - means
        factors *= np.minimum(bets[group, None], most)
        factors += 1
        logs += np.log(np.multiply.reduce(factors, axis=0))
    capitals[open_bets] = np.clip(logs, LOST, WON)
