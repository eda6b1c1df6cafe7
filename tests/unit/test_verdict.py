"""The previous champion in the shadow, and the verdict: monitor.shadow and monitor.verdict."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import promise, shadow
from monitor.promise import Promise
from monitor.shadow import Shadow
from monitor.verdict import verdict


def start() -> tuple[Promise, Shadow]:
    state = Promise(promise.stream(0.05, 25), promise.stream(0.07, 50), 200.0)
    return state, shadow.start(state, previous=1, threshold=100.0, size=10)


def feed(state: Promise, other: Shadow, rows: int, right: float, previous_right: float, positive: bool = True) -> None:
    """Add `rows` records of one class; each version is right in its share of them, spread evenly."""
    for number in range(rows):
        good, good_before = (int((number + 1) * s) > int(number * s) for s in (right, previous_right))
        state.add(positive, not good)
        other.add(positive, good, good_before)


def test_both_conditions_together_roll_back() -> None:
    """A broken promise and a better previous version give the verdict to roll back, with the figures in the reason."""
    state, other = start()
    feed(state, other, 200, 0.5, 1.0)
    feed(state, other, 200, 1.0, 1.0, positive=False)
    answer = verdict(state, other)
    assert (answer.kind, answer.side) == ("roll_back", "positives")
    assert "100 of 200 positives failed" in answer.reason


def test_a_broken_promise_alone_does_not_roll_back() -> None:
    """When both versions fail on the same records, the world has changed, and the reason says what is lacking."""
    state, other = start()
    feed(state, other, 200, 0.5, 0.5)
    answer = verdict(state, other)
    assert answer.kind == "promise_broken"
    assert "the evidence that version 1 does better on positives" in answer.reason


def test_a_better_previous_version_alone_does_not_roll_back() -> None:
    """While the promise holds, a better previous version is worth an alert only."""
    state, other = start()
    feed(state, other, 2_000, 0.97, 1.0)
    assert not state.broken
    assert verdict(state, other).kind == "previous_better"


def test_a_previous_version_that_breaks_the_other_promise_does_not_return() -> None:
    """A previous version with more right positives and many false alarms is not restored."""
    state, other = start()
    feed(state, other, 300, 0.7, 1.0)
    feed(state, other, 300, 1.0, 0.5, positive=False)
    answer = verdict(state, other)
    assert answer.kind == "promise_broken"
    assert "breaks the promise on negatives" in answer.reason


def test_without_a_previous_version_there_is_no_rollback() -> None:
    """The first champion has none before it, so that a broken promise is only told."""
    state, other = start()
    feed(state, other, 200, 0.5, 1.0)
    assert verdict(state, None).kind == "promise_broken"


def test_a_card_without_counts_is_only_watched() -> None:
    """A card of schema version 1 states no counts, so that there is no verdict."""
    assert verdict(None, None).kind == "unknown"


@settings(max_examples=40)
@given(records=st.lists(st.tuples(*[st.booleans()] * 3), max_size=150), cut=st.integers(0, 150))
def test_the_state_survives_json_in_the_middle(records: list[tuple[bool, bool, bool]], cut: int) -> None:
    """A state that is saved and read in the middle continues to exactly the same state."""
    whole, part = start()[1], start()[1]
    for number, record in enumerate(records):
        if number == cut:
            part = msgspec.json.decode(msgspec.json.encode(part), type=Shadow)
        whole.add(*record)
        part.add(*record)
    assert whole == part


@pytest.mark.parametrize("share", shadow.SHARES)
def test_the_bets_are_fair(share: float) -> None:
    """When each version is right as often as the other, the expected factor of each bet is 1."""
    assert ((1 + share) + (1 - share)) / 2 == pytest.approx(1)
