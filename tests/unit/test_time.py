"""An evaluation forward in time trains on the past only, and leaves a change of recipe to a person."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import problem
from lab.card import Recipe
from lab.errors import LabError
from lab.problem import Choice
from lab.settings import ROOT, Settings
from tests.unit.results import result
from trainer import evaluate, folds, forward, gate, ingest
from trainer.results import Paths, read_results
from trainer.table import Table
from trainer.train import train

CANCER = problem.load(ROOT / "params.yaml")
PARAMS = """
name: mine
title: Mine
source:
  path: SOURCE
  groups: {column: day, by: month}
data: {until: ""}
id: ""
target:
  column: y
  negative: {value: "no", label: "no"}
  positive: {value: "yes", label: "yes"}
features:
  a: {type: real, min: 0, max: 100}
  b: {type: category, levels: [u, v]}
candidates:
  first: {estimator: sklearn.linear_model.LogisticRegression, grid: {C: [0.1, 1.0]}}
evaluation: {split: time, folds: 3, repeats: 1, inner_folds: 2}
threshold: {recall: 0.8}
choice: {floors: {}}
"""


def timed(inner: int = 2, count: int = 3, group: str = "") -> problem.Problem:
    """The lab's problem with an evaluation forward in time."""
    evaluation = msgspec.structs.replace(
        CANCER.evaluation, split="time", folds=count, repeats=1, inner_folds=inner, group=group
    )
    return msgspec.structs.replace(CANCER, evaluation=evaluation)


def rows(months: int, size: int = 30, seed: int = 0) -> Table:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(months * size, 9))
    y = (x[:, 0] + draw.normal(size=len(x)) > 0).astype(int)
    return Table(x, y, None, np.repeat(np.arange(months), size))


