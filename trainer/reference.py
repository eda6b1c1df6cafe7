"""The reference distributions and the self-test rows of a card."""

from __future__ import annotations

import numpy as np

from lab.card import Histogram, SelfTest
from lab.problem import Feature, Problem
from lab.record import from_input, is_number, levels
from trainer.metrics import Floats

BINS = 10
SELF_TEST_ROWS = 16


def histograms(problem: Problem, x: Floats) -> dict[str, Histogram]:
    """The distribution of every feature; `x` has shape (rows, features)."""
    return {
        name: _histogram(x[:, i], _edges(feature, x[:, i]))
        if is_number(feature)
        else _level_histogram(feature, x[:, i])
        for i, (name, feature) in enumerate(problem.features.items())
    }


def score_histogram(probability: Floats) -> Histogram:
    """The distribution of the out-of-fold probabilities of one repeat, shape (rows,), as the model would serve them."""
    served = probability.astype(np.float32).astype(np.float64)
    return _histogram(served, _quantile_edges(served, 0.0, 1.0))


def self_test(problem: Problem, x: Floats, probability: Floats) -> SelfTest:
    """The self-test rows, spread evenly over the scores, incomplete rows first, with the expected probabilities."""
    features = list(problem.features.values())
    quantiles = np.argsort(probability, kind="stable")[np.linspace(0, len(x) - 1, SELF_TEST_ROWS).astype(int)]
    incomplete = np.flatnonzero(np.isnan(x).any(axis=1))[: SELF_TEST_ROWS // 4]
    rows = list(dict.fromkeys([*incomplete.tolist(), *quantiles.tolist()]))
    return SelfTest(
        # The shortest decimal with this float32, as it stands in the table: 8.1 and not 8.100000381.
        rows=[
            [
                from_input(f, None if np.isnan(v) else float(str(np.float32(v))))
                for f, v in zip(features, x[row], strict=True)
            ]
            for row in rows
        ],
        probabilities=[float(probability[row]) for row in rows],
    )


def _edges(feature: Feature, values: Floats) -> Floats:
    """One bin for each value of a feature with few whole numbers, else bins with equal shares of the rows."""
    if feature.type == "integer" and feature.max - feature.min < 2 * BINS:
        return np.arange(feature.min, feature.max + 2) - 0.5
    return _quantile_edges(values, feature.min, feature.max)


def _quantile_edges(values: Floats, low: float, high: float) -> Floats:
    """Edges of up to ten bins with about equal shares of `values`, of shape (rows,).

    Each inner edge lies half-way between two values that occur, so that rounding moves no value into another bin. A
    value that occurs often, such as a probability of 0, has a bin of its own.
    """
    distinct = np.unique(values[~np.isnan(values)])
    middles = (distinct[:-1] + distinct[1:]) / 2
    if not len(middles):
        return np.array([low, high])
    targets = np.nanquantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    inner = middles[np.clip(np.searchsorted(distinct, targets, side="right") - 1, 0, len(middles) - 1)]
    return np.unique(np.concatenate([[low], inner, [high]]))


def _level_histogram(feature: Feature, values: Floats) -> Histogram:
    """The share of each level; `values` are the model's inputs, of shape (rows,)."""
    names = list(levels(feature))
    counts = np.bincount(values[~np.isnan(values)].astype(int), minlength=len(names))
    return Histogram(
        levels=names,
        shares=(counts / len(values)).tolist(),
        missing=float(np.isnan(values).mean()),
        counts=counts.tolist(),
    )


def _histogram(values: Floats, edges: Floats) -> Histogram:
    counts, _ = np.histogram(values[~np.isnan(values)], bins=edges)
    return Histogram(
        edges=edges.tolist(),
        shares=(counts / len(values)).tolist(),
        missing=float(np.isnan(values).mean()),
        counts=counts.tolist(),
    )
