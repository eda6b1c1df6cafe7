"""Drift: the PSI, its limits and the windows: monitor.psi, monitor.drift_limits and monitor.drift."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import card as cards
from lab.card import Card
from lab.errors import LabError
from monitor import drift_limits, psi
from monitor.drift import Drift, holm
from monitor.drift_limits import Limits, make
from tests.unit.conftest import Package

WINDOW = 200
SIX = [180, 160, 120, 60, 30, 0]


@pytest.fixture(scope="module")
def card(package: Package) -> Card:
    """`a` has ten bins; `b` has two bins and 30 missing values of 600."""
    values = package[0]
    ten = [150, 120, 90, 80, 60, 40, 30, 20, 10, 0]
    reference: dict[str, Any] = {
        "a": {"edges": [-9, *range(-7, 10, 2), 9.5], "counts": ten, "missing": 0.0},
        "b": {"edges": [-9.0, 0.0, 9.0], "counts": [300, 270], "missing": 30 / 600},
    }
    score = {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [300, 100, 50, 150], "missing": 0.0}
    for histogram in (*reference.values(), score):
        histogram["shares"] = [count / 600 for count in histogram["counts"]]
    return cards.decode(
        msgspec.json.encode({**values, "rows": 600, "feature_reference": reference, "score_reference": score})
    )


@pytest.fixture(scope="module")
def limits(card: Card) -> Limits:
    return make(card, WINDOW)


def record(card: Card, generator: np.random.Generator) -> tuple[dict[str, float | None], float]:
    """A record and its probability, drawn from the card's reference."""
    features: dict[str, float | None] = {}
    for name, histogram in card.feature_reference.items():
        place = generator.choice(len(histogram.counts), p=np.array(histogram.counts) / sum(histogram.counts))
        features[name] = (histogram.edges[place] + histogram.edges[place + 1]) / 2
    if generator.random() < card.feature_reference["b"].missing:
        features["b"] = None
    shares = np.array(card.score_reference.shares)
    return features, float(generator.choice([0.1, 0.3, 0.6, 0.9], p=shares / shares.sum()))


def test_the_psi_is_that_of_the_formula() -> None:
    """PSI with half a count added to each cell, computed by hand for two cells."""
    p, q = np.array([30.5, 70.5]) / 101, np.array([5.5, 5.5]) / 11
    assert psi.index([30, 70], [5, 5]) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert psi.index([30, 70], [0, 0]) >= 0


