"""The evidence against a promise: monitor.promise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from monitor import promise
from monitor.promise import Promise, Stream

ALARM = 200.0


def sums(stream: Stream, outcomes: list[bool]) -> float:
    """The evidence as the formula states it: each bet of each block by itself."""
    size = stream.bets.size
    total, blocks = 0.0, -(-len(outcomes) // size)
    for j in range(1, blocks + 1):
        capitals = []
        for bad, good in zip(stream.on_failure, stream.on_success, strict=True):
            capital = 1.0
            for failed in outcomes[(j - 1) * size :]:
                capital *= bad if failed else good
            capitals.append(capital)
        total += sum(capitals) / len(capitals) / (j * (j + 1))
    return total + 1 / (blocks + 1)


@given(rows=st.integers(1, 700), share=st.floats(0, 1), delta=st.sampled_from([0.0025, 0.05]))
def test_the_limit_is_that_of_the_beta_distribution(rows: int, share: float, delta: float) -> None:
    """The limit without scipy is the quantile of scipy's Beta distribution."""
    failures = round(share * rows)
    expectation = 1.0 if failures == rows else 1 - beta.ppf(delta, rows - failures, failures + 1)
    assert promise.limit(failures, rows, delta) == pytest.approx(expectation, abs=1e-9)


@settings(max_examples=60)
@given(limit=st.sampled_from([0.001, 0.05, 0.19, 0.3, 0.9]), outcomes=st.lists(st.booleans(), max_size=120))
def test_one_sum_for_each_bet_gives_the_evidence_of_all_blocks(limit: float, outcomes: list[bool]) -> None:
    """The evidence in constant memory equals the formula with a capital for each block and bet."""
    stream = promise.stream(limit, 7)
    for failed in outcomes:
        stream.add(failed)
    assert stream.evidence == pytest.approx(sums(stream, outcomes), rel=1e-9)


@pytest.mark.parametrize("limit", [0.02, 0.048, 0.15, 0.4])
def test_the_evidence_grows_no_more_than_chance_while_the_promise_holds(limit: float) -> None:
    """At the limit, the expected factor of each bet is exactly 1, so that the evidence is a martingale."""
    stream = promise.stream(limit, 25)
    for bad, good in zip(stream.on_failure, stream.on_success, strict=True):
        assert limit * bad + (1 - limit) * good == pytest.approx(1)


@settings(max_examples=40)
@given(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200), cut=st.integers(0, 200))
def test_the_state_survives_json_in_the_middle(outcomes: list[tuple[bool, bool]], cut: int) -> None:
    """A state that is saved and read in the middle continues to exactly the same state."""

    def start() -> Promise:
        return Promise(promise.stream(0.05, 25), promise.stream(0.07, 50), ALARM)

    whole, part = start(), start()
    for number, (positive, failed) in enumerate(outcomes):
        if number == cut:
            part = msgspec.json.decode(msgspec.json.encode(part), type=Promise)
        whole.add(positive, failed)
        part.add(positive, failed)
    assert whole == part


def test_the_class_that_fails_is_the_broken_one() -> None:
    """Missed positives break the promise on the positives only, and the class stays broken."""
    state = Promise(promise.stream(0.05, 25), promise.stream(0.07, 50), ALARM)
    for number in range(400):
        state.add(True, number % 3 == 0)
        state.add(False, False)
    assert state.broken == ["positives"]
    for _ in range(2_000):
        state.add(True, False)
    assert state.positives.evidence < ALARM
    assert state.broken == ["positives"]


def test_a_promise_that_all_may_fail_cannot_be_broken() -> None:
    """A card with failures in all rows has the limit 1, and no outcome is evidence against it."""
    stream = promise.stream(promise.limit(5, 5, 0.0025), 25)
    for _ in range(1_000):
        stream.add(True)
    assert stream.evidence <= 1


def test_the_evidence_stays_a_finite_number() -> None:
    """The evidence of a version that is always wrong stops at a finite number, and JSON can hold it."""
    stream = promise.stream(0.01, 25)
    for _ in range(5_000):
        stream.add(True)
    assert msgspec.json.decode(msgspec.json.encode(stream), type=Stream).evidence == stream.evidence > ALARM


def test_the_chance_is_the_binomial_one() -> None:
    """The tail of the binomial distribution without scipy equals that of scipy."""
    for rows, failures, share in (
        *((241, 3, 0.05), (458, 16, 0.066), (1, 0, 0.5), (100_000, 900, 0.01)),
        *((1_000_000, 100_000, 0.1), (1_000, 900, 0.95), (50, 50, 0.0)),
    ):
        assert promise._chance(failures, rows, share) == pytest.approx(binom.cdf(failures, rows, share), rel=1e-6)
