"""The folds of repeated stratified cross-validation, or of an evaluation forward in time."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lab.errors import LabError
from lab.problem import Problem
from trainer import forward
from trainer.metrics import Ints
from trainer.table import Fold, Table

BoolArray = NDArray[np.bool_]


def plan(problem: Problem, data: Table) -> list[Fold]:
    """The outer folds of all repeats and, last, one whose training rows are all rows: the final fit.

    The folds are made once, so that every candidate is evaluated on the same folds.
    """
    evaluation, folds = problem.evaluation, []
    if evaluation.split == "time":
        return forward.plan(problem, data)
    for repeat in range(evaluation.repeats):
        parts = _parts(problem, data, evaluation.seed + repeat)
        for out, test in enumerate(parts):
            others = parts[:out] + parts[out + 1 :]
            folds.append(_fold(repeat, others, test, evaluation.inner_folds))
        if repeat == 0:
            final = _fold(-1, parts, np.arange(0), evaluation.inner_folds)
    return [*folds, final]


def tested(problem: Problem, data: Table) -> BoolArray:
    """Whether each row is in a test, shape (rows,). An evaluation forward in time tests no rows of the first months."""
    mask = np.ones(len(data.y), dtype=bool)
    if problem.evaluation.split == "time":
        mask[:] = False
        for fold in forward.plan(problem, data):
            mask[fold.test] = True
    return mask


def _parts(problem: Problem, data: Table, seed: int) -> list[Ints]:
    """The rows in parts of similar size and class share; no group is in two parts."""
    folds = problem.evaluation.folds
    kind = StratifiedKFold if data.groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn only warns of a class with fewer rows than folds
        try:
            splitter = kind(folds, shuffle=True, random_state=seed)
            parts = [test for _, test in splitter.split(data.x, data.y, data.groups)]
        except (ValueError, UserWarning) as error:
            raise _too_few(problem, data) from error
    if any(len(np.unique(data.y[part])) < 2 for part in parts):
        raise _too_few(problem, data)
    return parts


def _fold(repeat: int, parts: list[Ints], test: Ints, inner_folds: int) -> Fold:
    """The inner splits are made of the other outer folds of the repeat, which are stratified and grouped already."""
    train = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)) * inner_folds // len(parts), [len(part) for part in parts])
    inner = [(np.flatnonzero(owner != i), np.flatnonzero(owner == i)) for i in range(inner_folds)]
    return Fold(repeat, train, test, inner)


def _too_few(problem: Problem, data: Table) -> LabError:
    target, evaluation = problem.target, problem.evaluation
    units = np.arange(len(data.y)) if data.groups is None else data.groups
    counts = {y: len(np.unique(units[data.y == y])) for y in (0, 1)}
    rarer = min(counts, key=lambda y: counts[y])
    value = " or ".join(map(repr, (target.negative, target.positive)[rarer].values))
    of = f"{len(np.unique(units))} {f'values of {evaluation.group}' if evaluation.group else 'rows'}"
    return LabError(
        f"{evaluation.folds} folds are too many: each needs both classes, and {target.column} is {value} "
        f"in {counts[rarer]} of {of}",
        f"lower evaluation.folds (3 is the least, with inner_folds: 2), or take more data with {value}",
    )
