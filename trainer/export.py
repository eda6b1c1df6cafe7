"""Convert a fitted pipeline to ONNX, and compare it with scikit-learn on every row."""

from __future__ import annotations

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from lab import package
from lab.card import TOLERANCE
from trainer.converters import CONVERTED, register
from trainer.metrics import Floats

# The number of records, with each value at a bound, that are tried.
CORNERS = 256


class RefusedError(Exception):
    """The model cannot be served as ONNX; the message says why."""


def export(model: Pipeline, x: Floats, threshold: float, name: str) -> bytes:
    """The model as ONNX: input `features` (rows, features) float32, NaN for missing.

    Raises RefusedError when it cannot be converted, or when on any row of `x` its label differs from scikit-learn's
    or a probability by more than TOLERANCE.
    """
    try:
        data = _convert(model, x.shape[1], name)
        probability = predict(data, x)
    except Exception as error:  # converters and the runtime may raise any exception
        reason = f"{error}".partition("\n")[0].removesuffix(".")
        raise RefusedError(
            f"no ONNX for {type(model.steps[-1][1]).__name__}: {reason}. These can be converted: {', '.join(CONVERTED)}"
        ) from error
    _check(probability, model.predict_proba(x)[:, 1], threshold)
    return data


def _convert(model: Pipeline, features: int, name: str) -> bytes:
    estimator = model.steps[-1][1]
    register(estimator)
    # k-nearest neighbours take 15 µs a row with this option and 820 µs without, also in another estimator.
    options: dict[object, dict[str, bool | str]] = {KNeighborsClassifier: {"optim": "cdist"}}
    options[id(estimator)] = {"zipmap": False, **options.get(type(estimator), {})}
    converted = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, features]))],
        options=options,
        name=name,  # the default name is random, and equal models would then differ in their bytes
    )
    # Sorted, because the converter gives them in the order of a set, which differs between processes.
    converted.opset_import.sort(key=lambda opset: opset.domain)
    # ONNX Runtime prints a warning for each constant that no operator reads.
    graph = converted.graph
    read = {name for node in graph.node for name in node.input}
    for constant in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(constant)
    return bytes(converted.SerializeToString(deterministic=True))


def predict(model: bytes, x: Floats) -> Floats:
    """The positive class's probability for each row of `x`, shape (rows,), by ONNX Runtime."""
    return np.array(package.score(package.open_session(model), x.astype(np.float32)))


def check_bounds(model: bytes, low: Floats, high: Floats) -> None:
    """Raise RefusedError unless records at the bounds get a probability, because float32 may overflow at the bounds.

    `low` and `high` have shape (features,).
    """
    corners = np.random.default_rng(0).integers(0, 2, (CORNERS, len(low))).astype(bool)
    corners[0], corners[1] = False, True
    try:
        predict(model, np.where(corners, high, low))
    except package.ModelError as error:
        raise RefusedError(
            "the model gives no probability for some records at the bounds of params.yaml: they overflow float32; "
            "state the least and the greatest value that can really occur"
        ) from error


def _check(onnx: Floats, sklearn: Floats, threshold: float) -> None:
    far = np.flatnonzero(~(np.abs(onnx - sklearn) <= TOLERANCE))
    flipped = np.flatnonzero((onnx >= threshold) != (sklearn >= threshold))
    if len(far) or len(flipped):
        worst = int(np.argmax(np.abs(onnx - sklearn)))
        raise RefusedError(
            f"ONNX and scikit-learn disagree: {len(far)} of {len(onnx)} probabilities by more than {TOLERANCE:g}, "
            f"{len(flipped)} labels; worst in row {worst + 1} of the dataset, "
            f"{onnx[worst]:.6f} against {sklearn[worst]:.6f}"
        )
