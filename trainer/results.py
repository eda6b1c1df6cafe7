"""The paths of the pipeline's files, and the form of the results that `promote` reads."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lab.card import MODEL_FILE, Calibration, Histogram, Promise, Recipe, SelfTest
from lab.errors import LabError
from trainer.metrics import Floats, Ints

RESULT_FILE = "result.json"
OOF_FILE = "out_of_fold.csv"


@dataclass(frozen=True)
class Paths:
    """The files of one problem, beside its params.yaml."""

    folder: Path

    @property
    def dataset(self) -> Path:
        return self.folder / "data" / "dataset.csv"

    @property
    def validation(self) -> Path:
        return self.folder / "data" / "validation.json"

    @property
    def candidates(self) -> Path:
        return self.folder / "models" / "candidates"

    @property
    def metrics(self) -> Path:
        return self.folder / "models" / "metrics.json"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A trained candidate. `refusal` has the reason when it cannot be served; there is no model then.

    `features` is the order of the model's inputs, which may differ from the present order in params.yaml.
    """

    recipe: Recipe
    fingerprint: str
    data_md5: str
    code_sha256: str
    packages: dict[str, str]
    features: list[str]
    folds: dict[str, list[float]]
    rows: int
    prevalence: float
    promises: dict[str, Promise]
    calibration: Calibration | None
    threshold: float
    refusal: str
    model_sha256: str
    self_test: SelfTest
    feature_reference: dict[str, Histogram]
    score_reference: Histogram

    def mean(self, metric: str) -> float:
        return float(np.mean(self.folds[metric]))

    def sd(self, metric: str) -> float:
        return float(np.std(self.folds[metric], ddof=1))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_candidate(folder: Path, result: Result, model: bytes, truth: Ints, oof: Floats) -> None:
    """Write a candidate's folder; `truth` has shape (rows,), `oof` (repeats, rows)."""
    if folder.exists():
        shutil.rmtree(folder)
    write_json(folder / RESULT_FILE, result)
    if model:
        (folder / MODEL_FILE).write_bytes(model)
    header = ",".join(["truth", *(f"repeat_{i + 1}" for i in range(len(oof)))])
    rows = np.column_stack([truth, oof.T])
    np.savetxt(folder / OOF_FILE, rows, delimiter=",", header=header, comments="", fmt=["%d"] + ["%.9f"] * len(oof))


def read_results(paths: Paths) -> dict[str, Result]:
    """The trained candidates by name, in the order of their names."""
    files = sorted(paths.candidates.glob(f"*/{RESULT_FILE}"))
    if not files:
        raise LabError(f"there are no trained models in {paths.candidates}", "run `make train`")
    try:
        return {file.parent.name: msgspec.json.decode(file.read_bytes(), type=Result) for file in files}
    except msgspec.DecodeError as error:
        raise LabError(
            f"a {RESULT_FILE} in {paths.candidates} was written by other code: {error}", "run `make train`"
        ) from error


def read_oof(folder: Path) -> tuple[Ints, Floats]:
    """The truth, shape (rows,), and the out-of-fold probabilities, shape (repeats, rows), of a candidate's folder."""
    return parse_oof((folder / OOF_FILE).read_bytes())


def parse_oof(text: bytes) -> tuple[Ints, Floats]:
    """The same as `read_oof`, from the bytes of the file; raise LabError when they do not have that form."""
    try:
        rows = np.loadtxt(io.BytesIO(text), delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise LabError(f"{OOF_FILE} cannot be read: {error}", "run `make train`") from error
    return rows[:, 0].astype(np.int64), rows[:, 1:].T
