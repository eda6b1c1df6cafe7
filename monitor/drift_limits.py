"""The limits of drift for one card: the distribution of the PSI of each statistic while nothing drifts.

The statistics are each feature's distribution of the values that are present, the distribution of the score, and the
share of missing values of each feature that may be missing. `monitor.psi` describes the PSI and its distribution. The
limits are computed and not drawn, so that they need no seed and the same card has the same limits everywhere.

The number of present values varies from window to window, and PSI depends on it. A window is therefore judged given its
own number: the table of the full window is stored, and that of another number is computed when it occurs.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from lab.card import Card
from lab.errors import LabError
from monitor import psi

Kind = Literal["feature", "score", "missing"]
# A statistic of a reference, and the counts of its cells.
Reference = tuple[Kind, str, list[int]]
# Values of PSI, ascending, and for each the probability of it or more.
Table = tuple[list[float], list[float]]
# The name of the score's statistic. A feature may have the same name; the pair of kind and name is unique.
SCORE = "score"
# The table has the probabilities from 1/2 down to SMALLEST, POINTS in number at equal ratios.
SMALLEST, POINTS = 1e-7, 160
# The largest relative error of the probability at the level of one test.
MOST_ERROR = 0.1


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic: the reference's counts, and the table of the full window.

    `tails[i]` (descending) is the probability of a PSI of `psi[i]` (ascending) or more while nothing drifts. `limit` is
    the PSI that is significant at Holm's smallest level, and `error` the relative error of the probability there.
    """

    kind: Kind
    name: str
    counts: list[int]
    psi: list[float]
    tails: list[float]
    limit: float
    error: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one card. `level` is the probability of a false warning in a day of `tests_a_day` windows."""

    key: str
    window: int
    level: float
    tests_a_day: int
    statistics: list[Statistic]

    @property
    def test_level(self) -> float:
        """The family-wise level of one window, after Bonferroni over the windows of a day."""
        return self.level / self.tests_a_day

    @property
    def smallest_level(self) -> float:
        """The level of one statistic in the first step of Holm's method."""
        return self.test_level / max(len(self.statistics), 1)


def make(card: Card, window: int = 200, level: float = 0.01, tests_a_day: int = 24) -> Limits:
    """Compute the limits; raise LabError when the card has no counts (schema version 1), or an error is too large.

    It takes about 0.1 s for a feature of ten bins, and 1.5 s for a category of 100 levels.
    """
    return of(list(_references(card)), key(card, window, level, tests_a_day), window, level, tests_a_day)


def of(references: list[Reference], name: str, window: int, level: float, tests_a_day: int) -> Limits:
    """The limits of these references, with the key `name`; raise LabError as `make`."""
    smallest = level / tests_a_day / max(len(references), 1)
    return Limits(
        key=name,
        window=window,
        level=level,
        tests_a_day=tests_a_day,
        statistics=[_statistic(kind, name, counts, window, smallest) for kind, name, counts in references],
    )


def key(card: Card, window: int = 200, level: float = 0.01, tests_a_day: int = 24) -> str:
    """A hash of all that the limits depend on. Limits with the same key are equal. Raise LabError as `make`."""
    # The number in front changes when the computation does.
    content = [1, list(_references(card)), window, level, tests_a_day]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def table(limits: Limits, statistic: Statistic, n: int) -> Table:
    """The table for `n` values, at least 1. One for fewer than the full window errs further to the safe side."""
    if n == limits.window:
        return statistic.psi, statistic.tails
    return _table(tuple(statistic.counts), n, limits.smallest_level)


def p_value(points: Table, value: float) -> float:
    """The probability of a PSI of `value` or more while nothing drifts. It is never below the last of the table."""
    # The exact table rises in steps, and equal values of PSI differ by the rounding of floats.
    return math.exp(float(np.interp(value - psi.ROUNDING, [0.0, *points[0]], [0.0, *np.log(points[1])])))


def limit(points: Table, level: float) -> float:
    """The PSI with the probability `level`."""
    return float(np.interp(-math.log(level), -np.log(points[1]), points[0]))


def present_counts(card: Card, name: str) -> list[int]:
    """The reference's counts of the values of a feature that are present."""
    return list(card.feature_reference[name].counts)


def _references(card: Card) -> Iterator[Reference]:
    """The statistics of a card with their counts. A single bin cannot drift, and is left out."""
    if card.schema_version < 2 or not card.score_reference.counts:
        raise LabError("no counts: drift cannot be judged with a card of schema version 1", "train and promote again")
    for feature in card.features:
        counts = present_counts(card, feature.name)
        if len(counts) > 1:
            yield "feature", feature.name, counts
    if len(card.score_reference.counts) > 1:
        yield "score", SCORE, list(card.score_reference.counts)
    for feature in card.features:
        if feature.nullable:
            present = sum(present_counts(card, feature.name))
            yield "missing", feature.name, [present, max(card.rows - present, 0)]


def _statistic(kind: Kind, name: str, counts: list[int], window: int, level: float) -> Statistic:
    if len(counts) <= psi.FEW_CELLS:
        points, error = _exact(tuple(counts), window, level), 0.0
    else:
        points, error = _computed(tuple(counts), window, level, psi.MOST)
    if error > MOST_ERROR:
        raise LabError(f"the limits of {name} have a relative error of {error:.0%}", "give the feature fewer levels")
    return Statistic(
        kind=kind,
        name=name,
        counts=counts,
        psi=points[0],
        tails=points[1],
        limit=limit(points, level),
        error=error,
    )


def _computed(counts: tuple[int, ...], n: int, level: float, most: int) -> tuple[Table, float]:
    grid = np.geomspace(0.5, min(SMALLEST, level / 10), POINTS)
    values, error = psi.tabulate(counts, n, grid, level, most)
    return (values.tolist(), grid.tolist()), error


def _exact(counts: tuple[int, ...], n: int, level: float) -> Table:
    """The exact table, down to the first probability that is small enough."""
    values, tails = psi.exact(counts, n)
    values, tails = values[tails > 0], tails[tails > 0]
    # The first and the last point of each 2 % are enough: the probability of those in between differs by less.
    steps = np.diff(np.floor(np.log(tails) / -0.02)) > 0
    kept = np.concatenate([[True], steps]) | np.concatenate([steps, [True]])
    kept[int(np.searchsorted(-tails, -min(SMALLEST, level / 10))) + 1 :] = False
    return values[kept].tolist(), tails[kept].tolist()


@functools.lru_cache(maxsize=512)
def _table(counts: tuple[int, ...], n: int, level: float) -> Table:
    return _exact(counts, n, level) if len(counts) <= psi.FEW_CELLS else _computed(counts, n, level, psi.FEWEST)[0]
