"""Prepare the rows for the estimator: fill in missing numbers, scale them, and give each level a column of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from lab.record import Feature, is_number
from trainer.metrics import Floats, Ints

# A level with fewer training rows has no column of its own.
LEAST_ROWS = 10
# The code of a missing category, for the model only.
MISSING = -1.0


class Imputer(SimpleImputer):  # type: ignore[misc] # mypy does not read scikit-learn
    """Puts the median for a missing value, rounded to float32 as all values are that a served model gets.

    A tree may split at the median itself, and ONNX Runtime could take the other branch for the rounded value.
    """

    def __init__(self) -> None:
        super().__init__(strategy="median")

    def fit(self, X: Floats, y: Ints | None = None) -> Self:  # noqa: N803 - scikit-learn's name
        medians: Floats = super().fit(X, y).statistics_
        self.statistics_: Floats = medians.astype(np.float32).astype(np.float64)
        return self


class LevelEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One-hot encoding of levels that are given by their index: a column for each level that is frequent enough.

    A level with fewer than LEAST_ROWS rows, or with none, gets no column: all its columns are 0, and the model treats
    all such levels of a feature as the same. The most frequent level of each feature always has a column.
    scikit-learn's OneHotEncoder has this rule too (min_frequency), but skl2onnx cannot convert it then, and it needs
    five ONNX nodes for each feature where this class needs three for all.
    """

    def fit(self, x: Floats, _: Any = None) -> Self:
        """Choose the columns; `x` has shape (rows, features). `places_` and `levels_` have an entry for each column."""
        places, levels = [], []
        for place in range(x.shape[1]):
            values, counts = np.unique(x[:, place], return_counts=True)
            least = min(LEAST_ROWS, counts.max())
            frequent = values[counts >= least]
            places += [place] * len(frequent)
            levels += frequent.tolist()
        self.places_, self.levels_ = np.array(places), np.array(levels)
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x: Floats) -> Floats:
        """The columns, 0 or 1, of shape (rows, columns)."""
        columns: Floats = (x[:, self.places_] == self.levels_).astype(np.float64)
        return columns


def preparation(features: Sequence[Feature], *, scale: bool) -> list[tuple[str, Any]]:
    """The steps of a pipeline before its estimator. `scale`: numbers are scaled to mean 0 and variance 1.

    Without `features`, every column is a number.
    """
    numbers = [place for place, feature in enumerate(features) if is_number(feature)]
    levels = [place for place, feature in enumerate(features) if not is_number(feature)]
    of_numbers = [("impute", Imputer()), *([("scale", StandardScaler())] if scale else [])]
    if not levels:
        return of_numbers
    # A category may have no value in the training rows of a fold.
    missing = SimpleImputer(strategy="constant", fill_value=MISSING, keep_empty_features=True)
    of_levels = [("missing", missing), ("encode", LevelEncoder())]
    parts = [("numbers", Pipeline(of_numbers), numbers), ("levels", Pipeline(of_levels), levels)]
    return [("prepare", ColumnTransformer([part for part in parts if part[2]]))]
