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
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lab.errors import LabError
from lab.problem import Candidate, Problem
from trainer.metrics import SCORERS, Floats, Ints, fold_metrics

Split = tuple[Ints, Ints]
# Scaling changes nothing for these, but their splits may lie on a value, and then rounding a scaled value to float32,
# as ONNX does, sends it down the other branch.
TREES = frozenset(
    {
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
    }
)


@dataclass(frozen=True)
class Table:
    """A valid dataset as arrays: `x` (rows, features) with NaN for missing, `y` (rows,) 0 or 1."""

    x: Floats
    y: Ints
    groups: Ints | None


@dataclass(frozen=True)
class Fold:
    """An outer fold: which repeat it belongs to, its rows, and the splits of its grid search.

    The inner splits index into `train`. They are made of the repeat's other outer folds, which are
    stratified and grouped already.
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


def plan(problem: Problem, data: Table) -> list[Fold]:
    """The outer folds of all repeats and, last, one whose training rows are all rows: the final fit.

    Made once, so that every candidate meets the same folds.
    """
    evaluation, planned = problem.evaluation, []
    for repeat in range(evaluation.repeats):
        parts = _parts(problem, data, evaluation.seed + repeat)
        for out, test in enumerate(parts):
            others = parts[:out] + parts[out + 1 :]
            planned.append(_fold(repeat, others, test, evaluation.inner_folds))
        if repeat == 0:
            final = _fold(-1, parts, np.arange(0), evaluation.inner_folds)
    return [*planned, final]


def evaluate(problem: Problem, candidates: dict[str, Candidate], data: Table) -> dict[str, Evaluated]:
    """Cross-validate the candidates on the same folds and fit each on all rows.

    Runs on the joblib backend that is active (see `backend`); the result does not depend on which.
    Raises LabError for a candidate that cannot be built or fitted.
    """
    folds = plan(problem, data)
    searches = {name: _search(problem, name, candidate) for name, candidate in candidates.items()}
    jobs = [joblib.delayed(_run)(name, search, data, fold) for name, search in searches.items() for fold in folds]
    try:
        results = joblib.Parallel(n_jobs=-1)(jobs)
    except TimeoutError as error:  # Dask without workers
        raise LabError(f"the search waited too long: {error}", "start workers, or search on this machine") from error
    return {
        name: _gathered(problem, data, folds, results[i * len(folds) : (i + 1) * len(folds)])
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
    """Imputer, scaler (but for trees) and the declared estimator, not fitted."""
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
    scaling = [] if attribute in TREES else [("scale", StandardScaler())]
    return Pipeline([("impute", SimpleImputer(strategy="median")), *scaling, ("model", estimator)])


def _search(problem: Problem, name: str, candidate: Candidate) -> GridSearchCV:
    return GridSearchCV(
        build(problem, name, candidate),
        {f"model__{key}": values for key, values in candidate.grid.items()},
        scoring=SCORERS[problem.evaluation.tune_on],
        error_score="raise",
    )


def _parts(problem: Problem, data: Table, seed: int) -> list[Ints]:
    """The rows in parts of like size and class share, no group in two of them."""
    folds = problem.evaluation.folds
    kind = StratifiedKFold if data.groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn only warns of a class with fewer rows than folds
        try:
            splitter = kind(folds, shuffle=True, random_state=seed)
            parts = [test for _, test in splitter.split(data.x, data.y, data.groups)]
        except (ValueError, UserWarning) as error:
            raise _too_few(folds) from error
    if any(len(np.unique(data.y[part])) < 2 for part in parts):
        raise _too_few(folds)
    return parts


def _fold(repeat: int, parts: list[Ints], test: Ints, inner_folds: int) -> Fold:
    train = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)) * inner_folds // len(parts), [len(part) for part in parts])
    inner = [(np.flatnonzero(owner != i), np.flatnonzero(owner == i)) for i in range(inner_folds)]
    return Fold(repeat, train, test, inner)


def _too_few(folds: int) -> LabError:
    return LabError(f"{folds} folds are too many: some would lack a class", "lower evaluation.folds, or take more data")


def _run(name: str, search: GridSearchCV, data: Table, fold: Fold) -> tuple[Floats, Pipeline | None, dict[str, Any]]:
    """Search on the fold's training rows; give its test rows' probabilities and the best grid point."""
    search = clone(search).set_params(cv=fold.inner)  # a copy: backends with threads share it
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


def _gathered(problem: Problem, data: Table, folds: list[Fold], results: list[Any]) -> Evaluated:
    oof = np.full((problem.evaluation.repeats, len(data.y)), np.nan)
    scores: dict[str, list[float]] = {metric: [] for metric in SCORERS}
    for fold, (probability, _, _) in zip(folds[:-1], results[:-1], strict=True):
        oof[fold.repeat, fold.test] = probability
        for metric, score in fold_metrics(data.y[fold.test], probability).items():
            scores[metric].append(score)
    _, model, best = results[-1]
    return Evaluated(folds=scores, oof=oof, model=model, best=best)
