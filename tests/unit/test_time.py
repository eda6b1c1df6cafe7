"""The evaluation forward in time: its folds, its thresholds, its cards, and the gate's rule about it."""

from __future__ import annotations

from functools import cache

import joblib
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import card as cards
from lab import problem, trial
from lab.errors import LabError
from tests.unit import mixed
from tests.unit.results import promise, recipe, result
from trainer import evaluate, forward, gate
from trainer.results import Paths, read_oof, read_results
from trainer.table import Table

PARAMS = """\
name: dated
title: Dated
source: {path: SOURCE, groups: {column: day, by: month}}
data: {until: ""}
id: who
target: {column: y, negative: {value: "no", label: "no"}, positive: {value: "yes", label: "yes"}}
features:
  a: {type: real, min: -9, max: 9}
  b: {type: category, levels: [red, green]}
candidates:
  logistic-regression:
    estimator: sklearn.linear_model.LogisticRegression
    grid: {C: [0.1, 10.0]}
evaluation: {split: time, folds: 3, repeats: 1, inner_folds: 2, group: who, seed: 1}
threshold: {recall: 0.8}
"""


def table(months: int = 9, each: int = 30) -> list[list[str]]:
    """The rows of some months in a random order: a, b, day, who, y. A sixth of the persons occur twice."""
    rng, rows = np.random.default_rng(2), []
    for number in range(months * each):
        a, colour = float(rng.normal()), int(rng.integers(2))
        y = rng.random() < 1 / (1 + np.exp(-2 * a - colour + 0.5))
        day = f"2025-{number // each + 1:02}-{number % 28 + 1:02}"
        rows.append(
            [f"{a:.3f}", ["red", "green"][colour], day, str(rng.integers(3 * months * each)), "yes" if y else "no"]
        )
    return [rows[place] for place in rng.permutation(len(rows))]


def text(rows: list[list[str]]) -> str:
    return "\n".join(",".join(row) for row in [["a", "b", "day", "who", "y"], *rows]) + "\n"


PROBLEM = problem.parse(PARAMS)


def made(months: list[int], y: list[int], groups: list[int] | None = None) -> Table:
    """A table with these months and classes; its feature follows the class with noise."""
    x = np.random.default_rng(0).normal(size=(len(y), 1)) + np.array(y)[:, None]
    return Table(
        np.column_stack([x, np.zeros(len(y))]),
        np.array(y),
        None if groups is None else np.array(groups),
        np.array(months),
    )


def shape(count: int, inner: int) -> problem.Problem:
    changed = msgspec.structs.replace(PROBLEM.evaluation, folds=count, inner_folds=inner)
    return msgspec.structs.replace(PROBLEM, evaluation=changed)


def check_splits(data: Table, pairs) -> None:
    """Each pair has training rows, all before the test rows and of other groups, and both classes in both parts."""
    for train, test in pairs:
        assert data.months[train].max() < data.months[test].min()
        assert {*data.y[train]} == {*data.y[test]} == {0, 1}
        if data.groups is not None:
            assert not set(data.groups[train]) & set(data.groups[test])


