"""Drift of the features, of the score and of the share of missing values, in disjoint windows.

A window opens at most once in `every` seconds, and holds `limits.window` records in a row. PSI compares it with the
card's reference; Holm's method ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of
Statistics 1979) keeps the probability of any false warning of a window at `limits.test_level`. The conventional marks
of PSI, .1 and .25, decide nothing: what a healthy window reaches depends on its size and on the number of bins.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from lab.card import Card, Histogram
from lab.record import Value
from monitor import psi
from monitor.drift_limits import Kind, Limits, Statistic, limit, p_value, table

# Seconds from the end of one window to the start of the next.
EVERY = 3600.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of a complete window. `limit` is the PSI that is significant at Holm's smallest level.

    `n` is the number of values: fewer than the window where some are missing.
    """

    name: str
    kind: Kind
    n: int
    psi: float
    limit: float
    p_value: float
    drifted: bool

    @property
    def key(self) -> str:
        """The unique name of the statistic: a feature has one for its values, and another for its missing ones."""
        return f"{self.kind}:{self.name}"


class Drift(msgspec.Struct, kw_only=True):
    """The drift of one champion since it took office; the JSON of this state restores it.

    `key` is that of the limits: a window that was begun with others is begun again.
    `opens` is the time in Unix seconds from which a window is open. `seen` is the number of records in the open window,
    and `counts` has the counts of its statistics in the order of the limits. `results` are those of the last complete
    window, which ended at `tested_at`; `windows` is the number of complete windows. `warned` holds the time of each
    warning by the key of its statistic, until it is acknowledged.
    """

    every: float = EVERY
    key: str = ""
    opens: float | None = None
    seen: int = 0
    counts: list[list[int]] = []
    results: list[Result] = []
    tested_at: float | None = None
    windows: int = 0
    warned: dict[str, float] = {}

    def add(
        self,
        card: Card,
        limits: Limits,
        features: Mapping[str, Value | None],
        probability: float,
        at: float,
    ) -> list[Result] | None:
        """Count one prediction, of the time `at` in Unix seconds; return the results when it completes a window.

        `limits` are those of `card`. A feature that is absent or None is missing. A number outside the reference's
        range counts in the nearest bin; a value of another type and a level that the card lacks are left out.
        """
        if not self.seen and self.opens is not None and at < self.opens:
            return None
        if not self.seen or self.key != limits.key:
            self.key, self.seen = limits.key, 0
            self.counts = [[0] * len(statistic.counts) for statistic in limits.statistics]
        self.seen += 1
        for statistic, counts in zip(limits.statistics, self.counts, strict=True):
            cell = _cell(card, statistic, features, probability)
            if cell is not None:
                counts[cell] += 1
        return self._complete(limits, at) if self.seen >= limits.window else None

    def new_warnings(self, results: Sequence[Result]) -> list[Result]:
        """The results that drifted and were not warned of since they were acknowledged; they are now."""
        new = [result for result in results if result.drifted and result.key not in self.warned]
        self.warned |= {result.key: self.tested_at or 0.0 for result in new}
        return new

    def acknowledge(self, names: Sequence[str] | None = None) -> list[str]:
        """Forget the warnings of these statistics, so that they may warn again; return their keys.

        A name is a key, or the name of a feature for both of its statistics. None stands for all.
        """
        chosen = [key for key in self.warned if names is None or key in names or key.partition(":")[2] in names]
        self.warned = {key: at for key, at in self.warned.items() if key not in chosen}
        return chosen

    def _complete(self, limits: Limits, at: float) -> list[Result]:
        results = judge(limits, self.counts)
        # A clock that jumps back must not open windows sooner, hence the later of the times.
        end = at if self.opens is None else max(at, self.opens)
        self.opens, self.tested_at, self.results = end + self.every, end, results
        self.seen, self.counts = 0, []
        self.windows += 1
        return results


def judge(limits: Limits, windows: Sequence[Sequence[int]]) -> list[Result]:
    """The results of a complete window from its counts, in the order of the limits' statistics."""
    measured = [_measure(limits, s, counts) for s, counts in zip(limits.statistics, windows, strict=True)]
    rejected = holm([result.p_value for result in measured], limits.test_level)
    return [
        msgspec.structs.replace(result, drifted=drifted) for result, drifted in zip(measured, rejected, strict=True)
    ]


def _measure(limits: Limits, statistic: Statistic, counts: Sequence[int]) -> Result:
    """One statistic, not yet judged. Without any value its PSI is 0."""
    n, value, p, mark = sum(counts), 0.0, 1.0, statistic.limit
    if n:
        points = table(limits, statistic, n)
        value = psi.index(statistic.counts, counts)
        p, mark = p_value(points, value), limit(points, limits.smallest_level)
    return Result(name=statistic.name, kind=statistic.kind, n=n, psi=value, limit=mark, p_value=p, drifted=False)


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Whether each hypothesis is rejected, with the probability of any false rejection at most `level` (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def _cell(card: Card, statistic: Statistic, features: Mapping[str, Value | None], probability: float) -> int | None:
    """The cell of one record in a statistic; None when it has no value to count."""
    if statistic.kind == "score":
        return _bin(card.score_reference, probability)
    value = features.get(statistic.name)
    if statistic.kind == "missing":
        return int(value is None)
    return _bin(card.feature_reference[statistic.name], value)


def _bin(reference: Histogram, value: object) -> int | None:
    if reference.levels:
        # In Python, True equals 1: a boolean is no level of numbers, and a number is no boolean.
        for place, level in enumerate(reference.levels):
            if level == value and isinstance(level, bool) == isinstance(value, bool):
                return place
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    # The last bin is closed, and numbers outside the range belong to the nearest bin.
    return min(max(bisect_right(reference.edges, value) - 1, 0), len(reference.edges) - 2)
