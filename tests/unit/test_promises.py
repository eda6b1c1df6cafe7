"""Thresholds, promises, references and the test between candidates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace
from scipy import stats

from lab.errors import LabError
from lab.problem import Candidate
from tests.unit.results import CANCER
from tests.unit.test_trainer import typed
from trainer import evaluate, promise, reference, significance, threshold
from trainer.metrics import Counts, counts_at
from trainer.table import table

QUICK = replace(CANCER, evaluation=replace(CANCER.evaluation, repeats=1, folds=5))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_threshold_is_the_highest_that_misses_no_more(data):
    """The threshold misses at most the allowed number of positives, and the next higher probability would miss more."""
    rows = data.draw(st.integers(2, 60))
    truth = data.draw(arrays(np.int64, rows, elements=st.integers(0, 1)).filter(lambda y: 0 < y.sum() < len(y)))
    score = data.draw(arrays(np.float64, rows, elements=st.integers(0, 20).map(lambda v: v / 20)))
    misses = data.draw(st.integers(0, int(truth.sum()) - 1))
    value = threshold.choose_threshold(truth, score, misses)
    assert (score[truth == 1] < value).sum() <= misses
    higher = np.unique(score[score > value])
    if len(higher) > 1:
        assert (score[truth == 1] < higher[1]).sum() > misses


def test_a_further_positive_is_found_as_often_as_promised():
    """The threshold by n positives finds one more of the same kind with the promised chance, or a little more.

    The highest threshold that reaches the recall on the n rows themselves finds it too seldom.
    """
    rng, recall, rows = np.random.default_rng(0), 0.9, 50
    plain = conformal = 0
    for _ in range(4_000):
        score = rng.normal(size=rows + 1)
        sample, further = score[:-1], score[-1]
        truth = np.ones(rows, dtype=np.int64)
        misses = threshold.allowed_misses(rows, recall)
        conformal += further >= threshold.choose_threshold(truth, sample, misses) - 1e-12
        plain += further >= np.sort(sample)[math.floor((1 - recall) * rows + 1e-9)]
    assert misses == 4
    assert plain / 4_000 < recall - 0.01
    assert recall - 0.005 <= conformal / 4_000 <= recall + 0.03


@given(st.integers(1, 5_000), st.floats(0.5, 1))
def test_a_recall_is_refused_exactly_where_the_rows_cannot_promise_it(positives, recall):
    """The error names a recall that the rows can promise."""
    try:
        threshold.check_recall(positives, recall)
    except LabError as error:
        assert threshold.allowed_misses(positives, recall) < 0
        most = float(error.remedy.rpartition(" ")[2])
        assert threshold.allowed_misses(positives, most) >= 0
    else:
        assert threshold.allowed_misses(positives, recall) >= 0


def test_forty_nine_positives_can_promise_a_recall_of_98_percent():
    threshold.check_recall(49, 0.98)
    with pytest.raises(LabError, match="needs 49 or more"):
        threshold.check_recall(48, 0.98)


@given(st.integers(1, 2_000), st.data())
def test_the_interval_of_a_share_is_scipys(rows, data):
    failures = data.draw(st.integers(0, rows))
    low, high = promise.clopper_pearson(failures, rows)
    exact = stats.binomtest(failures, rows).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_promises_are_counts_of_distinct_rows():
    """A promise is the median over the repeats, rounded up; F1 comes from the sums (Forman and Scholz 2010)."""
    repeats = [Counts(48, 5, 95, 2), Counts(47, 4, 96, 3), Counts(49, 6, 94, 1), Counts(47, 5, 95, 3)]
    folds = {metric: [0.9, 0.95] for metric in ("recall", "specificity", "precision", "f1", "accuracy", "roc_auc")}
    figures = promise.promises(folds, repeats, rows=150, count=10)
    assert (figures["recall"].rows, figures["recall"].failures) == (50, 3)
    assert figures["recall"].value == pytest.approx(1 - 3 / 50)
    assert (figures["specificity"].rows, figures["specificity"].failures) == (100, 5)
    assert (figures["accuracy"].rows, figures["accuracy"].failures) == (150, 7)
    assert figures["f1"].value == pytest.approx(2 * 191 / (2 * 191 + 20 + 9))
    assert (figures["roc_auc"].method, figures["roc_auc"].failures) == ("folds", None)
    for each in figures.values():
        assert each.low <= each.value <= each.high


def test_the_corrected_test_is_the_published_formula():
    """t = mean / sqrt(variance * (1/k + n_test/n_train)), one-sided, against numbers worked out by hand."""
    first, second = [0.9, 0.8, 0.85, 0.95], [0.85, 0.8, 0.75, 0.85]
    lead = significance.corrected_t_test(first, second, folds=4)
    differences = np.subtract(first, second)
    t = differences.mean() / math.sqrt(differences.var(ddof=1) * (1 / 4 + 1 / 3))
    assert lead.p_value == pytest.approx(stats.t.sf(t, 3))
    assert lead.gain == pytest.approx(0.0625)
    assert lead.p_value > stats.ttest_rel(first, second, alternative="greater").pvalue
    assert significance.lead_of("brier", first, second, 4).gain == pytest.approx(-0.0625)


def test_equal_differences_and_few_pairs_prove_nothing():
    """Two folds with equal differences have no variance to judge by."""
    assert significance.corrected_t_test([0.9, 0.8], [0.8, 0.7], 2).p_value == 1
    lead = significance.Lead(gain=0.1, p_value=1e-9, pairs=9)
    assert not lead.is_shown(0.05, 0.002)
    assert significance.Lead(gain=0.1, p_value=1e-9, pairs=10).is_shown(0.05, 0.002)
    assert not significance.corrected_t_test([math.nan] * 10, [0.5] * 10, 10).is_shown(0.05, 0.0)


def psi(expected: np.ndarray, observed: np.ndarray) -> float:
    """The population stability index, with half a row added to each bin."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (expected, observed))
    return float(((p - q) * np.log(p / q)).sum())


