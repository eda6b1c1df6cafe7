"""A small model, its package, and the API that serves it without a registry."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from api import create_app
from lab import card
from trainer.export import export, predict

X = np.random.default_rng(3).normal(size=(40, 2))
Package = tuple[dict[str, Any], bytes]


@pytest.fixture(scope="session")
def package() -> Package:
    """A small model and its card as JSON values: `a` is a whole number from -9 to 9, `b` a real one that may be
    missing.
    """
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, X[:, 0] > 0)
    onnx = export(pipeline, X, 0.5, "small")
    mean, bins = {"mean": 1.0, "sd": 0.0}, {"edges": [0.0, 1.0], "shares": [1.0], "missing": 0.0, "counts": [100]}
    promise = {"value": 0.97, "low": 0.91, "high": 0.99, "method": "counts", "rows": 100, "failures": 3}
    feature = {"label": "x", "min": -9.0, "max": 9.0}
    card_values = {
        "schema_version": card.SCHEMA_VERSION,
        "problem": "small",
        "title": "Small",
        "features": [
            {"name": "a", "type": "integer", "nullable": False, **feature},
            {"name": "b", "type": "real", "nullable": True, **feature},
        ],
        "classes": {"negative": "no", "positive": "yes"},
        "threshold": 0.5,
        "metrics": {"roc_auc": mean},
        "rows": 100,
        "prevalence": 0.5,
        "promises": {"accuracy": promise},
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
    return card_values, onnx


@pytest.fixture
def settings(tmp_path, package) -> dict[str, str]:
    """The configuration of an API whose registry is away, and whose stored model is `package`."""
    card_values, onnx = package
    content = {"version": 7, "card": msgspec.json.encode(card_values), "model": onnx}
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "small.msgpack").write_bytes(msgspec.msgpack.encode(content))
    return {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MODEL_NAME": "small",
        "EVENTS_DIR": str(tmp_path / "events"),
        "KEEP_DIR": str(tmp_path / "keep"),
        "METRICS_DIR": str(tmp_path / "metrics"),
        "FOLLOW_SECONDS": "3600",
    }


@pytest.fixture
def app(settings):
    app = create_app(settings)
    yield app
    app.close()


@pytest.fixture
def client(app):
    return app.test_client()
