"""A test whether one candidate is better than another, corrected for the overlap of the training sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from lab.problem import LOSSES

# With fewer pairs of folds, the estimate of the variance of their differences is too poor for a verdict.
LEAST_PAIRS = 10
# Differences whose standard deviation is smaller are equal but for rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Lead:
    """The lead of the first of two candidates, and the one-sided p-value of so large a lead."""

    gain: float
    p_value: float
    pairs: int

    def is_shown(self, alpha: float, delta: float) -> bool:
        """Whether the folds suffice, the lead is at least `delta` and the p-value is below `alpha`."""
        return self.pairs >= LEAST_PAIRS and self.gain >= delta and self.p_value < alpha


def corrected_t_test(first: Sequence[float], second: Sequence[float], folds: int) -> Lead:
    """One-sided corrected resampled t-test on the scores of the same folds: is the first greater?

    Each sequence has one score for each fold of each repeat. The variance is multiplied by 1/k + n_test/n_train
    in place of 1/k, because training sets overlap: C. Nadeau and Y. Bengio, "Inference for the
    Generalization Error", Machine Learning 52 (2003), in the form for repeated cross-validation of R. Bouckaert
    and E. Frank, PAKDD 2004. If all differences are equal, there is no variance to test with, and p is 1.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    count, mean = len(differences), float(differences.mean())
    if count < 2 or float(differences.std(ddof=1)) < _ROUNDING:
        return Lead(mean, 1.0, count)
    t = mean / _standard_error(differences.tolist(), folds)
    return Lead(mean, float(stdtr(count - 1, -t)), count)


def lead_of(metric: str, first: Sequence[float], second: Sequence[float], folds: int) -> Lead:
    """`corrected_t_test` with the sign of the metric: the gain is positive when the first candidate is better."""
    return corrected_t_test(second, first, folds) if metric in LOSSES else corrected_t_test(first, second, folds)


def interval(scores: Sequence[float], folds: int) -> tuple[float, float]:
    """The 95 % interval of a mean over the folds of all repeats, with the variance of `corrected_t_test`."""
    mean = float(np.mean(scores))
    half = float(stdtrit(len(scores) - 1, 0.975)) * _standard_error(scores, folds)
    return mean - half, mean + half


def _standard_error(scores: Sequence[float], folds: int) -> float:
    return float(np.std(scores, ddof=1)) * math.sqrt(1 / len(scores) + 1 / (folds - 1))
