"""A quick look at a sample of the rows: a cross-validation for the floors, and each feature by itself for leaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from lab.problem import Problem
from lab.record import is_number
from trainer.draft.file import File
from trainer.draft.plan import Plan, missing_marks
from trainer.evaluate import build
from trainer.fit_warnings import recorded
from trainer.metrics import Floats
from trainer.validate import inputs_of

# The rows of each class in the sample.
ROWS = 5_000
FOLDS = 3
# A feature that alone reaches this ROC AUC is a leak, or nearly the target.
LEAK = 0.98


@dataclass(frozen=True)
class Quick:
    """ROC AUC of a logistic regression: the mean and the standard deviation over the folds; and the leaks."""

    mean: float
    sd: float
    leaks: dict[str, float]

    @property
    def floor(self) -> float:
        """A limit a little below the mean, which a model of the whole table should reach."""
        return max(math.floor((self.mean - max(0.03, 2 * self.sd)) * 100) / 100, 0.5)


def look(connection: duckdb.DuckDBPyConnection, file: File, plan: Plan, problem: Problem) -> Quick:
    """Cross-validate the first candidate on a sample, and look at each feature by itself."""
    frame = _sample(connection, file, plan)
    y = (frame["target"] == plan.target.positive).to_numpy().astype(np.int64)
    features = list(problem.features.items())
    x = np.column_stack([inputs_of(feature, frame[name]) for name, feature in features])
    name, candidate = next(iter(problem.candidates.items()))
    groups = frame["id"] if plan.repeated_id else None
    kind = StratifiedGroupKFold if plan.repeated_id else StratifiedKFold
    folds = kind(FOLDS, shuffle=True, random_state=0)
    with recorded():  # the training shows the warnings
        scores = cross_val_score(build(problem, name, candidate), x, y, scoring="roc_auc", cv=folds, groups=groups)
    leaks = {
        name: auc
        for place, (name, feature) in enumerate(features)
        if (auc := _alone(x[:, place], y, numeric=is_number(feature))) >= LEAK
    }
    return Quick(float(np.nanmean(scores)), float(np.nanstd(scores)), leaks)


def _sample(connection: duckdb.DuckDBPyConnection, file: File, plan: Plan) -> pd.DataFrame:
    """Up to ROWS rows of each class, as text with None for missing, in the order of the file."""
    target, marks = f"c{plan.target.column.place}", {"", *missing_marks(plan)}
    cells = [f"{target} AS target", *([f"c{plan.columns[plan.id].place} AS id"] if plan.id else [])]
    for name, feature in plan.features.items():
        cell = f"c{plan.columns[name].place}"
        decimal = file.decimal == "," and is_number(feature)
        cells.append(f"{f'replace({cell}, chr(44), chr(46))' if decimal else cell} AS {_quoted(name)}")
    rows = (
        f"SELECT rowid, row_number() OVER (PARTITION BY {target} = ? ORDER BY hash(rowid)) AS draw "
        "FROM source QUALIFY draw <= ?"
    )
    frame: pd.DataFrame = connection.execute(
        f"SELECT {', '.join(cells)} FROM source WHERE rowid IN (SELECT rowid FROM ({rows})) ORDER BY rowid",
        [plan.target.positive, ROWS],
    ).df()
    frame = frame.astype(object)
    return frame.mask(frame.isna() | frame.isin(marks), None)


def _alone(values: Floats, y: NDArray[np.integer[Any]], *, numeric: bool) -> float:
    """The ROC AUC that a feature reaches by itself, with its values as the score, or the share of each level."""
    missing = np.isnan(values)
    scores = [missing.astype(float)] if missing.any() else []
    if numeric:
        scores.append(np.where(missing, np.nanmedian(values), values))
    else:
        # The share of positives of each level comes from one half of the rows, and is tried on the other.
        half = np.arange(len(y)) % 2 == 0
        codes = np.where(missing, -1, values)
        shares = pd.Series(y[half]).groupby(codes[half]).mean()
        y, codes = y[~half], codes[~half]
        scores = [pd.Series(codes).map(shares).fillna(y.mean()).to_numpy()]
    if len(np.unique(y)) < 2:
        return 0.0
    return max(max(auc, 1 - auc) for auc in (float(roc_auc_score(y, score)) for score in scores))


def _quoted(name: str) -> str:
    return f'"{name}"'
