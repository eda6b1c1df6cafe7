"""`python -m tests.models` writes the tables of docs/models.md: which classifiers are converted to ONNX and served.

`tests/unit/test_models.py` compares the tables with what happens.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from lab import package
from lab.errors import LabError
from lab.operators import inspect
from lab.settings import ROOT
from trainer.estimators import make_estimator, pipeline
from trainer.export import RefusedError, export, predict

DOCUMENT = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- made by python -m tests.models -->", "<!-- end -->"
HEAD = ["| estimator | converts | largest difference | µs a row |", "|---|---|---|---|"]
TIMED = 300
LIGHT, XGB = "lightgbm.LGBMClassifier", "xgboost.XGBClassifier"
HIST = "sklearn.ensemble.HistGradientBoostingClassifier"
CALIBRATED = "sklearn.calibration.CalibratedClassifierCV"


def declaration(path: str, **settings: Any) -> dict[str, Any]:
    return {"estimator": path, "settings": settings}


LOGISTIC, TREE = (
    declaration("sklearn.linear_model.LogisticRegression"),
    declaration("sklearn.tree.DecisionTreeClassifier"),
)
BOOSTED = {"light": declaration(LIGHT), "xgb": declaration(XGB), "hist": declaration(HIST)}
PAIR = {"logistic": LOGISTIC, "tree": TREE}
# The settings of a class that cannot be made, or gives no probabilities, with its default settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "FixedThresholdClassifier": {"estimator": LOGISTIC},
    "NuSVC": {"probability": True},
    "OneVsRestClassifier": {"estimator": LOGISTIC},
    "SGDClassifier": {"loss": "log_loss"},
    "SVC": {"probability": True},
    "SelfTrainingClassifier": {"estimator": LOGISTIC},
    "StackingClassifier": {"estimators": PAIR},
    "TunedThresholdClassifierCV": {"estimator": LOGISTIC},
    "VotingClassifier": {"voting": "soft", "estimators": PAIR},
}
# Further settings, and estimators in others: the text in the table, the import path, the settings.
FURTHER: list[tuple[str, str, dict[str, Any]]] = [
    ("AdaBoostClassifier of LightGBM", "sklearn.ensemble.AdaBoostClassifier", {"estimator": declaration(LIGHT)}),
    ("BaggingClassifier of XGBoost", "sklearn.ensemble.BaggingClassifier", {"estimator": declaration(XGB)}),
    ("CalibratedClassifierCV of HistGradientBoosting", CALIBRATED, {"estimator": declaration(HIST)}),
    ("CalibratedClassifierCV of LightGBM", CALIBRATED, {"estimator": declaration(LIGHT)}),
    ("CalibratedClassifierCV of XGBoost", CALIBRATED, {"estimator": declaration(XGB)}),
    ("CalibratedClassifierCV, method: isotonic", CALIBRATED, {"method": "isotonic", "estimator": LOGISTIC}),
    ("CalibratedClassifierCV, method: temperature", CALIBRATED, {"method": "temperature", "estimator": LOGISTIC}),
    ("KNeighborsClassifier, weights: distance", "sklearn.neighbors.KNeighborsClassifier", {"weights": "distance"}),
    ("LGBMClassifier, boosting_type: dart", LIGHT, {"boosting_type": "dart"}),
    (
        "LGBMClassifier, boosting_type: rf",
        LIGHT,
        {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1},
    ),
    ("LGBMClassifier, linear_tree: true", LIGHT, {"linear_tree": True}),
    (
        "StackingClassifier of boosted trees and logistic regression",
        "sklearn.ensemble.StackingClassifier",
        {"estimators": {"logistic": LOGISTIC, **BOOSTED}},
    ),
    (
        "StackingClassifier, final_estimator: LightGBM",
        "sklearn.ensemble.StackingClassifier",
        {"estimators": PAIR, "final_estimator": declaration(LIGHT, n_estimators=20)},
    ),
    (
        "VotingClassifier of boosted trees and logistic regression",
        "sklearn.ensemble.VotingClassifier",
        {"voting": "soft", "weights": [1, 2, 2, 2], "estimators": {"logistic": LOGISTIC, **BOOSTED}},
    ),
    ("XGBClassifier, booster: gblinear", XGB, {"booster": "gblinear"}),
    ("XGBClassifier, num_parallel_tree: 3", XGB, {"n_estimators": 20, "num_parallel_tree": 3}),
]


@dataclass(frozen=True)
class Row:
    """What happened to an estimator. `verdict` is yes, no, or not fitted; `reason` says why not."""

    name: str
    verdict: str
    reason: str = ""
    difference: float = float("nan")
    microseconds: float = float("nan")

    @property
    def line(self) -> str:
        if self.verdict != "yes":
            return f"| {self.name} | {self.verdict} | | |"
        return f"| {self.name} | yes | {self.difference:.0e} | {self.microseconds:.0f} |"


def table(rows: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, tenths and thousandths, of which some are missing, as float32 values, and their classes."""
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [rng.integers(1, 11, rows), rng.integers(0, 40, rows) / 10, rng.normal(size=(rows, 2)).round(3)]
    )
    y = (x[:, 0] / 4 + x[:, 1] / 2 + x[:, 2] + rng.normal(size=rows) > 2.4).astype(np.int64)
    x[rng.random(x.shape) < 0.04] = np.nan
    return x.astype(np.float32).astype(np.float64), y


