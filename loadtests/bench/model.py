"""Train the models with the lab's pipeline, and write them in the form of each server.

No other module outside of the trainer imports the trainer. It is needed here, because all servers serve the same model.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np

from lab import card as cards
from lab import problem
from lab.errors import LabError
from lab.problem import Candidate, Problem
from lab.record import Value, from_input
from lab.settings import ROOT, Settings
from trainer import lineage
from trainer.evaluate import build
from trainer.model_card import make_card
from trainer.results import Paths, Result, read_results
from trainer.table import table
from trainer.train import dataset

LINEAR, NEIGHBOURS = "logistic-regression", "k-nearest-neighbours"
# Candidates of the benchmark that the problem may not declare.
CANDIDATES = {
    LINEAR: Candidate("sklearn.linear_model.LogisticRegression", {"max_iter": 1000}, {"C": [0.01, 0.1, 1.0, 10.0]}),
    NEIGHBOURS: Candidate("sklearn.neighbors.KNeighborsClassifier", {}, {"n_neighbors": [3, 5]}),
}
TRAIN_SECONDS = 1_800


@dataclass(frozen=True)
class Models:
    """The place of the models. `rows` has shape (rows, features), NaN for missing; `expected[candidate]`, of shape
    (rows,), has scikit-learn's probabilities for these rows.
    """

    folder: Path
    stated: Problem
    rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    expected: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]

    @property
    def name(self) -> str:
        return self.stated.name

    @property
    def features(self) -> list[str]:
        return list(self.stated.features)

    def plain(self) -> list[list[float | None]]:
        """The rows with None for missing."""
        return [[None if np.isnan(value) else value for value in row] for row in self.rows.tolist()]

    def records(self) -> list[dict[str, Value | None]]:
        """The rows as the API's clients send them."""
        return [
            {name: from_input(f, v) for (name, f), v in zip(self.stated.features.items(), row, strict=True)}
            for row in self.plain()
        ]

    @property
    def pipeline(self) -> Path:
        return self.folder / "pipeline.joblib"

    @property
    def mlflow(self) -> Path:
        return self.folder / "mlflow"

    def keep(self, candidate: str) -> Path:
        """The API's KEEP_DIR that holds this candidate."""
        return self.folder / "keep" / candidate


def make(settings: Settings, folder: Path) -> Models:
    """Train both candidates in `folder` and write every form of them. Takes about as long as `dvc repro`."""
    definition = _train(settings, folder)
    paths = Paths(folder)
    results, frame = read_results(paths), dataset(definition, paths)
    data, names = table(definition, frame), list(definition.features)
    expected = {}
    for candidate, result in results.items():
        if result.refusal:
            raise LabError(f"{candidate} cannot be served: {result.refusal}", "take another problem: PARAMS=…")
        pipeline = build(definition, candidate, definition.candidates[candidate])
        pipeline.set_params(**{f"model__{key}": value for key, value in result.recipe.best.items()})
        pipeline.fit(data.x, data.y)
        expected[candidate] = pipeline.predict_proba(data.x)[:, 1]
        _write_kept(definition, result, paths, folder / "keep" / candidate)
        if candidate == LINEAR:
            joblib.dump((pipeline, names), folder / "pipeline.joblib")
            # MLflow passes a DataFrame, and scikit-learn would warn about its column names at every request.
            _write_mlflow(pipeline.fit(frame[names].astype(float), data.y), frame[names].astype(float), folder)
    return Models(folder, definition, data.x, expected)


def _train(settings: Settings, folder: Path) -> Problem:
    """Run the pipeline's stages on a problem with the two candidates, in a folder of its own."""
    definition = problem.load(settings.params_path)
    candidates = {name: definition.candidates.get(name, default) for name, default in CANDIDATES.items()}
    definition = msgspec.structs.replace(definition, candidates=candidates)
    params = folder / "params.yaml"
    params.write_bytes(msgspec.yaml.encode(definition))
    for stage in ("ingest", "validate", "train"):
        command = [sys.executable, "-m", "trainer", stage, "--params", str(params)]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TRAIN_SECONDS, check=False)
        if process.returncode:
            raise LabError(
                f"the stage {stage} failed: {process.stderr.strip()[-1000:]}", "see whether `make train` works"
            )
    return definition


def _write_kept(definition: Problem, result: Result, paths: Paths, keep: Path) -> None:
    """Write the package as the API keeps it (api.follower.StoredModel), so that the API starts without a registry."""
    card = make_card(definition, result, "bench-serving", *lineage.git_state())
    model = (paths.candidates / result.recipe.candidate / cards.MODEL_FILE).read_bytes()
    cards.check_hash(card, model)
    keep.mkdir(parents=True)
    content = {"version": 1, "card": cards.encode(card), "model": model}
    (keep / f"{definition.name}.msgpack").write_bytes(msgspec.msgpack.encode(content))


def _write_mlflow(pipeline: Any, frame: Any, folder: Path) -> None:
    import mlflow
    from mlflow.models import infer_signature

    # MLflow warns about pickle, which is the default format of its own server.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    mlflow.sklearn.save_model(
        pipeline,
        folder / "mlflow",
        signature=infer_signature(frame, pipeline.predict_proba(frame)),
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
        # Without these requirements MLflow would start the model once to guess them.
        pip_requirements=[f"scikit-learn=={lineage.packages()['scikit-learn']}"],
    )
