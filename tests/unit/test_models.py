"""The estimators that params.yaml can name: how they are made, and which of them can be converted and served."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from lab.errors import LabError
from lab.operators import inspect
from lab.settings import ROOT
from tests import models
from tests.models import BOOSTED, HIST, LIGHT, LOGISTIC, TREE, XGB, declaration, table, tried
from trainer.converters import CONVERTED, round_down
from trainer.encoding import Imputer
from trainer.estimators import declared, make_estimator, pipeline
from trainer.export import export

STACKING, VOTING = "sklearn.ensemble.StackingClassifier", "sklearn.ensemble.VotingClassifier"


def test_the_classifiers_that_are_converted_are_those_that_a_refusal_names():
    """Each classifier is converted and served, or is refused, as docs/models.md and the constant say."""
    rows = [tried(*each) for each in models.classifiers()]
    assert {row.name: row.verdict for row in rows} == models.written(0)
    assert sorted((row.name for row in rows if row.verdict == "yes"), key=str.lower) == sorted(CONVERTED, key=str.lower)
    for row in rows:
        assert row.verdict != "no" or f"These can be converted: {', '.join(CONVERTED)}" in row.reason


def test_other_settings_are_converted_as_the_document_says():
    """Estimators in others, and settings that change the model, are converted or refused as docs/models.md says."""
    assert {each[0]: tried(*each).verdict for each in models.FURTHER} == models.written(1)


@given(st.floats(-(2.0**99), 2.0**99), st.floats(-(2.0**99), 2.0**99, width=32))
def test_a_rounded_threshold_decides_as_the_threshold(threshold, value):
    """For each float32, the comparison with the rounded threshold is the comparison with the threshold."""
    rounded = float(round_down(threshold))
    assert float(np.float32(rounded)) == rounded
    near = np.float32(threshold)
    for each in (value, near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
        assert (float(each) <= threshold) == (float(each) <= rounded)


def grid(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values in equal steps, so that many splits lie on a value, and steps near the resolution of float32."""
    rng, rows = np.random.default_rng(seed), 400 if seed % 2 else 1500
    columns = [rng.integers(0, 50, rows) / 10, rng.normal(size=rows).round(2), rng.integers(0, 99, rows) * 0.1 - 3]
    x = np.column_stack([*columns, 1e6 + rng.integers(0, 9999, rows) / 10])
    y = (x[:, 0] / 3 + x[:, 1] + rng.normal(size=rows) > 1).astype(np.int64)
    x[rng.random(x.shape) < 0.04] = np.nan
    return x.astype(np.float32).astype(np.float64), y


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("path", [LIGHT, XGB, HIST, "sklearn.ensemble.RandomForestClassifier"])
def test_rows_on_a_split_take_the_same_branch(path, seed):
    """The conversion agrees on every row of a table in equal steps, with the imputer and, where it can, without it."""
    x, y = grid(seed)
    kinds = [pipeline(make_estimator(path, {}, 0))]
    if path == HIST:
        kinds.append(Pipeline([("model", make_estimator(path, {}, 0))]))
    with threadpool_limits(1):
        for model in kinds:
            inspect(export(model.fit(x, y), x, 0.5, "model"))


def test_trees_next_to_scaled_estimators_see_the_features_as_they_are():
    """In an ensemble of both, each estimator that is no tree has its own scaler, also in an inner ensemble."""
    voting = declaration(VOTING, voting="soft", estimators={"logistic": LOGISTIC, "xgb": BOOSTED["xgb"]})
    model = pipeline(make_estimator(STACKING, {"estimators": {"tree": TREE, "logistic": LOGISTIC, "vote": voting}}, 0))
    assert list(model.named_steps) == ["impute", "model"]
    parameters = model.get_params()
    assert type(parameters["model__tree"]).__name__ == "DecisionTreeClassifier"
    assert list(parameters["model__logistic"].named_steps) == ["scale", "model"]
    assert list(parameters["model__vote__logistic"].named_steps) == ["scale", "model"]
    assert type(parameters["model__vote__xgb"]).__name__ == "XGBClassifier"
    assert "model__vote__logistic__model__C" in parameters
    for path, first in [
        (LIGHT, "model"),
        ("sklearn.ensemble.BaggingClassifier", "model"),
        (LOGISTIC["estimator"], "scale"),
    ]:
        assert list(pipeline(make_estimator(path, {}, 0)).named_steps)[1] == first
    x, y = table()
    with threadpool_limits(1):
        export(model.fit(x, y), x, 0.5, "model")


