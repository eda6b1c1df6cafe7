"""The trainer without services: data, metrics, the gate, the export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from lab import card as cards
from lab import problem
from lab.errors import LabError
from lab.operators import inspect
from lab.settings import ROOT
from tests.unit.results import CANCER, result
from trainer import evaluate, folds, gate, ingest, metrics, validate
from trainer.export import RefusedError, export, predict
from trainer.model_card import make_card
from trainer.recipe import check_estimator
from trainer.results import Result
from trainer.table import table
from trainer.train import finish

SOURCE = (ROOT / CANCER.source.path).read_text()


def with_source(tmp_path: Path, text: str, **changes):
    """The worked example with another source file and without its hash."""
    path = tmp_path / "source.data"
    path.write_text(text)
    source = msgspec.structs.replace(CANCER.source, path=str(path), sha256="")
    return msgspec.structs.replace(CANCER, source=source, **changes)


def typed(tmp_path: Path, definition):
    ingest.write(*ingest.ingest(definition), tmp_path / "dataset.csv")
    return validate.validate(definition, validate.read(tmp_path / "dataset.csv"))


@pytest.mark.parametrize(("until", "rows"), [("1989-01", 367), ("1990-03", 468), ("1991-11", 699), ("", 699)])
def test_until_chooses_the_dated_groups(until, rows):
    """`data.until` gives the revision of the data at the end of that month."""
    definition = msgspec.structs.replace(CANCER, data=problem.Data(until=until))
    assert len(ingest.ingest(definition)[1]) == rows


def test_the_same_rows_are_the_same_bytes(tmp_path):
    """The hash of the dataset is known in advance."""
    ingest.write(*ingest.ingest(CANCER), tmp_path / "a.csv")
    ingest.write(*ingest.ingest(CANCER), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_report_has_the_figures_of_the_table(tmp_path):
    """There are 16 missing values, all in bare nuclei, and 645 distinct ids, and repeats are reported."""
    report = validate.report(CANCER, typed(tmp_path, CANCER))
    assert report["missing"].pop("bare_nuclei") == 16
    assert set(report["missing"].values()) == {0}
    assert (report["rows"], report["distinct_ids"], report["classes"]["malignant"]) == (699, 645, 241)


def test_an_altered_source_is_refused(tmp_path):
    """A changed byte is noticed by the hash."""
    definition = with_source(tmp_path, SOURCE.replace("1000025", "1000026", 1))
    definition = msgspec.structs.replace(
        definition, source=msgspec.structs.replace(definition.source, sha256=CANCER.source.sha256)
    )
    with pytest.raises(LabError, match="was altered"):
        ingest.ingest(definition)


def test_a_missing_source_is_one_message(tmp_path):
    """The message has the path and a remedy."""
    definition = with_source(tmp_path, "")
    Path(definition.source.path).unlink()
    with pytest.raises(LabError, match="cannot read the source"):
        ingest.ingest(definition)


@pytest.mark.parametrize("line", ["1,5,1,1,1,2,1,3,1,1", "1,5,1,1,1,2,1,3,1,1,2,2"])
def test_a_column_too_few_or_too_many_names_the_row(tmp_path, line):
    """The message names the row and its number of columns."""
    lines = SOURCE.splitlines()
    lines[4] = line
    with pytest.raises(LabError, match=rf"row 5 has {line.count(',') + 1}"):
        ingest.ingest(with_source(tmp_path, "\n".join(lines)))


def test_every_bad_value_is_listed(tmp_path):
    """One message lists values that are out of bounds, not numbers, not whole, missing or of an unknown class."""
    lines = SOURCE.splitlines()
    for row, line in {
        2: "1,11,1,1,1,2,1,3,1,1,2",
        3: "1,x,1,1,1,2,1,3,1,1,2",
        4: "1,1.5,1,1,1,2,1,3,1,1,2",
        5: "1,?,1,1,1,2,1,3,1,1,2",
        6: "1,1,1,1,1,2,1,3,1,1,3",
    }.items():
        lines[row - 1] = line
    with pytest.raises(LabError) as error:
        typed(tmp_path, with_source(tmp_path, "\n".join(lines)))
    for row in range(2, 7):
        assert f"row {row}, " in error.value.message
    assert "5 fault(s)" in error.value.message


def test_no_group_and_no_class_is_split_off(tmp_path):
    """Outer and inner folds hold whole samples and both classes, and each repeat tests every row once."""
    data = table(CANCER, typed(tmp_path, CANCER))
    outer_folds = folds.plan(CANCER, data)
    assert len(outer_folds) == 10 * CANCER.evaluation.repeats + 1
    assert len(outer_folds[-1].train) == 699
    for repeat in range(3):
        tested = np.concatenate([fold.test for fold in outer_folds if fold.repeat == repeat])
        assert sorted(tested) == list(range(699))
    for fold in outer_folds[:-1]:
        assert not set(data.groups[fold.train]) & set(data.groups[fold.test])
        for inner_train, inner_test in fold.inner:
            groups = data.groups[fold.train]
            assert not set(groups[inner_train]) & set(groups[inner_test])
            assert len(inner_train) + len(inner_test) == len(fold.train)
            assert len(set(data.y[fold.train][inner_test])) == 2


def test_a_model_onnx_cannot_follow_is_refused():
    """Neighbours weighted by distance are refused with a reason, because ONNX gives other probabilities."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4, (80, 3)).astype(float)
    y = rng.integers(0, 2, 80)
    model = make_pipeline(SimpleImputer(), KNeighborsClassifier(5, weights="distance")).fit(x, y)
    with pytest.raises(RefusedError, match="disagree"):
        export(model, x, 0.5, "weighted")


