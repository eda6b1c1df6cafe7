"""The present champion: its package, its scores on the present folds, and the rows that it was trained on."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab import card as cards
from lab import http, s3, trial
from lab.errors import LabError
from lab.http import RefusedError, UnreachableError
from lab.problem import ROW_COLUMN, Candidate, Problem
from lab.record import inputs, is_number, levels, listed
from lab.registry import Registry, Version
from lab.settings import Settings
from trainer import hold
from trainer.cluster import backend
from trainer.evaluate import evaluate
from trainer.folds import tested
from trainer.gate import Champion, same_recipe
from trainer.metrics import Floats
from trainer.promise import promises
from trainer.recipe import check_estimator
from trainer.results import OOF_FILE, Paths, Result, parse_oof, read_oof
from trainer.table import table

# Size limits, in bytes, of the dataset and of the out-of-fold probabilities of the champion's training.
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Package:
    """A registered version whose package the API would serve."""

    version: Version
    card: cards.Card
    model: bytes


def load(registry: Registry, version: Version) -> Package | None:
    """The package of a version if the API would serve it, else None.

    Raises LabError when the registry does not answer.
    """
    try:
        text, model = registry.download(version)
        return Package(version, trial.verify(registry.model, text, model), model)
    except UnreachableError:
        raise
    except RefusedError as error:
        if error.status != 404:
            raise
        return None
    except LabError as error:
        print(f"note: version {version.number} is not sound: {error.message}")
        return None


def on_present_data(
    settings: Settings, problem: Problem, package: Package, results: dict[str, Result], frame: pd.DataFrame
) -> Champion:
    """The champion on the present folds. Its scores are those of the candidate with its recipe, else evaluated now.

    If the recipe can no longer be built or fitted, a candidate can still become champion; `fault` has the reason.
    """
    card, recipe = package.card, package.card.recipe
    number = f"version {package.version.number}, the champion,"
    if same := next((r for r in results.values() if same_recipe(r.recipe, recipe)), None):
        return Champion(recipe, card.lineage.fingerprint, card.lineage.data_md5, same.folds, same.promises)
    try:
        check_estimator(recipe.estimator, recipe.settings, recipe.grid)
        candidate = Candidate(estimator=recipe.estimator, settings=recipe.settings, grid=recipe.grid)
        data = table(problem, frame)
        with backend(settings.dask_scheduler_address):
            scores = evaluate(problem, {recipe.candidate: candidate}, data)[recipe.candidate]
    except LabError as error:
        fault = f"{number} cannot be compared: {error.message}"
        print(f"note: {fault}")
        return Champion(recipe, card.lineage.fingerprint, card.lineage.data_md5, {}, {}, fault)
    rows = int(tested(problem, data).sum())
    promised = promises(scores.folds, scores.repeats, rows, problem.evaluation.folds)
    return Champion(recipe, card.lineage.fingerprint, card.lineage.data_md5, scores.folds, promised)


def holds(
    settings: Settings,
    problem: Problem,
    paths: Paths,
    registry: Registry,
    package: Package,
    result: Result,
    frame: pd.DataFrame,
) -> list[str]:
    """The reasons to hold a candidate that was trained on other data than the champion (see `trainer.hold`)."""
    card = package.card
    names = [feature.name for feature in card.features]
    if absent := sorted(set(names) - set(frame.columns)):
        return [
            f"the present data lack {', '.join(absent)}, a feature of the champion, so that the two cannot be compared"
        ]
    column = str(card.params.get("id") or ROW_COLUMN)
    if column != (problem.id or ROW_COLUMN):
        return [f"the rows are now identified by another column than {column}, so the data cannot be compared"]
    try:
        before = _scored(settings, registry, package, column)
    except LabError as error:
        return [f"the data of the champion's training are gone, so that the two cannot be compared: {error.message}"]
    try:
        x = _inputs(card, problem, frame)
    except KeyError as error:
        return [f"the present data have values that the champion does not know: {error.args[0]}"]
    folder = paths.candidates / result.recipe.candidate
    present = hold.Rows(x, frame[problem.target.column].to_numpy(dtype=np.int64))
    candidate = hold.Scored(_ids(frame[column]), read_oof(folder)[1].mean(axis=0), result.threshold)
    return hold.reasons(card, package.model, before, present, candidate)


def _inputs(card: cards.Card, problem: Problem, frame: pd.DataFrame) -> Floats:
    """The typed frame as the champion's input, shape (rows, features), because its levels may be others.

    Raises KeyError, with a text, for a value that the champion's card does not have.
    """
    columns = []
    for feature in card.features:
        numbers, present = frame[feature.name], problem.features[feature.name]
        if not is_number(feature) and not is_number(present):
            known = inputs(feature)
            lacking = [level for i, level in enumerate(levels(present)) if level not in known and (numbers == i).any()]
            if lacking:
                raise KeyError(f"{feature.name} is {listed(lacking)} in some rows")
            numbers = numbers.map({float(i): known.get(level) for i, level in enumerate(levels(present))})
        elif is_number(feature) != is_number(present):
            raise KeyError(f"{feature.name} is of type {present.type} now, and was of type {feature.type}")
        columns.append(numbers.to_numpy(dtype=np.float64))
    return np.column_stack(columns)


def _scored(settings: Settings, registry: Registry, package: Package, column: str) -> hold.Scored:
    """The rows of the champion's training with their out-of-fold probabilities, from S3 and from its run."""
    md5 = package.card.lineage.data_md5
    text = s3.get(settings, f"dvc/files/md5/{md5[:2]}/{md5[2:]}", MOST_BYTES)
    place = f"{registry.run_artifacts(package.version.run_id)}/{OOF_FILE}"
    probability = parse_oof(http.request("GET", registry.artifact_url(place), most=MOST_BYTES))[1].mean(axis=0)
    try:
        ids = _ids(pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False, usecols=[column])[column])
    except ValueError as error:
        raise LabError(
            f"the dataset {md5} cannot be read: {error}", "pull the dataset with DVC and look at it"
        ) from error
    if len(ids) != len(probability):
        raise LabError(f"{OOF_FILE} has {len(probability)} rows, the dataset {len(ids)}", "see the run in MLflow")
    return hold.Scored(ids, probability, package.card.threshold)


def _ids(column: pd.Series) -> list[str]:
    return [str(value) for value in column]
