"""The promises of a model: the value of each metric that is expected on further rows, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv
from sklearn.linear_model import LogisticRegression

from lab.card import Calibration, Promise
from trainer.metrics import RATES, Counts, Floats, Ints, summed
from trainer.significance import interval


def promises(folds: dict[str, list[float]], repeats: Sequence[Counts], rows: int, count: int) -> dict[str, Promise]:
    """The promise for each metric of `folds`, which has a score for each outer fold of all repeats.

    `repeats` has the counts of each repeat at thresholds that were chosen without the rows that were counted; `rows` is
    the number of distinct rows, `count` the number of folds of a repeat.
    """
    total = summed(repeats).rates
    return {
        metric: _by_counts(metric, repeats, total) if metric in RATES else _by_folds(metric, scores, rows, count)
        for metric, scores in folds.items()
    }


def clopper_pearson(failures: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of the share of failures of `rows` rows; C. Clopper and E. Pearson, Biometrika 26 (1934)."""
    tail = (1 - level) / 2
    low = float(betaincinv(failures, rows - failures + 1, tail)) if failures else 0.0
    high = float(betaincinv(failures + 1, rows - failures, 1 - tail)) if failures < rows else 1.0
    return low, high


def calibration(truth: Ints, probability: Floats) -> Calibration | None:
    """Logistic regression of `truth` on the logit of `probability`, both of shape (rows,).

    Probabilities are first limited to 1/(2n) from 0 and 1, n being the rows. Returns None when the classes are
    separated, because the slope then has no limit. D. Cox, "Two further applications of a model for binary
    regression", Biometrika 45 (1958).
    """
    least = 1 / (2 * len(truth))
    limited = np.clip(probability, least, 1 - least)
    logit = np.log(limited / (1 - limited))
    if logit[truth == 1].min() > logit[truth == 0].max():
        return None
    regression = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(logit[:, None], truth)
    return Calibration(slope=float(regression.coef_[0, 0]), intercept=float(regression.intercept_[0]))


def _by_folds(metric: str, scores: list[float], rows: int, count: int) -> Promise:
    low, high = interval(scores, count)
    most = math.inf if metric == "log_loss" else 1.0
    return Promise(value=float(np.mean(scores)), low=max(low, 0.0), high=min(high, most), method="folds", rows=rows)


def _by_counts(metric: str, repeats: Sequence[Counts], total: dict[str, float]) -> Promise:
    pairs = [_failures_and_rows(metric, counts) for counts in repeats]
    # Recall, specificity and accuracy have the same rows in every repeat. The rows of precision and F1 depend on
    # the predictions, so their number may differ.
    failures, rows = math.ceil(np.median([f for f, _ in pairs])), math.floor(np.median([n for _, n in pairs]))
    failures = min(failures, rows)
    low, high = clopper_pearson(failures, rows) if rows else (0.0, 1.0)
    share = 1 - failures / rows if rows else 0.0
    if metric == "f1":
        # J = TP / (TP + FP + FN) is the share of true positives among the rows that are positive or predicted positive.
        # F1 = 2J / (1 + J).
        low, high, value = _f1(1 - high), _f1(1 - low), total["f1"]
        return Promise(
            value=value, low=min(low, value), high=max(high, value), method="counts", rows=rows, failures=failures
        )
    return Promise(value=share, low=1 - high, high=1 - low, method="counts", rows=rows, failures=failures)


def _failures_and_rows(metric: str, counts: Counts) -> tuple[int, int]:
    tp, fp = counts.true_positive, counts.false_positive
    tn, fn = counts.true_negative, counts.false_negative
    return {
        "recall": (fn, tp + fn),
        "specificity": (fp, tn + fp),
        "precision": (fp, tp + fp),
        "f1": (fp + fn, tp + fp + fn),
        "accuracy": (fp + fn, tp + fp + tn + fn),
    }[metric]


def _f1(share: float) -> float:
    return 2 * share / (1 + share)