def classifiers() -> list[tuple[str, str, dict[str, Any]]]:
    """Every classifier that gives probabilities: its name, import path and settings."""
    found = [(LIGHT.rpartition(".")[2], LIGHT, {}), (XGB.rpartition(".")[2], XGB, {})]
    for name, kind in all_estimators(type_filter="classifier"):
        path, settings = f"{kind.__module__.partition('._')[0]}.{name}", SETTINGS.get(name, {})
        try:
            make_estimator(path, settings, 0)
        except LabError:  # it gives no probabilities, or it is for several targets
            continue
        found.append((name, path, settings))
    return sorted(found, key=lambda each: each[0].lower())


def tried(name: str, path: str, settings: dict[str, Any]) -> Row:
    """Fit and convert an estimator, and check it as the training and the API do."""
    x, y = table()
    model = pipeline(make_estimator(path, settings, 0))
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        try:
            expected = model.fit(x, y).predict_proba(x)[:, 1]
        except ValueError as error:
            return Row(name, "not fitted", str(error))
        try:
            onnx = export(model, x, 0.5, "model")
            inspect(onnx)
        except (RefusedError, LabError) as error:
            return Row(name, "no", str(error))
    return Row(name, "yes", "", float(np.abs(predict(onnx, x) - expected).max()), _microseconds(onnx, x))


def _microseconds(onnx: bytes, x: np.ndarray) -> float:
    """The median time to score one row."""
    session, rows, times = package.open_session(onnx), x.astype(np.float32), []
    for i in range(TIMED):
        row = rows[i % len(rows)][None]
        start = time.perf_counter()
        package.score(session, row)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def written(place: int) -> dict[str, str]:
    """The verdict on each estimator in a table of the document."""
    lines = DOCUMENT.read_text().split(BEGIN)[place + 1].partition(END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[len(HEAD) :]]
    return {row[0]: row[1] for row in rows}


def main() -> None:
    before, *rest = DOCUMENT.read_text().split(BEGIN)
    parts = [before]
    for some, part in zip((classifiers(), FURTHER), rest, strict=True):
        rows = [tried(*each) for each in some]
        lines = "\n".join([*HEAD, *(row.line for row in rows)])
        parts.append(f"{BEGIN}\n\n{lines}\n\n{END}{part.partition(END)[2]}")
        for row in rows:
            print(row.line, row.reason.partition(". These")[0])
    DOCUMENT.write_text("".join(parts))


if __name__ == "__main__":
    sys.exit(main())
