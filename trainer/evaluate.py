"""Repeated stratified cross-validation with the grid search inside the training folds."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.metrics import get_scorer, make_scorer, recall_score
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from lab.errors import LabError
from lab.problem import METRICS, Candidate, Problem
from trainer.cluster import CODE_SHA256, check_code
from trainer.encoding import steps
from trainer.fit_progress import FitProgress
from trainer.fit_warnings import lines, recorded
from trainer.folds import plan
from trainer.metrics import Counts, Floats, counts_at, score_metrics, summed
from trainer.table import Fold, Table
from trainer.threshold import allowed_misses, choose_threshold

# The name of the scikit-learn scorer, for each metric with another name than its scorer.
SCORERS = {
    "specificity": make_scorer(recall_score, pos_label=0),
    "brier": get_scorer("neg_brier_score"),
    "log_loss": get_scorer("neg_log_loss"),
}
# Trees need no scaling. Scaling could even change predictions: a split may lie on a value, and ONNX rounds a scaled
# value to float32, so that the value could take the other branch.
TREES = frozenset(
    {
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LGBMClassifier",
        "XGBClassifier",
    }
)


@dataclass(frozen=True)
class Evaluated:
    """The result of the cross-validation of a candidate, and the model that was fitted on all rows.

    `folds[metric]` has a score for each outer fold. `repeats` has the counts of each repeat, at the thresholds of its
    folds. Scores and counts come from the search, in which the grid point of each fold is chosen without the fold. The
    model and `oof`, the out-of-fold probabilities of shape (repeats, rows), come from the grid point `best`.

    In an evaluation forward in time, `oof` is NaN for the rows of the months before the first test, and the first test
    has no scores that depend on a threshold, because there are no earlier tests to choose one on.
    """

    folds: dict[str, list[float]]
    repeats: list[Counts]
    oof: Floats
    model: Pipeline
    best: dict[str, Any]


@dataclass(frozen=True)
class _Outcome:
    """The outcome of a fold: probabilities of its test rows, the best grid point, and the model fitted on all rows."""

    probability: Floats
    model: Pipeline | None
    best: dict[str, Any]
    warned: list[str]


def evaluate(problem: Problem, candidates: dict[str, Candidate], data: Table) -> dict[str, Evaluated]:
    """Cross-validate the candidates on the same folds and fit each on all rows.

    Runs on the active joblib backend (see `trainer.cluster.backend`), which does not change the result. Prints the
    number of fits that are done, and each warning of a candidate once, with its count. Raises LabError for a candidate
    that cannot be built or fitted; the error includes the warnings that came before.
    """
    folds = plan(problem, data)
    searches = {name: _search(problem, name, candidate) for name, candidate in candidates.items()}
    progress = FitProgress()
    outcomes = _run_all([(name, search, data, fold) for name, search in searches.items() for fold in folds], progress)
    searched = {name: outcomes[i * len(folds) : (i + 1) * len(folds)] for i, name in enumerate(searches)}
    # Folds in which the search chose another grid point than the search on all rows are fitted again, at the point
    # chosen on all rows.
    absent = [
        (name, fold)
        for name, of_name in searched.items()
        for fold, outcome in zip(folds, of_name, strict=True)
        if outcome.best != of_name[-1].best
    ]
    fixed = {name: _fixed(search, searched[name][-1].best) for name, search in searches.items()}
    fits = _run_all([(name, fixed[name], data, fold) for name, fold in absent], progress)
    progress.finish()
    outcome_of = {(name, id(fold)): outcome for (name, fold), outcome in zip(absent, fits, strict=True)}
    _show_warnings([(name, o.warned) for name, of_name in searched.items() for o in of_name])
    return {
        name: _gather(
            problem,
            data,
            folds,
            of_name,
            [outcome_of.get((name, id(fold)), outcome) for fold, outcome in zip(folds, of_name, strict=True)],
        )
        for name, of_name in searched.items()
    }


def _run_all(jobs: Sequence[tuple[str, GridSearchCV, Table, Fold]], progress: FitProgress) -> list[_Outcome]:
    for name, search, _, fold in jobs:
        progress.expect(name, _fits(search, fold))
    outcomes = []
    try:
        # The generator gives the outcomes in the order of the jobs.
        running = joblib.Parallel(n_jobs=-1, return_as="generator")(
            joblib.delayed(_run)(*job, CODE_SHA256) for job in jobs
        )
        for (name, search, _, fold), outcome in zip(jobs, running, strict=True):
            outcomes.append(outcome)
            progress.done(name, _fits(search, fold))
    except TimeoutError as error:  # Dask without workers
        raise LabError(f"the search waited too long: {error}", "start workers, or search on this machine") from error
    return outcomes


def _fits(search: GridSearchCV, fold: Fold) -> int:
    """The number of fits of a search: each grid point on each inner fold, and the best one on all training rows."""
    return len(ParameterGrid(search.param_grid)) * len(fold.inner) + 1


def build(problem: Problem, name: str, candidate: Candidate) -> Pipeline:
    """The preparation of the rows (`trainer.encoding`) and the declared estimator, not fitted."""
    module, _, attribute = candidate.estimator.rpartition(".")
    where = f"candidates.{name}"
    try:
        estimator = getattr(importlib.import_module(module), attribute)(**candidate.settings)
    except Exception as error:  # its module and its constructor may raise any exception
        raise LabError(
            f"{where}: cannot make {candidate.estimator}: {error}",
            "estimator is an import path such as sklearn.linear_model.LogisticRegression, settings its arguments",
        ) from error
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "get_params"):
        raise LabError(
            f"{where}: {candidate.estimator} gives no probabilities",
            "take a scikit-learn classifier with predict_proba",
        )
    parameters = estimator.get_params()
    unknown = sorted(set(candidate.grid) - set(parameters))
    if unknown:
        raise LabError(f"{where}.grid: {candidate.estimator} has no {', '.join(unknown)}", "correct params.yaml")
    if "random_state" in parameters and "random_state" not in candidate.settings:
        estimator.set_params(random_state=problem.evaluation.seed)
    return Pipeline([*steps(problem, scale=attribute not in TREES), ("model", estimator)])


def _search(problem: Problem, name: str, candidate: Candidate) -> GridSearchCV:
    for key, values in candidate.grid.items():
        if not values:
            raise LabError(f"candidates.{name}.grid.{key} is empty", "give it a value to try, or remove it")
    return GridSearchCV(
        build(problem, name, candidate),
        {f"model__{key}": values for key, values in candidate.grid.items()},
        scoring=SCORERS.get(problem.evaluation.tune_on, problem.evaluation.tune_on),
        error_score="raise",
    )


def _fixed(search: GridSearchCV, best: dict[str, Any]) -> GridSearchCV:
    """The search with one grid point only."""
    return clone(search).set_params(param_grid={f"model__{key}": [value] for key, value in best.items()})


def _run(name: str, search: GridSearchCV, data: Table, fold: Fold, code_sha256: str) -> _Outcome:
    """Search on the fold's training rows."""
    check_code(code_sha256)
    search = clone(search).set_params(cv=fold.inner)  # a copy, because backends with threads share the array
    # One thread per process is quicker on small tables and gives the same sums on every backend. The fits of a fold run
    # in this process, one after another, because Dask would distribute them and this worker would miss their warnings.
    with recorded() as warned, threadpool_limits(1), joblib.parallel_config("sequential"):
        failure = None
        try:
            search.fit(data.x[fold.train], data.y[fold.train])
            final = fold.repeat < 0  # the fit on all rows
            probability = np.empty(0) if final else search.predict_proba(data.x[fold.test])[:, 1]
            if not np.isfinite(probability).all():
                raise ValueError("it gives probabilities that are not numbers")
        except Exception as error:  # an estimator may raise any exception
            failure = error
    if failure is not None:
        before = "".join(f"\n  warning before, {line}" for line in lines(warned))
        raise LabError(
            f"candidates.{name} cannot be fitted: {str(failure) or type(failure).__name__}{before}",
            "correct its settings or grid",
        ) from failure
    best = {key.removeprefix("model__"): value for key, value in search.best_params_.items()}
    return _Outcome(probability, search.best_estimator_ if final else None, best, warned)


