"""The arrays of a dataset, and the folds of repeated stratified cross-validation on them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lab.errors import LabError
from lab.problem import Problem
from trainer.metrics import Floats, Ints

Split = tuple[Ints, Ints]


@dataclass(frozen=True)
class Table:
    """A valid dataset as arrays: `x` (rows, features) with NaN for missing, `y` (rows,) 0 or 1."""

    x: Floats
    y: Ints
    groups: Ints | None


@dataclass(frozen=True)
class Fold:
    """An outer fold: the number of its repeat, its rows, and the splits of its grid search.

    The inner splits are indices into `train`. They are made of the other outer folds of the repeat, which are
    stratified and grouped already.
    """

    repeat: int
    train: Ints
    test: Ints
    inner: list[Split]


def table(problem: Problem, frame: pd.DataFrame) -> Table:
    """The arrays of a typed dataset, such as `trainer.validate.validate` returns.

    The features are rounded to float32, because a served model gets float32. A tree that was fitted on other values may
    split between a value and its float32.
    """
    group = problem.evaluation.group
    return Table(
        x=frame[list(problem.features)].to_numpy(dtype=np.float64).astype(np.float32).astype(np.float64),
        y=frame[problem.target.column].to_numpy(dtype=np.int64),
        groups=pd.factorize(frame[group])[0] if group else None,
    )


def plan(problem: Problem, data: Table) -> list[Fold]:
    """The outer folds of all repeats and, last, one whose training rows are all rows: the final fit.

    The folds are made once, so that every candidate is evaluated on the same folds.
    """
    evaluation, folds = problem.evaluation, []
    for repeat in range(evaluation.repeats):
        parts = _parts(problem, data, evaluation.seed + repeat)
        for out, test in enumerate(parts):
            others = parts[:out] + parts[out + 1 :]
            folds.append(_fold(repeat, others, test, evaluation.inner_folds))
        if repeat == 0:
            final = _fold(-1, parts, np.arange(0), evaluation.inner_folds)
    return [*folds, final]


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
    train = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)) * inner_folds // len(parts), [len(part) for part in parts])
    inner = [(np.flatnonzero(owner != i), np.flatnonzero(owner == i)) for i in range(inner_folds)]
    return Fold(repeat, train, test, inner)


def _too_few(problem: Problem, data: Table) -> LabError:
    target, evaluation = problem.target, problem.evaluation
    units = np.arange(len(data.y)) if data.groups is None else data.groups
    counts = {value: len(np.unique(units[data.y == y])) for y, value in enumerate([target.negative, target.positive])}
    rarer = min(counts, key=lambda value: counts[value])
    of = f"{len(np.unique(units))} {f'values of {evaluation.group}' if evaluation.group else 'rows'}"
    return LabError(
        f"{evaluation.folds} folds are too many: each needs both classes, and {target.column} is {rarer.value!r} "
        f"in {counts[rarer]} of {of}",
        f"lower evaluation.folds (3 is the least, with inner_folds: 2), or take more data with {rarer.value!r}",
    )
