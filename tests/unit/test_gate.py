"""The gate without services: its choice of the champion, promotions that are held for a person, and the reasons."""

from __future__ import annotations

import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab import card as cards
from lab import ledger, problem
from lab.card import Promise, recipe_sha256
from lab.errors import LabError
from tests import hostile
from tests.unit.results import CANCER, promise, recipe, result
from tests.unit.test_trainer import typed
from trainer import gate, hold, incumbent, promote, simulate
from trainer.recipe import check_card

# Ten pairs of folds each, the least that the test gives a verdict on.
GOOD = [0.90, 0.91, 0.90, 0.92, 0.90, 0.91, 0.93, 0.90, 0.92, 0.91]
BETTER = [0.96, 0.97, 0.965, 0.975, 0.96, 0.975, 0.985, 0.965, 0.98, 0.97]
NOISY = [0.85, 0.99, 0.86, 0.97, 0.84, 0.99, 0.86, 0.98, 0.85, 0.99]
CHOICE = problem.Choice(metric="roc_auc", floors={"roc_auc": 0.8})


def champion(scores: list[float], name: str = "old", fingerprint: str = "old", **changes) -> gate.Champion:
    promises = msgspec.convert({"roc_auc": promise(scores), "recall": promise(scores)}, dict[str, Promise])
    values = {"folds": {"roc_auc": scores, "recall": scores}, "promises": promises, "data_md5": "", **changes}
    return gate.Champion(recipe(name), fingerprint, **values)


@pytest.mark.parametrize(
    ("results", "present", "action", "name", "reason"),
    [
        ({"a": result("a", GOOD)}, None, "promoted", "a", "first champion"),
        ({"a": result("a", BETTER)}, champion(GOOD), "promoted", "a", "better than the champion"),
        ({"a": result("a", BETTER[:9])}, champion(GOOD[:9]), "rejected", "a", "not shown to be better"),
        ({"a": result("a", NOISY)}, champion(GOOD), "rejected", "a", "not shown to be better"),
        ({"a": result("a", GOOD)}, champion(GOOD, "a", "a"), "unchanged", "a", "same data"),
        ({"a": result("a", GOOD, "new")}, champion(GOOD, "a", "a"), "promoted", "a", "refitted"),
        (
            {"a": result("a", NOISY), "old": result("old", GOOD, "new")},
            champion(GOOD),
            "promoted",
            "old",
            "champion's recipe is refitted",
        ),
        ({"a": result("a", BETTER, refusal="no ONNX")}, None, "rejected", "a", "no ONNX"),
        ({"a": result("a", [0.5, 0.6] * 5)}, None, "rejected", "a", "does not reach the floor"),
        ({"a": result("a", [math.nan] * 10)}, None, "rejected", "a", "does not reach the floor"),
        ({"a": result("a", GOOD)}, champion([0.7] * 10), "promoted", "a", "champion does not reach its floors"),
        ({"a": result("a", NOISY)}, champion([0.75, 0.8] * 5), "promoted", "a", "champion does not reach its floors"),
    ],
)
def test_the_gate(results, present, action, name, reason):
    """The gate promotes a first or a better candidate, rejects another one, and gives the reason."""
    decision = gate.decide(results, present, CHOICE, folds=10)
    assert (decision.action, decision.candidate) == (action, name)
    assert reason in decision.reason


def test_a_lead_below_delta_is_no_reason():
    """A lead below `delta` does not promote a candidate, even if the lead is the same in nearly every fold."""
    slightly = [score + 0.001 + 1e-6 * i for i, score in enumerate(GOOD)]
    decision = gate.decide({"a": result("a", slightly)}, champion(GOOD), CHOICE, folds=10)
    assert decision.action == "rejected"
    assert decision.figures.p_value < 1e-6
    exact = msgspec.structs.replace(CHOICE, delta=0.0)
    assert gate.decide({"a": result("a", slightly)}, champion(GOOD), exact, folds=10).action == "promoted"


def test_alpha_is_shared_among_the_challengers():
    """With each further challenger, the same lead needs to be less likely by chance."""
    alphas = []
    for others in range(4):
        results = {"a": result("a", BETTER), **{f"b{i}": result(f"b{i}", GOOD) for i in range(others)}}
        alphas.append(gate.decide(results, champion(GOOD), CHOICE, folds=10).figures.alpha)
    assert alphas == pytest.approx([0.05, 0.025, 0.05 / 3, 0.0125])