def test_the_export_is_faithful_and_repeatable(tmp_path):
    """The probabilities agree within 1e-5 on every row, also with missing values; the bytes are always the same."""
    data = table(CANCER, typed(tmp_path, CANCER))
    trees = [f"sklearn.ensemble.{kind}Classifier" for kind in ("RandomForest", "ExtraTrees", "GradientBoosting")]
    trees.append("sklearn.tree.DecisionTreeClassifier")
    candidates = {**CANCER.candidates, **{name: problem.Candidate(estimator=name) for name in trees}}
    for name, candidate in candidates.items():
        model = evaluate.build(CANCER, name, candidate).fit(data.x, data.y)
        onnx = export(model, data.x, 0.3, "model")
        assert np.abs(predict(onnx, data.x) - model.predict_proba(data.x)[:, 1]).max() <= 1e-5
        assert onnx == export(model, data.x, 0.3, "model")
        assert sum(predict(onnx, data.x) >= 0.5) > 200


# By class, the settings that make other operators of it.
KINDS = {
    "sklearn.linear_model.LogisticRegression": [{}],
    "sklearn.linear_model.SGDClassifier": [{"loss": "log_loss"}, {"loss": "modified_huber"}],
    "sklearn.neighbors.KNeighborsClassifier": [{}, {"weights": "distance"}],
    "sklearn.svm.SVC": [{"kernel": kernel, "probability": True} for kernel in ("rbf", "linear", "poly", "sigmoid")],
    "sklearn.svm.NuSVC": [{"probability": True}],
    "sklearn.neural_network.MLPClassifier": [{"activation": a, "max_iter": 20} for a in ("tanh", "relu", "logistic")],
    "sklearn.naive_bayes.GaussianNB": [{}],
    "sklearn.naive_bayes.BernoulliNB": [{}],
    "sklearn.tree.DecisionTreeClassifier": [{}, {"max_leaf_nodes": 9}],
    "sklearn.tree.ExtraTreeClassifier": [{}],
    "sklearn.ensemble.RandomForestClassifier": [{"n_estimators": 9}],
    "sklearn.ensemble.ExtraTreesClassifier": [{"n_estimators": 9}],
    "sklearn.ensemble.GradientBoostingClassifier": [{"n_estimators": 9}, {"n_estimators": 9, "init": "zero"}],
    "sklearn.ensemble.AdaBoostClassifier": [{"n_estimators": 9}],
    "sklearn.ensemble.BaggingClassifier": [{}, {"max_features": 0.6}],
    "sklearn.calibration.CalibratedClassifierCV": [{}, {"method": "isotonic"}, {"ensemble": False}],
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": [{}],
    "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis": [{}],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "changes"), [(kind, each) for kind, some in KINDS.items() for each in some])
def test_what_can_be_exported_can_be_served(tmp_path, monkeypatch, estimator, changes):
    """The API accepts the operators of every scikit-learn classifier with any settings."""
    monkeypatch.setattr("trainer.export._check", lambda *_: None)  # fidelity is another test's
    data = table(CANCER, typed(tmp_path, CANCER))
    model = evaluate.build(CANCER, "x", problem.Candidate(estimator=estimator, settings=changes)).fit(data.x, data.y)
    inspect(export(model, data.x, 0.5, "model"))


def finished(tmp_path: Path, definition: problem.Problem, **changes) -> tuple[Result, bytes]:
    """The result of training a logistic regression."""
    data = table(definition, typed(tmp_path, CANCER))
    candidate = problem.Candidate(estimator="sklearn.linear_model.LogisticRegression", settings=changes)
    model = evaluate.build(definition, "x", candidate).fit(data.x, data.y)
    oof = model.predict_proba(data.x)[None, :, 1]
    repeats = [metrics.counts_at(data.y, oof[0], 0.5)]
    outcome = evaluate.Evaluated({"roc_auc": [1.0, 0.9]}, repeats, oof, model, {})
    return finish(definition, "x", candidate, outcome, data, "")


