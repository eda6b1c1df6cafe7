"""Repeated stratified cross-validation with the grid search inside the training folds."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lab.errors import LabError
from lab.problem import Candidate, Problem
from trainer.metrics import SCORERS, Floats, Ints, fold_metrics

Split = tuple[Ints, Ints]


@dataclass(frozen=True)
class Table:
    """A valid dataset as arrays: `x` (rows, features) with NaN for missing, `y` (rows,) 0 or 1."""

    x: Floats
    y: Ints
    groups: Ints | None


@dataclass(frozen=True)
class Fold:
    """An outer fold: which repeat it belongs to, its rows, and the splits of its grid search.

    The inner splits index into `train`.
    """

    repeat: int
    train: Ints
    test: Ints
    inner: list[Split]


@dataclass(frozen=True)
class Evaluated:
    """`folds[metric]` has a score for each outer fold, `oof` (repeats, rows) probabilities."""

    folds: dict[str, list[float]]
    oof: Floats
    model: Pipeline
    best: dict[str, Any]


def table(problem: Problem, frame: pd.DataFrame) -> Table:
    """The arrays of a typed dataset (`trainer.validate.validate` gives one)."""
    group = problem.evaluation.group
    return Table(
        x=frame[list(problem.features)].to_numpy(dtype=np.float64),
        y=frame[problem.target.column].to_numpy(dtype=np.int64),
        groups=pd.factorize(frame[group])[0] if group else None,
    )


def plan(problem: Problem, data: Table) -> tuple[list[Fold], list[Split]]:
    """The outer folds of all repeats, and the splits for the final search on all rows.

    Made once, so that every candidate meets the same folds.
    """
    evaluation = problem.evaluation
    every = np.arange(len(data.y))
    outer = [
        Fold(repeat, train, test, _splits(problem, data, train, evaluation.inner_folds, repeat))
        for repeat in range(evaluation.repeats)
        for train, test in _splits(problem, data, every, evaluation.folds, repeat)
    ]
    return outer, _splits(problem, data, every, evaluation.inner_folds, 0)


def evaluate(problem: Problem, candidates: dict[str, Candidate], data: Table) -> dict[str, Evaluated]:
    """Cross-validate the candidates on the same folds and fit each on all rows.

    Runs on the joblib backend that is active (see `backend`); the result does not depend on which.
    Raises LabError for a candidate that cannot be built or fitted.
    """
    outer, whole = plan(problem, data)
    searches = {name: _search(problem, name, candidate) for name, candidate in candidates.items()}
    jobs = [
        joblib.delayed(_run)(name, search, data, fold)
        for name, search in searches.items()
        for fold in [*outer, Fold(-1, np.arange(len(data.y)), np.arange(0), whole)]
    ]
    results = joblib.Parallel(n_jobs=-1)(jobs)
    step = len(outer) + 1
    return {
        name: _gathered(problem, data, outer, results[i * step : (i + 1) * step])
        for i, name in enumerate(searches)
    }


@contextmanager
def backend(dask_address: str) -> Iterator[None]:
    """Run joblib on a Dask cluster that is there already, or locally when no address is given."""
    if not dask_address:
        yield
        return
    from distributed import Client

    try:
        client = Client(dask_address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise LabError(
            f"no Dask scheduler answers at {dask_address}: {error}",
            "start the cluster, or unset DASK_SCHEDULER_ADDRESS to search on this machine",
        ) from error
    with client, joblib.parallel_config("dask", client=client, wait_for_workers_timeout=30):
        yield


def build(problem: Problem, name: str, candidate: Candidate) -> Pipeline:
    """Imputer, scaler and the declared estimator, not fitted."""
    module, _, attribute = candidate.estimator.rpartition(".")
    where = f"candidates.{name}"
    try:
        estimator = getattr(importlib.import_module(module), attribute)(**candidate.settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise LabError(
            f"{where}: cannot make {candidate.estimator}: {error}",
            "estimator is an import path such as sklearn.linear_model.LogisticRegression, settings its arguments",
        ) from error
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "get_params"):
        raise LabError(
            f"{where}: {candidate.estimator} gives no probabilities",
            "take a scikit-learn classifier with predict_proba",
        )
    known = estimator.get_params()
    unknown = sorted(set(candidate.grid) - set(known))
    if unknown:
        raise LabError(f"{where}.grid: {candidate.estimator} has no {', '.join(unknown)}", "correct params.yaml")
    if "random_state" in known and "random_state" not in candidate.settings:
        estimator.set_params(random_state=problem.evaluation.seed)
    return Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler()), ("model", estimator)])


def _search(problem: Problem, name: str, candidate: Candidate) -> GridSearchCV:
    return GridSearchCV(
        build(problem, name, candidate),
        {f"model__{key}": values for key, values in candidate.grid.items()},
        scoring=SCORERS[problem.evaluation.tune_on],
        error_score="raise",
    )


def _splits(problem: Problem, data: Table, rows: Ints, folds: int, repeat: int) -> list[Split]:
    seed = problem.evaluation.seed + repeat
    y, groups = data.y[rows], None if data.groups is None else data.groups[rows]
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn only warns of a class with fewer rows than folds
        try:
            splits = list(kind(folds, shuffle=True, random_state=seed).split(data.x[rows], y, groups))
        except (ValueError, UserWarning) as error:
            raise _too_few(folds) from error
    if any(len(np.unique(y[part])) < 2 for split in splits for part in split):
        raise _too_few(folds)
    return splits


def _too_few(folds: int) -> LabError:
    return LabError(
        f"{folds} folds are too many: some would lack a class",
        "lower evaluation.folds or evaluation.inner_folds, or take more data",
    )


def _run(name: str, search: GridSearchCV, data: Table, fold: Fold) -> tuple[Floats, Pipeline | None, dict[str, Any]]:
    """Search on the fold's training rows; give its test rows' probabilities and the best grid point."""
    search.set_params(cv=fold.inner)
    # One thread for each process: quicker on small tables, and the same sums on every backend.
    with threadpool_limits(1):
        try:
            search.fit(data.x[fold.train], data.y[fold.train])
        except ValueError as error:
            raise LabError(f"candidates.{name} cannot be fitted: {error}", "correct its settings or grid") from error
        best = {key.removeprefix("model__"): value for key, value in search.best_params_.items()}
        if fold.repeat < 0:  # the final fit, on all rows
            return np.empty(0), search.best_estimator_, best
        return search.predict_proba(data.x[fold.test])[:, 1], None, best


def _gathered(problem: Problem, data: Table, outer: list[Fold], results: list[Any]) -> Evaluated:
    oof = np.full((problem.evaluation.repeats, len(data.y)), np.nan)
    scores: dict[str, list[float]] = {metric: [] for metric in SCORERS}
    for fold, (probability, _, _) in zip(outer, results, strict=False):
        oof[fold.repeat, fold.test] = probability
        for metric, score in fold_metrics(data.y[fold.test], probability).items():
            scores[metric].append(score)
    _, model, best = results[-1]
    return Evaluated(folds=scores, oof=oof, model=model, best=best)
