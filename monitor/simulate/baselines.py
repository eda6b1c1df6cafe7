"""Methods that are common elsewhere, on the share of all errors, to be compared with the monitor's rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from monitor.simulate.evidence import Flags

# The share of errors that the worked example's card states, and the share that SPRT and CUSUM are set to find.
EXPECTED, SOUGHT = 19 / 699, 3 * 19 / 699
WINDOW, EVERY, Z99 = 200, 10, 2.5758
# SPRT and CUSUM decide at this logarithm of the likelihood ratio, as the e-process does.
BAR = math.log(200)


class Baseline(Protocol):
    """A method for `runs` runs; `alarmed` says for each run whether it has given an alarm so far."""

    alarmed: Flags

    def add(self, failed: Flags) -> None: ...


class Window:
    """An alarm when Wilson's 99 % interval for the errors among the last 200 lies above the expected share.

    The interval is computed after each 10 labels (E. Wilson, JASA 22, 1927).
    """

    def __init__(self, runs: int) -> None:
        self.alarmed = np.zeros(runs, np.bool_)
        self._ring, self._sum, self._count = np.zeros((WINDOW, runs), np.bool_), np.zeros(runs, np.int64), 0

    def add(self, failed: Flags) -> None:
        place = self._count % WINDOW
        self._sum += failed.astype(np.int64) - self._ring[place]
        self._ring[place] = failed
        self._count += 1
        if self._count >= WINDOW and self._count % EVERY == 0:
            share, square = self._sum / WINDOW, Z99**2 / WINDOW
            half = Z99 * np.sqrt(share * (1 - share) / WINDOW + square / (4 * WINDOW))
            self.alarmed |= (share + square / 2 - half) / (1 + square) > EXPECTED


class Ratio:
    """The logarithm of the likelihood ratio of the sought and the expected share, which restarts at a lower limit.

    With the limit 0 it is Page's CUSUM (Biometrika 41, 1954). With a lower one it is Wald's SPRT (1945), begun again
    after each decision that nothing is wrong.
    """

    def __init__(self, runs: int, floor: float) -> None:
        self.alarmed = np.zeros(runs, np.bool_)
        self._floor, self._value = floor, np.zeros(runs)
        self._steps = math.log(SOUGHT / EXPECTED), math.log((1 - SOUGHT) / (1 - EXPECTED))

    def add(self, failed: Flags) -> None:
        self._value += np.where(failed, *self._steps)
        self._value[self._value <= self._floor] = 0.0
        self.alarmed |= self._value >= BAR


BASELINES: dict[str, Callable[[int], Baseline]] = {
    "fixed window": Window,
    "SPRT": lambda runs: Ratio(runs, -BAR),
    "CUSUM": lambda runs: Ratio(runs, 0.0),
}