def _show_warnings(pairs: list[tuple[str, list[str]]]) -> None:
    for name in dict.fromkeys(name for name, _ in pairs):
        for line in lines(text for owner, texts in pairs if owner == name for text in texts):
            print(f"warning: candidates.{name}, {line}", flush=True)


def _gather(
    problem: Problem, data: Table, folds: list[Fold], searched: list[_Outcome], fixed: list[_Outcome]
) -> Evaluated:
    nested, oof = (_out_of_fold(problem, data, folds, outcomes) for outcomes in (searched, fixed))
    scores: dict[str, list[float]] = {}
    counts: list[list[Counts]] = [[] for _ in nested]
    for fold in folds[:-1]:
        truth, probability = data.y[fold.test], nested[fold.repeat, fold.test]
        threshold = _threshold(problem, data, nested[fold.repeat], fold)
        rates = {}
        if threshold is not None:
            at_threshold = counts_at(truth, probability, threshold)
            counts[fold.repeat].append(at_threshold)
            rates = at_threshold.rates
        for metric, score in {**score_metrics(truth, probability), **rates}.items():
            scores.setdefault(metric, []).append(score)
    return Evaluated(
        folds={metric: scores[metric] for metric in METRICS},
        repeats=[summed(each) for each in counts],
        oof=oof,
        model=searched[-1].model,
        best=searched[-1].best,
    )


def _threshold(problem: Problem, data: Table, probability: Floats, fold: Fold) -> float | None:
    """The threshold of a fold, chosen on the other folds of its repeat, or forward in time on the earlier tests.

    The first test forward in time has no threshold, nor has a test when the earlier tests have no positive row of other
    groups. When the other folds have too few positives to promise the recall, the threshold misses none of them. This
    is no error, because all folds together may have enough.
    """
    others = fold.train[~np.isnan(probability[fold.train])]
    truth = data.y[others]
    if not truth.any():
        return None
    misses = max(allowed_misses(int(truth.sum()), problem.threshold.recall), 0)
    return choose_threshold(truth, probability[others], misses)


def _out_of_fold(problem: Problem, data: Table, folds: list[Fold], outcomes: list[_Outcome]) -> Floats:
    oof = np.full((problem.evaluation.repeats, len(data.y)), np.nan)
    for fold, outcome in zip(folds[:-1], outcomes[:-1], strict=True):
        oof[fold.repeat, fold.test] = outcome.probability
    return oof