@pytest.mark.parametrize("counts", [SIX, [241, 458], [650, 30, 19], [70] * 10])
def test_the_limits_are_those_of_brute_force(counts: list[int]) -> None:
    """At a probability of 1e-3, the computed limit is passed by 1e-3 of a million drawn windows, within 10 %."""
    generator, level = np.random.default_rng(11), 1e-3
    tails = np.array([0.5, 1e-2, level, 1e-5])
    if len(counts) <= psi.FEW_CELLS:
        values, probabilities = psi.exact(counts, WINDOW)
        threshold = float(values[np.searchsorted(-probabilities, -level)])
        level = float(probabilities[np.searchsorted(-probabilities, -level)])
    else:
        threshold = float(psi.tabulate(counts, WINDOW, tails, level)[0][2])
    draws, passed = 500_000, 0
    reference = np.array(counts) + 0.5
    p = reference / reference.sum()
    for _ in range(10):
        shares = generator.dirichlet(np.array(counts) + 0.5, draws // 10)
        windows = generator.multinomial(WINDOW, shares)
        q = (windows + 0.5) / (WINDOW + 0.5 * len(counts))
        passed += int((((q - p) * np.log(q / p)).sum(axis=1) >= threshold - psi.ROUNDING).sum())
    spread = 3 * np.sqrt(level * draws)
    assert abs(passed - level * draws) <= 0.1 * level * draws + spread


def test_the_error_of_the_tail_is_stated_and_small(limits: Limits) -> None:
    """Each statistic has a relative error below 10 % at the smallest level that Holm's method needs."""
    assert {(each.kind, each.name) for each in limits.statistics} == {
        ("feature", "a"),
        ("feature", "b"),
        ("score", "score"),
        ("missing", "b"),
    }
    assert limits.smallest_level == pytest.approx(0.01 / 24 / 4)
    for each in limits.statistics:
        assert 0 <= each.error < drift_limits.MOST_ERROR
        assert each.psi == sorted(each.psi)


def test_the_p_value_inverts_the_limit(limits: Limits) -> None:
    """The probability of a PSI at the limit of a level is that level, and grows to 1 for no difference."""
    for each in limits.statistics:
        points = each.psi, each.tails
        if each.kind in ("score",) or each.name == "a":
            for level in (0.3, 1e-2, 1e-4):
                found = drift_limits.p_value(points, drift_limits.limit(points, level))
                assert found == pytest.approx(level, rel=0.02)
        assert drift_limits.p_value(points, 0.0) == 1
        assert drift_limits.p_value(points, 100.0) == pytest.approx(each.tails[-1])


def test_holm_rejects_step_by_step() -> None:
    """Holm's method by hand: the second smallest is compared with a higher level than the smallest."""
    assert holm([0.01, 0.02, 0.9], 0.05) == [True, True, False]
    assert holm([0.02, 0.02, 0.9], 0.05) == [False, False, False]
    assert holm([0.9, 0.001], 0.05) == [False, True]
    assert holm([], 0.05) == []


def test_a_card_without_counts_is_refused(package: Package) -> None:
    """A card of schema version 1 has no counts, so that there are no limits."""
    values = {**package[0], "schema_version": 1}
    with pytest.raises(LabError, match="no counts"):
        make(cards.decode(msgspec.json.encode(values)))


def test_the_key_is_that_of_the_counts(card: Card, limits: Limits) -> None:
    """The same reference has the same key, and another reference or window has another."""
    assert drift_limits.key(card) == limits.key
    assert drift_limits.key(card, 100) != limits.key
    other = msgspec.structs.replace(card, rows=601)
    assert drift_limits.key(other) != limits.key


def test_a_shifted_feature_is_found_and_no_other(card: Card, limits: Limits) -> None:
    """When one feature moves by two bins, the window says so for this feature only, and warns once."""
    generator, state, results = np.random.default_rng(2), Drift(), None
    for _ in range(WINDOW):
        features, probability = record(card, generator)
        features["a"] = min((features["a"] or 0) + 4, 9.0)
        results = state.add(card, limits, features, probability, 0.0)
    assert results is not None
    assert [result.key for result in results if result.drifted] == ["feature:a"]
    assert [result.name for result in state.new_warnings(results)] == ["a"]
    assert state.new_warnings(results) == []
    assert state.acknowledge(["a"]) == ["feature:a"]
    assert [result.name for result in state.new_warnings(results)] == ["a"]


def test_missing_values_drift_by_themselves(card: Card, limits: Limits) -> None:
    """When a feature is missing more often, its missing share drifts, and the values that are present do not."""
    generator, state, results = np.random.default_rng(3), Drift(), None
    for _ in range(WINDOW):
        features, probability = record(card, generator)
        if generator.random() < 0.3:
            features["b"] = None
        results = state.add(card, limits, features, probability, 0.0)
    assert results is not None
    assert [result.key for result in results if result.drifted] == ["missing:b"]
    assert next(result for result in results if result.key == "feature:b").n < WINDOW


def test_healthy_windows_hardly_ever_warn(card: Card, limits: Limits) -> None:
    """Of 60 healthy windows, two days and a half, none drifts."""
    generator, state, windows = np.random.default_rng(4), Drift(every=0.0), 0
    for number in range(60 * WINDOW):
        results = state.add(card, limits, *record(card, generator), float(number))
        if results:
            windows += 1
            assert not any(result.drifted for result in results)
    assert windows == 60


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.floats(-4_000, 8_000), min_size=1, max_size=60), data=st.data())
def test_windows_are_an_hour_apart_for_every_clock(
    card: Card, limits: Limits, steps: list[float], data: st.DataObject
) -> None:
    """Whatever the clock does, a window opens an hour after the latest end so far; the state survives JSON."""
    small = msgspec.structs.replace(limits, window=3)
    state, at, latest = Drift(), 0.0, None
    for step in steps:
        at += step
        before = state.seen
        results = state.add(card, small, {"a": 1.0, "b": 1.0}, 0.5, at)
        if latest is not None and not before and at < latest + 3_600:
            assert state.seen == 0
            assert results is None
        if results is not None:
            latest = at if latest is None else max(at, latest + 3_600)
            assert state.tested_at == latest
        if data.draw(st.booleans()):
            state = msgspec.json.decode(msgspec.json.encode(state), type=Drift)
