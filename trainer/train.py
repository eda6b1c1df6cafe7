"""The stage `train`: evaluate the candidates, export them, and write the results for `promote`."""

from __future__ import annotations

import hashlib
import shutil

import msgspec
import numpy as np
import pandas as pd

from lab import card as cards
from lab import trial
from lab.card import Recipe
from lab.errors import LabError
from lab.problem import Candidate, Problem
from lab.settings import Settings
from trainer import lineage, reference
from trainer.cluster import backend
from trainer.evaluate import Evaluated, evaluate
from trainer.export import RefusedError, check_bounds, export, predict
from trainer.folds import tested
from trainer.ingest import md5
from trainer.model_card import make_card
from trainer.promise import calibration, promises
from trainer.results import Paths, Result, write_candidate, write_json
from trainer.table import Table, table
from trainer.threshold import allowed_misses, check_recall, choose_threshold
from trainer.validate import read, validate

# The digits of the figures that DVC tracks. Further digits depend on the processor and on NumPy's and SciPy's versions.
DIGITS = 4


def dataset(problem: Problem, paths: Paths) -> pd.DataFrame:
    """The ingested dataset, validated and typed."""
    return validate(problem, read(paths.dataset))


def train(settings: Settings, problem: Problem, paths: Paths) -> None:
    """Train every candidate and write `models/`. The files that DVC tracks are the same on every machine."""
    data = table(problem, dataset(problem, paths))
    data_md5 = md5(paths.dataset)
    positives = int(data.y[tested(problem, data)].sum())
    if positives >= problem.evaluation.folds:  # with fewer positives, `evaluate` raises a clearer error about the folds
        check_recall(positives, problem.threshold.recall)
    with backend(settings.dask_scheduler_address):
        evaluated = evaluate(problem, problem.candidates, data)
    if paths.candidates.exists():
        shutil.rmtree(paths.candidates)
    summary = {}
    for name, candidate in problem.candidates.items():
        result, model = finish(problem, name, candidate, evaluated[name], data, data_md5)
        write_candidate(paths.candidates / name, result, model, data.y, evaluated[name].oof)
        summary[name] = {metric: round(promise.value, DIGITS) for metric, promise in result.promises.items()}
        print(f"{name}: {result.refusal or 'trained, ONNX agrees with scikit-learn on every row'}", flush=True)
    write_json(paths.metrics, summary)


def finish(
    problem: Problem, name: str, candidate: Candidate, outcome: Evaluated, data: Table, data_md5: str
) -> tuple[Result, bytes]:
    """Choose the threshold, export the model and make its card. The model is empty when it cannot be served."""
    mean = outcome.oof.mean(axis=0)
    known = ~np.isnan(mean)
    truth, mean = data.y[known], mean[known]
    misses = allowed_misses(int(truth.sum()), problem.threshold.recall)
    threshold = choose_threshold(truth, mean, misses)
    model, refusal = b"", ""
    try:
        exported = export(outcome.model, data.x, threshold, problem.name)
        check_bounds(exported, *np.array([(f.min, f.max) for f in problem.features.values()]).T)
        model = exported
    except RefusedError as reason:
        refusal = str(reason)
    served = predict(model, data.x) if model else outcome.model.predict_proba(data.x)[:, 1]
    result = Result(
        recipe=Recipe(
            candidate=name,
            estimator=candidate.estimator,
            settings=candidate.settings,
            grid=candidate.grid,
            best=outcome.best,
        ),
        fingerprint=lineage.fingerprint(problem, candidate, data_md5),
        data_md5=data_md5,
        code_sha256=lineage.code_sha256(),
        packages=lineage.packages(),
        features=list(problem.features),
        folds=outcome.folds,
        rows=len(data.y),
        prevalence=float(data.y.mean()),
        promises=promises(outcome.folds, outcome.repeats, len(truth), problem.evaluation.folds),
        calibration=calibration(truth, mean),
        threshold=threshold,
        refusal=refusal,
        model_sha256=hashlib.sha256(model).hexdigest(),
        self_test=reference.self_test(problem, data.x, served),
        feature_reference=reference.histograms(problem, data.x),
        score_reference=reference.score_histogram(outcome.oof[0]),
    )
    if fault := _refusal(problem, result, model):
        return msgspec.structs.replace(result, refusal=fault, model_sha256=hashlib.sha256(b"").hexdigest()), b""
    return result, model


def _refusal(problem: Problem, result: Result, model: bytes) -> str:
    """The reason why the API would not serve the model; empty when it would, or when there is no model."""
    if not model:
        return ""
    try:
        trial.verify(problem.name, cards.encode(make_card(problem, result, "", "", False)), model)
    except LabError as error:
        return f"the API would not serve it: {error.message}"
    return ""
