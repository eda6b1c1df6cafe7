"""Metrics of one test fold, and the counts at a decision threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The metrics that depend on a threshold.
RATES = ("recall", "specificity", "precision", "f1", "accuracy")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """The confusion matrix of some rows at a threshold, in rows."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def rates(self) -> dict[str, float]:
        """The metrics that depend on the threshold; 0 where the denominator is 0."""
        tp, fp, tn, fn = self.true_positive, self.false_positive, self.true_negative, self.false_negative
        return {
            "recall": _share(tp, tp + fn),
            "specificity": _share(tn, tn + fp),
            "precision": _share(tp, tp + fp),
            "f1": _share(2 * tp, 2 * tp + fp + fn),
            "accuracy": _share(tp + tn, tp + tn + fp + fn),
        }


def counts_at(truth: Ints, probability: Floats, threshold: float) -> Counts:
    """Count rows by class and prediction: positive from `threshold` on. Both arrays have shape (rows,)."""
    called, positive = probability >= threshold, truth == 1
    return Counts(
        true_positive=int((called & positive).sum()),
        false_positive=int((called & ~positive).sum()),
        true_negative=int((~called & ~positive).sum()),
        false_negative=int((~called & positive).sum()),
    )


def summed(counts: Sequence[Counts]) -> Counts:
    return Counts(
        true_positive=sum(each.true_positive for each in counts),
        false_positive=sum(each.false_positive for each in counts),
        true_negative=sum(each.true_negative for each in counts),
        false_negative=sum(each.false_negative for each in counts),
    )


def score_metrics(truth: Ints, probability: Floats) -> dict[str, float]:
    """The metrics of one test fold that depend on no threshold.

    `truth` is 0 or 1, `probability` that of the positive class; both have shape (rows,).
    """
    from sklearn import metrics as sk  # imported here, because the gate does not need it

    return {
        "roc_auc": float(sk.roc_auc_score(truth, probability)),
        "average_precision": float(sk.average_precision_score(truth, probability)),
        "brier": float(sk.brier_score_loss(truth, probability)),
        "log_loss": float(sk.log_loss(truth, probability, labels=[0, 1])),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