def test_what_the_api_would_refuse_is_refused_when_it_is_trained(tmp_path):
    """The training applies the API's own check, with its reason, and the gate does not promote a refused candidate."""
    result, model = finished(tmp_path, CANCER)
    assert (result.refusal, bool(model)) == ("", True)
    wide = msgspec.structs.replace(CANCER.features["mitoses"], type="real", max=1e300)
    definition = msgspec.structs.replace(CANCER, features={**CANCER.features, "mitoses": wide})
    result, model = finished(tmp_path, definition)
    assert "the API would not serve it" in result.refusal
    assert "bounds of mitoses" in result.refusal
    assert model == b""
    assert gate.decide({"x": result}, None, problem.Choice(), folds=2).action == "rejected"


def test_the_export_has_the_same_bytes_in_every_process():
    """The bytes are the same in processes in which Python orders sets differently."""
    program = """
import hashlib, numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from trainer.export import export
x = np.arange(40.0).reshape(20, 2)
print(hashlib.sha256(export(make_pipeline(KNeighborsClassifier(3)).fit(x, x[:, 0] > 17), x, 0.5, "n")).hexdigest())
"""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            timeout=300,
        ).stdout
        for seed in range(4)
    }
    assert len(hashes) == 1


def test_a_bad_candidate_is_named():
    """The error names an estimator that does not exist, gives no probabilities, or lacks a parameter."""
    for candidate, message in [
        (problem.Candidate(estimator="sklearn.linear_model.Nothing"), "cannot make"),
        (problem.Candidate(estimator="sklearn.svm.LinearSVC"), "no probabilities"),
        (problem.Candidate(estimator="sklearn.linear_model.LogisticRegression", grid={"D": [1]}), "has no D"),
    ]:
        with pytest.raises(LabError, match=message):
            evaluate.build(CANCER, "mine", candidate)


def test_the_card_keeps_the_order_of_the_models_inputs():
    """The order in the card holds also when params.yaml lists its features in another order later."""
    turned = msgspec.structs.replace(CANCER, features=dict(reversed(CANCER.features.items())))
    text = cards.encode(make_card(turned, result("a", [1.0, 1.0]), "run", "commit", False))
    card_values = msgspec.json.decode(text)
    assert [feature["name"] for feature in card_values["features"]] == list(CANCER.features)
    assert list(card_values["params"]["features"]) == list(turned.features)


@pytest.mark.parametrize(
    "path",
    ["subprocess.Popen", "os.system", "builtins.eval", "sklearn.utils.os.system", "sklearn.pipeline.Pipeline", "x", ""],
)
def test_a_card_cannot_name_other_code(path):
    """Only a known classifier is fitted again, also in another one, and no other code is imported."""
    check_estimator("sklearn.linear_model.LogisticRegression", {}, {})
    for settings in ({}, {"estimator": {"estimator": "sklearn.svm.LinearSVC"}}):
        with pytest.raises(LabError, match="not a classifier"):
            check_estimator(path, settings, {})
    inner = {"estimator": path, "settings": {}}
    for settings in ({"estimator": inner}, {"estimators": {"a": {"estimator": "x.Y", "settings": {"b": inner}}}}):
        with pytest.raises(LabError, match="not a classifier"):
            check_estimator("sklearn.ensemble.BaggingClassifier", settings, {})


def test_a_card_cannot_give_lightgbm_a_file_or_a_host():
    """A card with a parameter that is not a named one, or with two parameters in one text, is not fitted again."""
    light = "lightgbm.LGBMClassifier"
    check_estimator(light, {"n_estimators": 5, "objective": "binary", "max_bin": 63}, {"num_leaves": [7, 15]})
    check_estimator("xgboost.XGBClassifier", {"objective": "binary:logistic"}, {"max_depth": [2, 3]})
    nested = {"estimator": {"estimator": light, "settings": {"machines": "a:1"}}}
    for path, settings, grid in [
        (light, {"machines": "a:1"}, {}),
        (light, {"objective": "binary forcedsplits_filename=x"}, {}),
        (light, {}, {"objective": ["binary\nmachines=a:1"]}),
        ("sklearn.calibration.CalibratedClassifierCV", nested, {}),
        ("xgboost.XGBClassifier", {"process_type": "update"}, {}),
    ]:
        with pytest.raises(LabError, match="may not be safe"):
            check_estimator(path, settings, grid)
