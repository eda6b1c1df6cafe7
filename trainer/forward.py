"""The folds of an evaluation forward in time: train on the past months, test on the next ones."""

from __future__ import annotations

import numpy as np

from lab.errors import LabError
from lab.problem import Problem
from trainer.metrics import Ints
from trainer.table import Fold, Split, Table


def plan(problem: Problem, data: Table) -> list[Fold]:
    """One fold for each test, in the order of time, and last the final fit: its training rows are all rows.

    The last `evaluation.folds` parts of the months are the tests. All have the same number of months, and the months
    before the first test are no fewer than a test's. Each fold trains on all months before its test, without the rows
    of a group that is in the test. The splits of the grid search go forward in time in the same way.
    """
    evaluation = problem.evaluation
    months = _months(data)
    count = int(months.max()) + 1
    least = evaluation.folds + evaluation.inner_folds + 1
    if count < least:
        raise LabError(
            f"the dataset has {count} months, and evaluation forward in time with {evaluation.folds} folds and "
            f"{evaluation.inner_folds} inner folds needs {least}",
            "lower evaluation.folds or inner_folds, use more months, or write evaluation.split: folds",
        )
    size = min(count // (evaluation.folds + 1), (count - evaluation.inner_folds - 1) // evaluation.folds)
    folds = []
    for fold in range(evaluation.folds):
        start = count - (evaluation.folds - fold) * size
        test = np.flatnonzero((months >= start) & (months < start + size))
        train = _others(data, np.flatnonzero(months < start), test)
        for rows, name in ((train, "before"), (test, "in")):
            _check_classes(problem, data, rows, f"{name} the months of test {fold + 1}")
        folds.append(Fold(0, train, test, _inner(problem, data, train)))
    everything = np.arange(len(data.y))
    return [*folds, Fold(-1, everything, np.arange(0), _inner(problem, data, everything))]


def _inner(problem: Problem, data: Table, train: Ints) -> list[Split]:
    """The splits of the grid search, as indices into `train`."""
    folds, present = problem.evaluation.inner_folds, _months(data)[train]
    months = np.unique(present)
    size = len(months) // (folds + 1)
    splits = []
    for fold in range(folds if size else 0):
        bounds = months[len(months) - (folds - fold) * size :][:size]
        later = np.flatnonzero(np.isin(present, bounds))
        before = np.flatnonzero(present < bounds[0])
        before = before[np.isin(train[before], _others(data, train[before], train[later]))]
        for rows in (before, later):
            _check_classes(problem, data, train[rows], "of one part of the grid search")
        splits.append((before, later))
    if not splits:
        raise LabError(
            f"the training rows of a fold have {len(months)} months, and {folds} inner folds need {folds + 1}",
            "lower evaluation.inner_folds, or leave out evaluation.group",
        )
    return splits


def _others(data: Table, train: Ints, test: Ints) -> Ints:
    """The training rows that belong to no group of the test."""
    return train if data.groups is None else train[~np.isin(data.groups[train], data.groups[test])]


def _months(data: Table) -> Ints:
    assert data.months is not None  # noqa: S101  # lab.problem_faults demands dated groups
    return data.months


def _check_classes(problem: Problem, data: Table, rows: Ints, place: str) -> None:
    if len(np.unique(data.y[rows])) < 2:
        raise LabError(
            f"there are not both classes of {problem.target.column} in the {len(rows)} rows {place}",
            "lower evaluation.folds, so that a test has more months, or write evaluation.split: folds",
        )
