"""What the API serves: only a package whose schema, hash and self-test hold."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from api import codec, model
from lab import card
from lab.errors import LabError
from trainer.export import export, predict

X = np.random.default_rng(3).normal(size=(40, 2))


@pytest.fixture(scope="module")
def package() -> tuple[dict[str, Any], bytes]:
    """A small model and its card as JSON values."""
    fitted = make_pipeline(LogisticRegression()).fit(X, X[:, 0] > 0)
    onnx = export(fitted, X, 0.5, "small")
    spread, bins = {"mean": 1.0, "sd": 0.0}, {"edges": [0.0, 1.0], "shares": [1.0], "missing": 0.0}
    feature = {"label": "x", "type": "real", "min": -9.0, "max": 9.0, "nullable": False}
    described = {
        "schema_version": card.SCHEMA_VERSION,
        "problem": "small",
        "title": "Small",
        "features": [{"name": "a", **feature}, {"name": "b", **feature, "nullable": True}],
        "classes": {"negative": "no", "positive": "yes"},
        "threshold": 0.5,
        "metrics": {"roc_auc": spread},
        "operating": {"threshold": 0.5, "recall": 1.0, "precision": 1.0, "specificity": 1.0},
        "feature_reference": {"a": bins, "b": bins},
        "score_reference": bins,
        "self_test": {"rows": X[:4].tolist(), "probabilities": predict(onnx, X[:4]).tolist()},
        "recipe": {"candidate": "c", "estimator": "e", "settings": {}, "grid": {}, "best": {}},
        "lineage": {
            **dict.fromkeys(("git_commit", "data_md5", "params_sha256", "code_sha256", "fingerprint", "run_id"), ""),
            "git_dirty": False,
            "packages": {},
        },
        "params": {},
        "model_sha256": hashlib.sha256(onnx).hexdigest(),
    }
    return described, onnx


def load(described: dict[str, Any], onnx: bytes) -> model.Model:
    return model.load(1, msgspec.json.encode(described), onnx)


def test_a_sound_package_is_loaded(package):
    """Its probabilities are those of the trainer."""
    loaded = load(*package)
    given = loaded.probabilities(X.astype(np.float32))
    assert np.abs(given - predict(package[1], X)).max() < 1e-7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": "0" * 64}, "altered or cut short"),
        ({"schema_version": 99}, "schema version 99"),
        ({"self_test": {"rows": X[:1].tolist(), "probabilities": [0.123]}}, "fails its self-test"),
        ({"self_test": {"rows": [], "probabilities": []}}, "no usable self-test"),
        ({"self_test": {"rows": [[1.0]], "probabilities": [0.1]}}, "does not run"),
        ({"threshold": "high"}, "not valid"),
    ],
)
def test_an_unsound_package_is_refused(package, change, said):
    """The hash, the schema and the reference rows are each held."""
    described, onnx = package
    with pytest.raises(LabError, match=said):
        load({**described, **change}, onnx)


def test_a_model_that_is_no_onnx_is_refused(package):
    """Even with the right hash."""
    described, _ = package
    for rubbish in (b"", b"pickle"):
        with pytest.raises(LabError, match="does not run"):
            load({**described, "model_sha256": hashlib.sha256(rubbish).hexdigest()}, rubbish)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1e999}', b'{"a": NaN}', b'{"a": true}', b'{"a": 1, "c": 2}'],
)
def test_what_is_no_record_is_refused(package, body):
    """Whatever the bytes, the answer is a refusal that can be read."""
    features = load(*package).card.features
    with pytest.raises(codec.InvalidError):
        codec.read_record(features, body)


def test_a_missing_value_is_taken_where_the_card_allows(package):
    """Absent and null are the same."""
    features = load(*package).card.features
    for body in (b'{"a": 1}', b'{"a": 1, "b": null}'):
        row = codec.read_record(features, body)
        assert row[0, 0] == 1
        assert np.isnan(row[0, 1])
