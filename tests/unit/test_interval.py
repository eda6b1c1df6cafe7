"""Intervals for means over many values: monitor.interval."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.interval import BLOCK, GRID, LOST, WON, Mean


def test_the_interval_of_many_values_is_narrow_and_has_their_mean() -> None:
    """When all candidates are excluded, the interval lies between two neighbours, and it is not the whole range."""
    values, mean = np.random.default_rng(1).beta(0.3, 9, 200_000), Mean()
    for value in values.tolist():
        mean.add(value)
    low, high = mean.interval()
    assert low <= 0.3 / 9.3 <= high
    assert high - low < 0.004
    assert min(mean.up) >= LOST
    assert max(mean.up) <= WON


def test_bets_that_end_early_do_not_make_the_interval_miss() -> None:
    """Over 10,000 values, of which most bets see a part only, the interval misses the mean in at most 5 % of runs."""
    generator, runs, missed = np.random.default_rng(2), 60, 0
    for _ in range(runs):
        mean, out = Mean(), False
        for block in (generator.random((40, BLOCK)) < 0.1).astype(float).tolist():
            for value in block:
                mean.add(value)
            low, high = mean.interval()
            out |= not low <= 0.1 <= high
        missed += out
    assert missed <= 0.05 * runs + 2


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(0, 1), max_size=3 * BLOCK), level=st.floats(0.5, 0.999))
def test_the_interval_of_any_values_is_an_interval(values: list[float], level: float) -> None:
    """For all values and levels the limits are ordered and lie within 0 and 1, and the mean of few values is inside."""
    mean = Mean()
    for value in values:
        mean.add(value)
    low, high = mean.interval(level)
    assert 0 <= low <= high <= 1
    wide = mean.interval(0.9999)
    assert wide[0] <= low
    assert high <= wide[1]


@settings(max_examples=10, deadline=None)
@given(constant=st.sampled_from([0.0, 0.25, 1.0]))
def test_the_interval_of_a_constant_closes_in_on_it(constant: float) -> None:
    """Values without variance, at the ends of the range too, have a narrow interval after 2,000 of them."""
    mean = Mean()
    for _ in range(2_000):
        mean.add(constant)
    low, high = mean.interval()
    assert low <= constant <= high
    assert high - low < 0.02


def test_the_bets_are_those_of_a_product_value_by_value() -> None:
    """The capitals after one block equal those of the paper's formula, computed in one value after another."""
    values = np.random.default_rng(4).beta(2, 5, BLOCK).tolist()
    mean = Mean()
    for value in values:
        mean.add(value)
    up, total, squares = np.zeros(len(GRID)), 0.0, 0.0
    for n, value in enumerate(values):
        variance = (0.25 + squares) / (n + 1)
        bet = np.sqrt(2 * np.log(2 / 0.05) / (variance * (n + 1) * np.log(n + 2)))
        up += np.log1p(np.minimum(bet, 0.5 / np.maximum(GRID, 1e-9)) * (value - GRID))
        squares += (value - (0.5 + total) / (n + 1)) ** 2
        total += value
    assert np.allclose(mean.up, np.clip(up, LOST, WON), atol=1e-9)
    assert msgspec.json.decode(msgspec.json.encode(mean), type=Mean) == mean
