"""The previous champion in the shadow, and the verdict: monitor.shadow and monitor.verdict."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import promise, shadow
from monitor.promise import Promise, Side
from monitor.shadow import Shadow
from monitor.verdict import verdict

Record = tuple[bool, bool, bool]  # positive, right, previous right
RIGHT, WRONG = True, False


def start() -> tuple[Promise, Shadow]:
    promised = Promise(promise.stream(0.05, 25), promise.stream(0.07, 50), 200.0)
    return promised, shadow.start(promised, 7, 100.0, 10)


def judge(records: Iterable[Record]) -> tuple[Promise, Shadow]:
    promised, duel = start()
    for positive, right, previous in records:
        promised.add(positive, not right)
        duel.add(positive, right, previous)
    return promised, duel


GOOD: list[Record] = [(True, RIGHT, RIGHT), (False, RIGHT, RIGHT), (False, RIGHT, RIGHT)]
CASES: list[tuple[str, list[Record], str, Side | None, str]] = [
    ("both are good", GOOD * 200, "kept", None, "200 is an alarm"),
    ("only the champion became bad", [*GOOD, (True, WRONG, RIGHT)] * 100, "roll_back", "positives", "version 7"),
    (
        "the world changed",
        [*GOOD, (True, WRONG, WRONG)] * 100,
        "promise_broken",
        "positives",
        "evidence that version 7",
    ),
    (
        "the previous one fails on the other class",
        [*GOOD, (True, WRONG, RIGHT), (False, RIGHT, WRONG)] * 100,
        "promise_broken",
        "positives",
        "failed on 100 of 300 negatives",
    ),
    (
        "both classes are broken, and the previous one does better on negatives only",
        [(True, WRONG, WRONG), (True, RIGHT, RIGHT), (False, WRONG, RIGHT), (False, RIGHT, RIGHT)] * 100,
        "promise_broken",
        "positives",
        "better on negatives, but it failed on 100 of 200 positives",
    ),
    (
        "the previous one is better than a champion that keeps its promise",
        ([(True, WRONG, RIGHT)] + [(True, RIGHT, RIGHT)] * 30 + [(False, RIGHT, RIGHT)] * 60) * 12,
        "previous_better",
        "positives",
        "no promise is broken",
    ),
]


@pytest.mark.parametrize(("records", "kind", "side", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_situation_has_its_verdict(records: list[Record], kind: str, side: Side | None, words: str) -> None:
    """Only a broken promise and a better previous champion together give a rollback; each reason says what is so."""
    answer = verdict(*judge(records))
    assert (answer.kind, answer.side) == (kind, side)
    assert words in answer.reason


def test_no_counts_and_no_previous_champion_give_no_rollback() -> None:
    """Without counts there is no evidence, and without a previous champion a broken promise is only told."""
    promised, _ = judge([*GOOD, (True, WRONG, RIGHT)] * 100)
    assert verdict(None, None).kind == "unknown"
    assert verdict(promised, None).kind == "promise_broken"


@settings(max_examples=40)
@given(records=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=200), cut=st.integers(0, 200))
def test_the_shadow_survives_json_in_the_middle(records: list[Record], cut: int) -> None:
    """A comparison that is saved and read in the middle continues to exactly the same state."""
    whole, part = start()[1], start()[1]
    for number, record in enumerate(records):
        if number == cut:
            part = msgspec.json.decode(msgspec.json.encode(part), type=Shadow)
        whole.add(*record)
        part.add(*record)
    assert whole == part


@given(records=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=100), positive=st.booleans())
def test_records_on_which_both_agree_say_nothing(records: list[tuple[bool, bool]], positive: bool) -> None:
    """Evidence is the same with and without records on which both versions are right or both are wrong."""
    all_of_them, some = start()[1], start()[1]
    for right, previous in records:
        all_of_them.add(positive, right, previous)
        if right != previous:
            some.add(positive, right, previous)
    assert (all_of_them.positives, all_of_them.negatives) == (some.positives, some.negatives)


def test_a_coin_gives_no_expected_gain() -> None:
    """When either version may be the right one with the same chance, the expected factor of each bet is 1."""
    for won, lost in zip(shadow._FOR, shadow._AGAINST, strict=True):
        assert (won + lost) / 2 == pytest.approx(1)