@given(
    months=st.lists(st.integers(1, 6), min_size=1, max_size=16),
    count=st.integers(3, 5),
    inner=st.integers(2, 3),
    persons=st.none() | st.integers(5, 300),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_every_test_row_is_later_than_every_training_row(months, count, inner, persons, seed):
    """For any months, a plan goes forward in time on both levels and splits no group, or it is one message."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(months)), np.array(months) * 2)
    y = rng.permuted(np.tile([0, 1], sum(months)))
    groups = None if persons is None else rng.integers(persons, size=len(y)).tolist()
    order = rng.permutation(len(y))
    data = made(owner[order].tolist(), y[order].tolist(), None if groups is None else groups)
    try:
        plan = forward.plan(shape(count, inner), data)
    except LabError as error:
        fault = error
    else:
        fault = None
    if fault:
        assert fault.remedy
        assert persons is not None or len(months) < count + inner + 1 or "both classes" in fault.message
        return
    check_splits(data, [(fold.train, fold.test) for fold in plan[:-1]])
    for fold in plan:
        check_splits(data, [(fold.train[before], fold.train[later]) for before, later in fold.inner])
        assert len(fold.inner) == inner
    tests = [sorted(set(data.months[fold.test])) for fold in plan[:-1]]
    assert [month for each in tests for month in each] == list(range(tests[0][0], len(months)))
    assert len({len(each) for each in tests}) == 1
    assert tests[0][0] >= len(tests[0])
    if groups is None:
        assert all(
            len(fold.train) == (data.months < each[0]).sum() for fold, each in zip(plan[:-1], tests, strict=True)
        )
    assert sorted(plan[-1].train) == list(range(len(y)))


@cache
def outcome(flipped: bool) -> evaluate.Evaluated:
    """An evaluation with four tests of two months; `flipped`: the classes of the last two months are turned."""
    rng = np.random.default_rng(4)
    months, y = np.repeat(np.arange(12), 20), rng.integers(2, size=240)
    x = np.column_stack([rng.normal(size=240) + y, np.zeros(240)])
    y = np.where(flipped & (months >= 10), 1 - y, y)
    with joblib.parallel_config("sequential"):
        definition = shape(4, 2)
        return evaluate.evaluate(definition, definition.candidates, Table(x, y, None, months))["logistic-regression"]


def test_thresholds_and_scores_come_from_the_past(capsys):
    """Other classes in the last months change no score of an earlier test, and the first test has no threshold."""
    plain, flipped = outcome(False), outcome(True)
    for metric in ("roc_auc", "log_loss"):
        assert len(plain.folds[metric]) == 4
        assert plain.folds[metric][:3] == flipped.folds[metric][:3]
        assert plain.folds[metric][3] != flipped.folds[metric][3]
    for metric in ("recall", "specificity", "f1"):
        assert len(plain.folds[metric]) == 3
        assert plain.folds[metric][:2] == flipped.folds[metric][:2]
    counts = plain.repeats[0]
    assert sum(msgspec.to_builtins(counts).values()) == 3 * 40, "the first test is not counted"


def test_the_first_months_have_no_probability():
    """A row of a month before the first test has NaN, and each later row has one probability."""
    known = ~np.isnan(outcome(False).oof)
    assert known.shape == (1, 240)
    assert known[0].tolist() == [month >= 4 for month in np.repeat(np.arange(12), 20)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training with dates in a column, in its folder."""
    folder = tmp_path_factory.mktemp("dated")
    return folder, mixed.run(folder, text(table()), PARAMS)


def test_a_training_forward_in_time_is_served(trained, tmp_path):
    """Its card is valid and says how many rows were tested, and the API predicts with its package."""
    folder, definition = trained
    trained_result = read_results(Paths(folder))["logistic-regression"]
    truth, oof = read_oof(Paths(folder).candidates / "logistic-regression")
    assert np.isnan(oof).sum() == 90, "three of nine months, because each of the three tests has two"
    assert trained_result.rows == len(truth) == 270
    card, model = mixed.package(folder, definition)
    card_text = cards.encode(card)
    trial.verify("dated", card_text, model)
    assert card.promises["roc_auc"].rows == 180
    assert card.promises["accuracy"].rows == 120
    assert card.score_reference.missing == pytest.approx(90 / 270)
    app = mixed.serve(tmp_path / "api", card_text, model, "dated")
    answer = app.test_client().post("/predict", json={"a": 0.5, "b": "red"})
    app.close()
    assert answer.status_code == 200


WRONG = {
    "too few months": (text(table(5)), PARAMS, "the dataset has 5 months, and .* 3 folds and 2 inner folds needs 6"),
    "one class in a test": (
        text([[*row[:4], "no" if row[2] > "2025-08" else row[4]] for row in table()]),
        PARAMS,
        r"not both classes of y in the 60 rows in the months of test 3",
    ),
    "one class before the first test": (
        text([[*row[:4], "no" if row[2] < "2025-04" else row[4]] for row in table()]),
        PARAMS,
        r"not both classes of y in the \d+ rows before the months of test 1",
    ),
    "one class in the grid search": (
        text([[*row[:4], "no" if row[2] < "2025-02" else row[4]] for row in table()]),
        PARAMS,
        r"not both classes of y in the \d+ rows of one part of the grid search",
    ),
    "two repeats": (text(table()), PARAMS.replace("repeats: 1", "repeats: 2"), "evaluation.repeats must be 1"),
    "two folds": (text(table()), PARAMS.replace("folds: 3, r", "folds: 2, r"), "evaluation.folds must be 3 or more"),
    "no groups": (
        text(table()),
        PARAMS.replace(", groups: {column: day, by: month}", ", unused: [day]"),
        "split: time needs the dated groups of source.groups",
    ),
    "by week": (text(table()), PARAMS.replace("by: month", "by: week"), r"'week' - at `\$.source.groups.by`"),
    "a date column that is absent": (text(table()), PARAMS.replace("column: day", "column: date"), "missing: 'date'"),
}


@pytest.mark.parametrize(("rows", "params", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_evaluated_forward_is_one_message(tmp_path, rows, params, message):
    """The message names the months or the key, and has a remedy."""
    with pytest.raises(LabError, match=message) as error:
        mixed.run(tmp_path, rows, params)
    assert error.value.remedy


def test_a_test_without_positives_of_others_before_it_has_no_threshold():
    """Test 2 has no threshold when the positive rows of test 1 belong to its own groups; the other tests have one."""
    months, y = np.repeat(np.arange(9), 20), np.tile([0, 1], 90)
    groups = np.where((y == 1) & ((months == 5) | (months == 6)), 0, np.arange(1, 181))
    data, definition = made(months.tolist(), y.tolist(), groups.tolist()), shape(4, 2)
    second = forward.plan(definition, data)[1]
    assert {*months[second.test]} == {6}
    assert not y[second.train][months[second.train] == 5].any()
    with joblib.parallel_config("sequential"):
        scores = evaluate.evaluate(definition, definition.candidates, data)["logistic-regression"]
    assert (len(scores.folds["roc_auc"]), len(scores.folds["recall"])) == (4, 2)


GOOD, BETTER = [0.90, 0.91, 0.90], [0.96, 0.97, 0.965]


def decided(name: str, scores: list[float], *, accept: bool = False, fingerprint: str = "new") -> gate.Decision:
    """The decision about a candidate over a champion with the recipe `old` and the scores GOOD."""
    promises = msgspec.convert({"roc_auc": promise(GOOD), "recall": promise(GOOD)}, dict[str, cards.Promise])
    champion = gate.Champion(recipe("old"), "old", "", {"roc_auc": GOOD, "recall": GOOD}, promises)
    choice = problem.Choice(metric="roc_auc", delta=0.01)
    return gate.decide({name: result(name, scores, fingerprint)}, champion, choice, 3, forward=True, accept=accept)


def test_a_leading_candidate_of_another_recipe_is_held():
    """Three tests allow no t-test, so that a person decides on a lead; without the lead of delta it is rejected."""
    decision = decided("new", BETTER)
    assert decision.action == "held"
    assert decision.figures.holds == ["3 tests forward in time are too few for the t-test"]
    assert decision.figures.p_value is None
    assert "required: a lead of 0.01" in decision.reason
    assert decided("new", BETTER, accept=True).action == "forced"
    assert decided("new", [score + 0.009 for score in GOOD], accept=True).action == "rejected"


def test_the_champions_recipe_is_refitted_without_a_person():
    """The same recipe on other data or code is promoted, and the same training changes nothing."""
    assert decided("old", GOOD).action == "promoted"
    assert decided("old", GOOD, fingerprint="old").action == "unchanged"