@pytest.mark.parametrize("name", list(CANCER.candidates))
def test_the_reference_of_the_score_agrees_with_the_scores_it_is_made_of(tmp_path, name):
    """The reference also agrees with float32 scores, whose rounding once moved a fifth to the next bin."""
    data = table(CANCER, typed(tmp_path, CANCER))
    oof = evaluate.evaluate(QUICK, {name: CANCER.candidates[name]}, data)[name].oof[0]
    histogram = reference.score_histogram(oof)
    served, _ = np.histogram(oof.astype(np.float32).astype(np.float64), bins=histogram.edges)
    assert served.tolist() == histogram.counts
    again, _ = np.histogram(np.nextafter(oof.astype(np.float32), np.float32(1)), bins=histogram.edges)
    assert psi(np.array(histogram.counts), again) < 1e-3
    assert sum(histogram.counts) == len(data.y)
    assert 2 <= len(histogram.counts) <= reference.BINS


def test_the_threshold_comes_from_one_grid_point(tmp_path):
    """Out-of-fold probabilities of k-nearest neighbours are multiples of one share: folds with 3 and with 5 neighbours
    are not mixed, although the search of some folds chose the other number.
    """
    data = table(CANCER, typed(tmp_path, CANCER))
    candidate = Candidate(estimator="sklearn.neighbors.KNeighborsClassifier", grid={"n_neighbors": [3, 4, 5, 7]})
    outcome = evaluate.evaluate(QUICK, {"k": candidate}, data)["k"]
    scaled = outcome.oof * outcome.best["n_neighbors"]
    assert np.abs(scaled - np.round(scaled)).max() < 1e-9


def test_calibration_is_that_of_the_logits():
    """True probabilities have slope 1 and intercept 0, and doubled logits have slope one half."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 40_000)
    truth = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    right = promise.calibration(truth, 1 / (1 + np.exp(-logit)))
    assert (right.slope, right.intercept) == pytest.approx((1, 0), abs=0.05)
    extreme = promise.calibration(truth, 1 / (1 + np.exp(-2 * logit - 1)))
    assert extreme.slope == pytest.approx(0.5, abs=0.03)
    assert promise.calibration(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])) is None


def test_labels_follow_the_threshold():
    truth, probability = np.array([1, 1, 0, 0, 1]), np.array([0.4, 0.6, 0.4, 0.1, 0.2])
    counts = counts_at(truth, probability, 0.4)
    assert counts == Counts(true_positive=2, false_positive=1, true_negative=1, false_negative=1)
    assert counts.rates == pytest.approx(
        {"recall": 2 / 3, "specificity": 1 / 2, "precision": 2 / 3, "f1": 2 / 3, "accuracy": 3 / 5}
    )
