"""The drift of the worked example's features in simulated windows: false warnings, and shifts that are found.

A window's records are rows of the table, so that the features depend on each other as they do in reality. The table is
a sample as well, and each simulated day draws its own weights for the rows (the Bayesian bootstrap; D. Rubin, Annals of
Statistics 9, 1981). The score is left out, because no model takes part.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lab.problem import Problem
from lab.settings import ROOT
from monitor import drift_limits, psi
from monitor.drift import judge
from monitor.drift_limits import Kind, Limits

Ints = NDArray[np.int64]
WINDOW, LEVEL, DAY, SHIFT = 200, 0.01, 24, 2
MISSING = -1
MARKS = (0.1, 0.25)


@dataclass
class Figures:
    """`false_days` of `days` had a false warning. `found` is the share of shifts found within 2 windows by feature.

    `marks` is the share of healthy windows in which some feature passes a conventional mark, by window size and mark.
    """

    days: int
    false_days: int = 0
    found: dict[str, float] = field(default_factory=dict)
    marks: dict[tuple[int, float], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The features of the worked example: `cells` has the shape (rows, features), and MISSING for no value."""

    names: list[str]
    cells: Ints
    count: int

    @property
    def nullable(self) -> list[int]:
        return [place for place in range(len(self.names)) if (self.cells[:, place] == MISSING).any()]


def read(problem: Problem) -> Table:
    """The table of a problem whose features are whole numbers from 1 to the same maximum, as in the worked example."""
    places = {name: problem.source.columns.index(name) for name in problem.features}
    count = int(max(feature.max for feature in problem.features.values()))
    with (ROOT / problem.source.path).open() as file:
        rows = [[_cell(row[place]) for place in places.values()] for row in csv.reader(file) if row]
    return Table(list(places), np.array(rows), count)


def _cell(text: str) -> int:
    return int(text) - 1 if text.isdecimal() else MISSING


def limits(table: Table) -> Limits:
    """The limits with the table as the reference."""
    kinds: list[tuple[Kind, int]] = [("feature", place) for place in range(len(table.names))]
    kinds += [("missing", place) for place in table.nullable]
    references = [
        (kind, table.names[place], counts)
        for (kind, place), counts in zip(kinds, _counts(table, table.cells), strict=True)
    ]
    return drift_limits.of(references, "simulation", WINDOW, LEVEL, DAY)


def _counts(table: Table, cells: Ints) -> list[list[int]]:
    """The counts of each statistic, in the order of the limits."""
    present = [np.bincount(column[column != MISSING], minlength=table.count).tolist() for column in cells.T]
    missing = [int((cells[:, place] == MISSING).sum()) for place in table.nullable]
    return present + [[len(cells) - count, count] for count in missing]


def run(table: Table, days: int, shifts: int, seed: int) -> Figures:
    """Simulate `days` healthy days of 24 windows, and `shifts` shifts by 2 of each feature, clipped at its bounds."""
    generator, bounds, figures = np.random.default_rng(seed), limits(table), Figures(days)
    for _ in range(days):
        weights = generator.dirichlet(np.ones(len(table.cells)))
        windows = (_window(table, generator, weights) for _ in range(DAY))
        figures.false_days += any(any(r.drifted for r in judge(bounds, _counts(table, w))) for w in windows)
    for place, name in enumerate(table.names):
        found = 0
        for _ in range(shifts):
            windows = (_shifted(table, _window(table, generator), place) for _ in range(2))
            found += any(_drifted(bounds, _counts(table, w), name) for w in windows)
        figures.found[name] = found / shifts
    for size in (100, WINDOW):
        tops = [_top(table, table.cells[generator.integers(0, len(table.cells), size)]) for _ in range(20 * days)]
        figures.marks |= {(size, mark): float(np.mean(np.array(tops) > mark)) for mark in MARKS}
    return figures


def _window(table: Table, generator: np.random.Generator, weights: NDArray[np.float64] | None = None) -> Ints:
    chosen: Ints = table.cells[generator.choice(len(table.cells), WINDOW, p=weights)]
    return chosen


def _shifted(table: Table, window: Ints, place: int) -> Ints:
    column = window[:, place]
    window[:, place] = np.where(column == MISSING, column, np.minimum(column + SHIFT, table.count - 1))
    return window


def _drifted(bounds: Limits, counts: list[list[int]], name: str) -> bool:
    return any(result.drifted and result.key == f"feature:{name}" for result in judge(bounds, counts))


def _top(table: Table, window: Ints) -> float:
    """The greatest PSI of a feature in the window."""
    pairs = zip(_counts(table, table.cells), _counts(table, window), strict=True)
    return max(psi.index(reference, counts) for reference, counts in pairs)


def page(figures: Figures) -> str:
    """The figures as text in Markdown."""
    lines = [
        f"**Drift.** {figures.days:,} healthy days of {DAY} windows of {WINDOW} records: a false warning on "
        f"{figures.false_days} days, {figures.false_days / figures.days:.1%}.",
        "",
        f"The share of shifts by {SHIFT} that were found within two windows:",
        "",
        "| feature | found |",
        "|---|---:|",
        *(f"| {name} | {share:.1%} |" for name, share in figures.found.items()),
        "",
        "The share of healthy windows in which at least one feature passes a conventional mark:",
        "",
        "| records | PSI above .1 | PSI above .25 |",
        "|---:|---:|---:|",
    ]
    for size in sorted({size for size, _ in figures.marks}):
        lines.append(f"| {size} | {' | '.join(f'{figures.marks[size, mark]:.0%}' for mark in MARKS)} |")
    return "\n".join(lines) + "\n"
