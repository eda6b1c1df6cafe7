"""The API serves only a package whose schema, hash and self-test are right."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api import model
from lab.errors import LabError
from tests.unit.conftest import X
from trainer.export import predict


def load(card_values: dict[str, Any], onnx: bytes) -> model.Model:
    return model.load("small", 1, msgspec.json.encode(card_values), onnx)


def test_a_sound_package_is_loaded(package):
    """The probabilities of a loaded package are those of the trainer."""
    served = load(*package)
    scores = served.probabilities(X.astype(np.float32))
    assert np.abs(np.array(scores) - predict(package[1], X)).max() < 1e-7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_sha256": "0" * 64}, "altered or cut short"),
        ({"schema_version": 99}, "schema version 99"),
        ({"self_test": {"rows": X[:1].tolist(), "probabilities": [0.123]}}, "fails its self-test"),
        ({"self_test": {"rows": [], "probabilities": []}}, "the self-test must have 1"),
        ({"self_test": {"rows": [[1.0]], "probabilities": [0.1]}}, "1 values for 2 features"),
        ({"threshold": "high"}, "not valid"),
    ],
)
def test_an_unsound_package_is_refused(package, change, message):
    """A package with a wrong hash, schema or reference row is refused."""
    card_values, onnx = package
    with pytest.raises(LabError, match=message):
        load({**card_values, **change}, onnx)


def test_a_model_that_is_no_onnx_is_refused(package):
    """A file that is not ONNX is refused, even with the right hash."""
    card_values, _ = package
    for rubbish in (b"", b"pickle"):
        with pytest.raises(LabError, match=r"not an ONNX file|not in the standard encoding"):
            load({**card_values, "model_sha256": hashlib.sha256(rubbish).hexdigest()}, rubbish)


def test_a_package_of_the_first_release_is_served():
    """A package that the trainer wrote on 26 November 2026 is served, byte for byte as it was."""
    folder = Path(__file__).parent / "schema-1"
    card, onnx = (folder / "card.json").read_bytes(), (folder / "model.onnx").read_bytes()
    served = model.load("breast-cancer-wisconsin", 1, card, onnx)
    assert served.label(served.probabilities(np.ones((1, 9), np.float32))[0]) == "benign"
