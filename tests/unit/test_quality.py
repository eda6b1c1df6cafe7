"""Live quality and its intervals: monitor.interval and monitor.quality."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from lab import card as cards
from monitor.interval import GRID, Mean, bernoulli
from monitor.quality import Quality, prevalence
from tests.unit.conftest import Package

LEVEL = 0.95
Record = tuple[bool, bool, float]
records = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), max_size=600)


@settings(max_examples=50)
@given(successes=st.integers(0, 500), failures=st.integers(0, 500))
def test_the_interval_has_the_means_that_the_bet_does_not_exclude(successes: int, failures: int) -> None:
    """The limits of the interval are where the capital of the mixture bet reaches 20 times the stake."""
    n = successes + failures
    low, high = bernoulli(successes, n, LEVEL)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    weights = np.linspace(0, 1, 200_001)[1:-1]
    with np.errstate(divide="ignore"):
        likelihood = successes * np.log(weights) + failures * np.log1p(-weights)
    mixture = np.log(np.mean(np.exp(likelihood - likelihood.max()))) + likelihood.max()
    kept = weights[mixture - likelihood < np.log(1 / (1 - LEVEL))]
    assert low == pytest.approx(kept[0], abs=2e-4)
    assert high == pytest.approx(kept[-1], abs=2e-4)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_interval_of_a_rate_ever_misses_in_less_than_one_run_of_twenty(share: float) -> None:
    """Although it is looked at after each of 1,000 outcomes, the interval misses the rate in at most 5 % of runs."""
    generator = np.random.default_rng(12)
    missed = 0
    for _ in range(150):
        counts = np.cumsum(generator.random(1_000) < share)
        looks = ((int(c), n) for n, c in enumerate(counts, 1))
        missed += any(not low <= share <= high for low, high in (bernoulli(c, n, LEVEL) for c, n in looks))
    assert missed <= 0.05 * 150 + 2


def test_the_interval_of_a_mean_ever_misses_in_less_than_one_run_of_twenty() -> None:
    """The same holds for values that are no outcomes, such as the squared errors of probabilities."""
    generator = np.random.default_rng(12)
    missed = 0
    for _ in range(150):
        mean, out = Mean(), False
        for number, value in enumerate(generator.beta(0.3, 3, 512)):
            mean.add(float(value))
            if number % 16 == 15:
                low, high = mean.interval(LEVEL)
                out |= not low <= 0.3 / 3.3 <= high
        missed += out
    assert missed <= 0.05 * 150 + 2


def test_the_interval_of_a_mean_becomes_narrow() -> None:
    """After 5,000 values the interval of the mean is narrow and has the mean in it."""
    generator, mean = np.random.default_rng(1), Mean()
    values = generator.beta(2, 6, 5_000)
    for value in values:
        mean.add(float(value))
    low, high = mean.interval(LEVEL)
    assert low <= values.mean() <= high
    assert high - low < 0.05
    assert len(mean.up) == len(GRID)


@settings(max_examples=30, deadline=None)
@given(rows=records, cut=st.integers(0, 600))
def test_the_state_does_not_depend_on_a_save_in_the_middle(rows: list[Record], cut: int) -> None:
    """A state that is shown, saved and read in the middle continues to exactly the same state."""
    whole, part = Quality(), Quality()
    for number, row in enumerate(rows):
        if number == cut:
            part.figures()
            part = msgspec.json.decode(msgspec.json.encode(part), type=Quality)
        whole.add(*row)
        part.add(*row)
    assert whole == part


@settings(max_examples=30, deadline=None)
@given(rows=records.filter(len))
def test_the_figures_are_those_of_scikit_learn(rows: list[Record]) -> None:
    """The live figures equal those that scikit-learn computes from the same records."""
    quality = Quality()
    for row in rows:
        quality.add(*row)
    truth, answer, probability = (list(column) for column in zip(*rows, strict=True))
    (passes, false_alarms), (misses, hits) = confusion_matrix(truth, answer, labels=[False, True])
    figures = quality.figures()
    assert (quality.hits, quality.misses, quality.false_alarms, quality.passes) == (hits, misses, false_alarms, passes)
    assert figures["accuracy"].value == pytest.approx((hits + passes) / len(rows))
    assert figures["brier"].value == pytest.approx(brier_score_loss(truth, probability, pos_label=True))
    assert figures["recall"].n == hits + misses
    assert figures["roc_auc"].n == min(sum(truth), len(rows) - sum(truth))
    for figure in figures.values():
        assert 0 <= figure.low <= figure.high <= 1


def test_the_pairs_estimate_the_roc_auc() -> None:
    """Over disjoint pairs, the share of pairs in the right order is close to the area under the curve."""
    generator, quality = np.random.default_rng(3), Quality()
    truth = generator.random(20_000) < 0.3
    scores = np.clip(generator.normal(0.4 + 0.3 * truth, 0.25), 0, 1)
    for positive, score in zip(truth.tolist(), scores.tolist(), strict=True):
        quality.add(positive, score > 0.5, score)
    figure = quality.figures()["roc_auc"]
    assert figure.low <= roc_auc_score(truth, scores) <= figure.high


@settings(max_examples=30, deadline=None)
@given(rows=records.filter(len), data=st.data())
def test_a_correction_changes_the_display_and_no_sequence(rows: list[Record], data: st.DataObject) -> None:
    """After a correction the counts are those of the corrected labels, and the sequential states are as before."""
    place = data.draw(st.integers(0, len(rows) - 1))
    quality, corrected = Quality(), Quality()
    for number, (positive, predicted, probability) in enumerate(rows):
        quality.add(positive, predicted, probability)
        corrected.add(positive != (number == place), predicted, probability)
    before = msgspec.json.encode([quality.brier, quality.pairs])
    positive, predicted, probability = rows[place]
    quality.correct(not positive, predicted, probability)
    assert (quality.hits, quality.misses, quality.false_alarms, quality.passes) == (
        *(corrected.hits, corrected.misses, corrected.false_alarms, corrected.passes),
    )
    assert quality.squared == pytest.approx(corrected.squared, abs=1e-9)
    assert msgspec.json.encode([quality.brier, quality.pairs]) == before


def test_the_share_of_positives_is_corrected_for_errors(package: Package) -> None:
    """The estimate inverts the card's recall and specificity, and lies between 0 and 1."""
    values = package[0]
    recall, specificity = 0.95, 0.9
    promises = {
        name: {**values["promises"]["accuracy"], "value": value, "low": 0.85}
        for name, value in (("recall", recall), ("specificity", specificity))
    }
    card = cards.decode(msgspec.json.encode({**values, "promises": promises}))
    predicted = round(10_000 * (0.3 * recall + 0.7 * (1 - specificity)))
    figure = prevalence(predicted, 10_000, card)
    assert figure is not None
    assert figure.value == pytest.approx(0.3, abs=1e-3)
    assert figure.low < 0.3 < figure.high
    nothing = prevalence(0, 10_000, card)
    assert nothing is not None
    assert nothing.value == 0
