"""Situations from records to a verdict, and the evidence over both classes: monitor.shadow and monitor.verdict."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
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
        "breaks the promise on negatives: it failed on 100 of 300",
    ),
    (
        "both classes are broken, and the previous one does better on negatives only",
        [(True, WRONG, WRONG), (True, RIGHT, RIGHT), (False, WRONG, RIGHT), (False, RIGHT, RIGHT)] * 100,
        "promise_broken",
        "positives",
        "better on negatives, and breaks the promise on positives",
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


@given(records=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=100), positive=st.booleans())
def test_records_on_which_both_agree_say_nothing(records: list[tuple[bool, bool]], positive: bool) -> None:
    """Evidence is the same with and without records on which both versions are right or both are wrong."""
    all_of_them, some = start()[1], start()[1]
    for right, previous in records:
        all_of_them.add(positive, right, previous)
        if right != previous:
            some.add(positive, right, previous)
    assert (all_of_them.positives, all_of_them.negatives) == (some.positives, some.negatives)


def test_a_small_lead_in_both_classes_is_found_before_one_in_either() -> None:
    """The product of both classes reaches the threshold while neither class has reached it by itself."""
    duel = start()[1]
    while not duel.ahead:
        duel.add(True, WRONG, RIGHT)
        duel.add(False, WRONG, RIGHT)
    assert duel.better == []


def test_the_evidence_of_both_classes_stays_a_finite_number() -> None:
    """The product of two very large capitals is a number that JSON can hold."""
    duel = start()[1]
    for _ in range(3_000):
        duel.add(True, WRONG, RIGHT)
        duel.add(False, WRONG, RIGHT)
    assert msgspec.json.decode(msgspec.json.encode(duel), type=Shadow).evidence == duel.evidence < float("inf")
