"""Metrics of a fold, the decision threshold, and a test that knows that folds overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from lab.card import Operating
from lab.problem import LOSSES

# The scikit-learn scorer for each metric a grid search may be tuned on.
SCORERS = {
    "roc_auc": "roc_auc",
    "average_precision": "average_precision",
    "recall": "recall",
    "precision": "precision",
    "f1": "f1",
    "accuracy": "accuracy",
    "brier": "neg_brier_score",
    "log_loss": "neg_log_loss",
}
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fold_metrics(truth: Ints, probability: Floats) -> dict[str, float]:
    """All metrics of one test fold. Those that need a label call a row positive from 0.5 on.

    `truth` is 0 or 1, `probability` that of the positive class; both have shape (rows,).
    """
    from sklearn import metrics as sk  # here, because `choose` does without it

    label = probability >= 0.5
    return {
        "roc_auc": float(sk.roc_auc_score(truth, probability)),
        "average_precision": float(sk.average_precision_score(truth, probability)),
        "recall": float(sk.recall_score(truth, label, zero_division=0)),
        "precision": float(sk.precision_score(truth, label, zero_division=0)),
        "f1": float(sk.f1_score(truth, label, zero_division=0)),
        "accuracy": float(sk.accuracy_score(truth, label)),
        "brier": float(sk.brier_score_loss(truth, probability)),
        "log_loss": float(sk.log_loss(truth, probability, labels=[0, 1])),
    }


def choose_threshold(truth: Ints, probability: Floats, recall: float) -> Operating:
    """The highest threshold that reaches `recall` on out-of-fold probabilities.

    Both arrays have shape (repeats, rows). The threshold lies halfway to the next lower probability, so that
    rounding a probability to float32 moves no row across it.
    """
    flat, positive = probability.ravel(), truth.ravel() == 1
    of_positives = np.sort(flat[positive])
    allowed_misses = math.floor((1 - recall) * len(of_positives) + 1e-9)
    lowest_hit = float(of_positives[allowed_misses])
    below = flat[flat < lowest_hit]
    threshold = (lowest_hit + (float(below.max()) if len(below) else 0.0)) / 2
    called = flat >= threshold
    return Operating(
        threshold=threshold,
        recall=float(called[positive].mean()),
        precision=float(positive[called].mean()),
        specificity=float(1 - called[~positive].mean()),
    )


@dataclass(frozen=True)
class Comparison:
    """A difference in favour of the first of two, and how likely one so large is by chance."""

    gain: float
    p_value: float

    def tells_apart(self, alpha: float) -> bool:
        return self.p_value < alpha


def corrected_t_test(first: Sequence[float], second: Sequence[float], folds: int) -> Comparison:
    """Two-sided corrected resampled t-test on the scores of the same folds.

    Each sequence has one score for each fold of each repeat. The variance is multiplied by 1/k + n_test/n_train
    in place of 1/k, because training sets overlap: C. Nadeau and Y. Bengio, "Inference for the
    Generalization Error", Machine Learning 52 (2003), in the form for repeated cross-validation of R. Bouckaert
    and E. Frank, PAKDD 2004.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    count, mean = len(differences), float(differences.mean())
    variance = float(differences.var(ddof=1))
    if variance == 0:
        return Comparison(mean, 1.0 if mean == 0 else 0.0)
    t = mean / math.sqrt(variance * (1 / count + 1 / (folds - 1)))
    return Comparison(mean, float(2 * stdtr(count - 1, -abs(t))))


def gain_of(metric: str, first: Sequence[float], second: Sequence[float], folds: int) -> Comparison:
    """As `corrected_t_test`, a gain being what is better in this metric."""
    return corrected_t_test(second, first, folds) if metric in LOSSES else corrected_t_test(first, second, folds)