def test_the_seed_reaches_every_estimator():
    """`random_state` is the seed unless the settings give it; LightGBM and XGBoost run in one thread."""
    members = {**BOOSTED, "mine": declaration(TREE["estimator"], random_state=1)}
    made = make_estimator(STACKING, {"estimators": members, "final_estimator": TREE}, 7)
    parameters = made.get_params()
    assert {parameters[f"{name}__random_state"] for name in (*BOOSTED, "final_estimator")} == {7}
    assert parameters["mine__random_state"] == 1
    assert (parameters["light__n_jobs"], parameters["xgb__n_jobs"], parameters["light__verbosity"]) == (1, 1, -1)
    assert make_estimator(LIGHT, {"n_jobs": 2}, 0).n_jobs == 2
    assert [path for path, _ in declared(STACKING, {"estimators": members, "final_estimator": TREE})] == [
        STACKING,
        *(each["estimator"] for each in members.values()),
        TREE["estimator"],
    ]


def test_two_fits_of_boosted_trees_are_the_same():
    """A second training gives the same bytes."""
    x, y = table()
    for path in (LIGHT, XGB, HIST):
        with threadpool_limits(1):
            first, second = (export(pipeline(make_estimator(path, {}, 3)).fit(x, y), x, 0.5, "m") for _ in range(2))
        assert first == second


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("sklearn.svm.LinearSVC", {}, "LinearSVC gives no probabilities"),
        (VOTING, {"estimators": {"a": LOGISTIC}}, "gives no probabilities\n.*voting: soft"),
        (
            STACKING,
            {"estimators": {"a": LOGISTIC}, "final_estimator": {"estimator": "sklearn.svm.LinearSVC"}},
            "gives no",
        ),
        (VOTING, {"estimators": {"a": declaration("x.Y")}}, r"settings.estimators: settings.a: cannot make x.Y"),
        (VOTING, {"estimators": {"a": declaration(LOGISTIC["estimator"], D=1)}}, "cannot make .*LogisticRegression.*D"),
        (
            "sklearn.ensemble.BaggingClassifier",
            {"estimator": {"estimator": "os.getcwd"}},
            "settings.estimator: .* not an",
        ),
    ],
)
def test_what_cannot_be_made_is_named(path, settings, message):
    """The message names the estimator, and its place where it is in another one."""
    with pytest.raises(LabError, match=message):
        make_estimator(path, settings, 0)


def test_the_imputer_gives_what_onnx_computes_with():
    """The median of the other values is rounded to float32, also by a clone."""
    x = np.array([[0.1], [0.4], [np.nan]])
    for imputer in (Imputer(), clone(Imputer())):
        filled = imputer.fit_transform(x)[2, 0]
        assert filled == np.float32(0.25)
    assert Imputer().fit(x / 3).statistics_ == np.float32(0.25 / 3)


def test_a_training_without_boosted_trees_does_not_import_their_packages():
    """LightGBM and XGBoost are imported only for their own estimators."""
    program = """
import sys, numpy as np
from sklearn.linear_model import LogisticRegression
from trainer.estimators import pipeline
from trainer.export import export
x = np.arange(40.0).reshape(20, 2)
export(pipeline(LogisticRegression()).fit(x, x[:, 0] > 17), x, 0.5, "n")
print([name for name in ("lightgbm", "xgboost", "onnxmltools") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.stdout == "[]\n", process.stderr