def test_a_missed_floor_of_the_champion_in_office_is_reported():
    """The decision lists the floors that the champion in office misses, whether a candidate is promoted or not."""
    floors = msgspec.structs.replace(CHOICE, floors={"roc_auc": 0.95})
    decision = gate.decide({"a": result("a", GOOD)}, champion(GOOD), floors, folds=10)
    assert decision.action == "rejected"
    assert decision.missed_floors == ["roc_auc 0.9100 does not reach the floor 0.95"]


@pytest.mark.parametrize("scores", [GOOD, BETTER])
def test_a_promotion_on_changed_data_is_held_when_there_is_a_reason(scores):
    """With a reason the gate holds a promotion of any recipe on changed data, unless a person forces it."""
    name = "old" if scores is GOOD else "a"
    results = {name: result(name, scores, "new", data_md5="changed")}
    calls = []

    def holds(candidate):
        calls.append(candidate)
        return ["its labels look wrong"]

    decision = gate.decide(results, champion(GOOD), CHOICE, folds=10, holds=holds)
    assert (decision.action, decision.figures.holds, calls) == ("held", ["its labels look wrong"], [name])
    assert "its labels look wrong" in decision.reason
    forced = gate.decide(results, champion(GOOD), CHOICE, folds=10, holds=holds, accept=True)
    assert (forced.action, forced.figures.holds) == ("forced", ["its labels look wrong"])
    same = {name: result(name, scores, "new")}
    assert gate.decide(same, champion(GOOD), CHOICE, folds=10, holds=holds).action == "promoted"


def test_a_champion_that_cannot_be_compared_blocks_nothing():
    """When the champion cannot be compared, the best candidate is held for a person."""
    present = champion(GOOD, folds={}, promises={}, fault="it cannot be fitted any more")
    decision = gate.decide({"a": result("a", GOOD)}, present, CHOICE, folds=10)
    assert (decision.action, decision.figures.holds) == ("held", ["it cannot be fitted any more"])
    assert gate.decide({"a": result("a", GOOD)}, present, CHOICE, folds=10, accept=True).action == "forced"


def entries(*kinds: tuple[type, bool]) -> list[ledger.AnyEntry]:
    subject = ledger.Subject(candidate="a", fingerprint="a", recipe_sha256=recipe_sha256(recipe("a")), data_md5="d")
    common = {"by": "somebody", "model": "m", "reason": "it was bad", "subject": subject}
    return [kind(**common, **({"retry": retry} if kind is not ledger.RolledBack else {})) for kind, retry in kinds]


@pytest.mark.parametrize(
    ("history", "barred"),
    [
        ([(ledger.Promoted, False)], False),
        ([(ledger.Promoted, False), (ledger.RolledBack, False)], True),
        ([(ledger.RolledBack, False), (ledger.Promoted, True)], False),
        ([(ledger.RolledBack, False), (ledger.Promoted, True), (ledger.RolledBack, False)], True),
        ([(ledger.RolledBack, False), (ledger.Forced, True)], False),
    ],
)
def test_what_was_rolled_back_stays_rolled_back(history, barred):
    """A recipe that was rolled back on these data competes again only when a person allows it, or on other data."""
    results = {"a": result("a", GOOD, data_md5="d"), "b": result("b", GOOD, data_md5="d")}
    reasons = promote._rolled_back(entries(*history), results)
    assert set(reasons) == ({"a"} if barred else set())
    decision = gate.decide({"a": results["a"]}, None, CHOICE, folds=10, rolled_back=reasons)
    assert decision.action == ("rejected" if barred else "promoted")
    assert ("RETRY=1" in decision.reason) == barred
    assert not promote._rolled_back(entries(*history), {"a": result("a", GOOD, data_md5="other")})


# The rules of `trainer.hold`.


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 40))
def test_errors_on_new_rows_are_judged_by_the_binomial_distribution(errors, rows, failures):
    """The limits agree with the distributions of scipy."""
    errors = min(errors, rows)
    definition = Promise(value=0.5, low=0.0, high=1.0, method="counts", rows=700, failures=failures)
    limit = hold.upper_limit(definition)
    assert limit == pytest.approx(stats.binomtest(failures, 700, alternative="less").proportion_ci(0.95).high)
    assert hold.chance(errors, rows, limit) == pytest.approx(stats.binom.sf(errors - 1, rows, limit), abs=1e-9)