@given(
    sizes=st.lists(st.integers(4, 20), min_size=6, max_size=14),
    count=st.integers(3, 5),
    inner=st.integers(2, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_test_comes_after_its_training_and_shares_no_group_with_it(sizes, count, inner, seed):
    """For any months: tests are later than their training, disjoint and in order; groups are never on both sides."""
    months = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = np.zeros(len(months), int)
    for month in range(len(sizes)):
        y[np.flatnonzero(months == month)[::2]] = 1
    groups = np.random.default_rng(seed).integers(0, 5 * len(months), len(months))
    data = Table(np.zeros((len(months), 9)), y, groups, months)
    try:
        *outer, final = folds.plan(timed(inner, count), data)
    except LabError:
        assert len(sizes) < count + inner + 1 or len(set(groups)) < len(groups)
        return
    assert len(outer) == count
    assert len(final.train) == len(months)
    seen: set[int] = set()
    for fold in outer:
        assert months[fold.train].max() < months[fold.test].min()
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert not seen & set(fold.test)
        seen |= set(fold.test)
    for fold in (*outer, final):
        assert len(fold.inner) == inner
        for before, later in fold.inner:
            assert months[fold.train[before]].max() < months[fold.train[later]].min()
            assert not set(groups[fold.train[before]]) & set(groups[fold.train[later]])
    assert seen == set(np.flatnonzero(folds.tested(timed(inner, count), data)))


def test_the_future_changes_nothing_in_earlier_tests():
    """With other classes in the last months, the scores of earlier tests are the same, and the later ones differ."""
    definition, data = timed(), rows(9)
    candidates = {"one": CANCER.candidates["logistic-regression"]}
    before = evaluate.evaluate(definition, candidates, data)["one"]
    y = np.where(data.months >= 7, 1 - data.y, data.y)
    after = evaluate.evaluate(definition, candidates, Table(data.x, y, None, data.months))["one"]
    assert before.folds["roc_auc"][:2] == after.folds["roc_auc"][:2]
    assert before.folds["recall"][:1] == after.folds["recall"][:1]
    assert before.folds["roc_auc"][2] != after.folds["roc_auc"][2]
    assert (len(before.folds["roc_auc"]), len(before.folds["recall"])) == (3, 2), "the first test has no threshold"
    assert np.isnan(before.oof[0][data.months < 3]).all()
    assert np.isfinite(before.oof[0][data.months >= 3]).all()


def test_a_threshold_comes_from_earlier_tests_only():
    definition, data = timed(), rows(9)
    plan = forward.plan(definition, data)
    probability = np.full(len(data.y), np.nan)
    for fold in plan[:-1]:
        probability[fold.test] = np.random.default_rng(1).random(len(fold.test))
    assert evaluate._threshold(definition, data, probability, plan[0]) is None
    first = evaluate._threshold(definition, data, probability, plan[1])
    probability[plan[1].test] = probability[plan[2].test] = 0.5
    assert evaluate._threshold(definition, data, probability, plan[1]) == first


def table_in(folder, months: int = 9) -> problem.Problem:
    """A table with a date column and a category in `folder`, as a problem."""
    draw = np.random.default_rng(3)
    lines = ["a,b,day,y"]
    for row in range(40 * months):
        a, b = draw.uniform(0, 100), draw.choice(["u", "v"])
        y = "yes" if a + 20 * (b == "u") + draw.normal(0, 20) > 60 else "no"
        lines.append(f"{a:.1f},{b},2026-{1 + row // 40:02}-{1 + row % 28:02},{y}")
    (folder / "source.csv").write_text("\n".join(lines) + "\n")
    text = PARAMS.replace("SOURCE", str(folder / "source.csv"))
    (folder / "params.yaml").write_text(text)
    return problem.load(folder / "params.yaml")


def test_a_training_forward_in_time_can_be_served(tmp_path):
    """The stages write a sound package; its promises and the distribution of its score come from the tested rows."""
    definition, paths = table_in(tmp_path), Paths(tmp_path)
    ingest.write(*ingest.ingest(definition), paths.dataset)
    train(Settings(), definition, paths)
    first = read_results(paths)["first"]
    assert first.refusal == ""
    assert first.rows == 360
    tested = 240  # three tests of two months
    assert first.promises["roc_auc"].rows == tested
    assert first.promises["accuracy"].rows == tested - 80, "the first test has no threshold"
    assert first.score_reference.missing == pytest.approx(1 - tested / 360)
    assert first.feature_reference["b"].levels == ["u", "v"]


def test_until_selects_months_of_the_date_column(tmp_path):
    definition = table_in(tmp_path)
    data = msgspec.structs.replace(definition.data, until="2026-03")
    columns, some = ingest.ingest(msgspec.structs.replace(definition, data=data))
    assert len(some) == 120
    assert {row[columns.index("reported")] for row in some} == {"2026-01", "2026-02", "2026-03"}
    with pytest.raises(LabError, match="leaves no row: the first month is 2026-01"):
        ingest.ingest(msgspec.structs.replace(definition, data=problem.Data(until="2025-01")))


def test_a_cell_that_is_no_date_is_named(tmp_path):
    definition = table_in(tmp_path)
    path = tmp_path / "source.csv"
    lines = path.read_text().splitlines()
    lines[7] = lines[7].replace("2026-01", "2026-13")
    path.write_text("\n".join(lines))
    with pytest.raises(LabError, match=r"cells that are no date such as 2026-11-27: row 7, day: '2026-13-07'"):
        ingest.ingest(definition)
    form = msgspec.structs.replace(definition.source, groups=problem.DateColumn(column="day", format="%Y-%d-%m"))
    lines[7] = lines[7].replace("2026-13", "2026-01")
    path.write_text("\n".join(lines))
    with pytest.raises(LabError, match=r"no date of the form %Y-%d-%m: row 13, day: '2026-01-13'"):
        ingest.ingest(msgspec.structs.replace(definition, source=form))


FAULTS = {
    "repeats: 1": ("repeats: 2", "evaluation.repeats must be 1"),
    "folds: 3": ("folds: 2", "evaluation.folds must be 3 or more"),
    "  groups: {column: day, by: month}\n": ("  unused: [day]\n", "needs the dated groups"),
}


@pytest.mark.parametrize(("old", "new", "message"), [(old, *rest) for old, rest in FAULTS.items()])
def test_what_contradicts_an_evaluation_forward_in_time_is_named(old, new, message):
    with pytest.raises(LabError, match=message):
        problem.parse(PARAMS.replace(old, new))


def test_too_few_months_and_a_test_of_one_class_are_named():
    with pytest.raises(LabError, match=r"the dataset has 5 months, and .* needs 6"):
        folds.plan(timed(), rows(5))
    data = rows(9)
    y = np.where(data.months >= 7, 1, data.y)
    with pytest.raises(LabError, match="there are not both classes of class in the 60 rows in the months of test 3"):
        folds.plan(timed(), Table(data.x, y, None, data.months))


def champion(recipe: Recipe, scores: list[float]) -> gate.Champion:
    return gate.Champion(recipe, "other", "md5", {"roc_auc": scores}, {})


def test_a_change_of_recipe_is_held_for_a_person():
    """A candidate that leads by delta is held, is forced when accepted, and one without the lead is rejected."""
    better = result("new", [0.95, 0.96, 0.97])
    old = champion(Recipe(candidate="old", estimator="o", settings={}, grid={}, best={}), [0.90, 0.91, 0.92])
    choice = Choice(floors={})
    held = gate.decide({"new": better}, old, choice, 3, forward=True)
    assert (held.action, held.figures.p_value) == ("held", None)
    assert "3 tests forward in time are too few for the t-test" in held.reason
    assert gate.decide({"new": better}, old, choice, 3, forward=True, accept=True).action == "forced"
    close = champion(old.recipe, [0.9495, 0.9595, 0.9695])
    assert gate.decide({"new": better}, close, choice, 3, forward=True).action == "rejected"
    assert gate.decide({"new": better}, old, choice, 3).action == "rejected", "three folds show nothing"


def test_the_recipe_of_the_champion_is_refitted_without_a_person():
    again = result("same", [0.95, 0.96, 0.97])
    same = champion(again.recipe, [0.95, 0.96, 0.97])
    assert gate.decide({"same": again}, same, Choice(floors={}), 3, forward=True).action == "promoted"