ROWS = [[1.0, 2.0], [-3.0, 0.5], [0.25, -4.0], [5.0, 5.0]] * 25
IDS = [f"row {i}" for i in range(100)]


def reasons_for(labels: np.ndarray, known: int, after: np.ndarray | None = None, threshold: float = 0.5) -> list[str]:
    """The reasons to hold a candidate trained on a hundred rows when the champion knew the first `known` of them."""
    values = hostile.card_values()
    definition = {"value": 0.97, "low": 0.9, "high": 1.0, "method": "counts", "rows": 100, "failures": 3}
    card = msgspec.convert({**values, "promises": {"accuracy": definition}}, cards.Card)
    before = np.array(hostile.expected(ROWS))
    present = hold.Rows(np.array(ROWS), labels)
    old = hold.Scored(IDS[:known], before[:known], 0.5)
    new = hold.Scored(IDS, before if after is None else after, threshold)
    return hold.reasons(card, hostile.SOUND, old, present, new)


def test_rows_like_those_before_are_no_reason():
    labels = (np.array(hostile.expected(ROWS)) >= 0.5).astype(int)
    assert 0 < labels.sum() < len(labels)
    assert reasons_for(labels, 60) == []


def test_wrong_labels_among_the_new_rows_are_noticed():
    labels = (np.array(hostile.expected(ROWS)) >= 0.5).astype(int)
    labels[60:76] ^= 1
    (reason,) = reasons_for(labels, 60)
    assert "errs on 16 of 40 new rows" in reason


def test_a_worse_candidate_is_noticed_on_the_rows_that_both_know():
    """A candidate with a threshold so low that too many rows are positive is held."""
    labels = (np.array(hostile.expected(ROWS)) >= 0.5).astype(int)
    (reason,) = reasons_for(labels, 100, threshold=0.0)
    assert reason.startswith("specificity on the rows that both know falls from 1.0000 to 0.0000")
    recall = reasons_for(labels, 100, after=np.zeros(100))
    assert recall[0].startswith("recall on the rows that both know falls from 1.0000 to 0.0000")


def test_data_without_a_shared_row_cannot_be_compared():
    labels = (np.array(hostile.expected(ROWS)) >= 0.5).astype(int)
    assert "shares no row" in reasons_for(labels, 0)[-1]


def test_an_id_that_occurs_twice_names_two_rows():
    """Rows are matched by their id and by the number of earlier rows with the same id."""
    assert hold._keys(["a", "b", "a"]) == [("a", 0), ("b", 0), ("a", 1)]


def test_wrong_labels_are_held_and_real_revisions_promoted():
    """A short form of `make simulate-gate`: one repeat of the cross-validation, and few runs."""
    definition = simulate.with_repeats(CANCER, 1)
    assert [(month, reasons) for month, reasons in simulate.real_revisions(definition) if reasons] == []
    groups = definition.source.groups
    for question, month in ((simulate.wrong_rows, groups[-1].month), (simulate.flipped_group, groups[-2].month)):
        trained = simulate.train(definition, *simulate.revision(definition, month))
        assert all(question(definition, trained, seed) for seed in range(2))


def test_a_champion_with_a_hostile_recipe_runs_nothing(tmp_path, capsys):
    """A champion whose card names other code is not compared, and that code is not called."""
    trace = tmp_path / "called"
    change = {"estimator": "subprocess.Popen", "settings": {"args": ["touch", str(trace)]}}
    values = hostile.card_values()
    files = hostile.package(hostile.SOUND, {**values, "recipe": {**values["recipe"], **change}})
    package = incumbent.Package(SimpleNamespace(number=3), cards.decode(files[0]), files[1])
    frame = typed(tmp_path, CANCER)
    present = incumbent.on_present_data({"DASK_SCHEDULER_ADDRESS": ""}, CANCER, package, {}, frame)
    assert "subprocess.Popen" in present.fault
    assert "subprocess.Popen" in capsys.readouterr().out
    assert not trace.exists()
    with pytest.raises(LabError):
        check_card(cards.decode(files[0]))
