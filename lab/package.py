"""Load a model package, compute probabilities with it, and check it against its card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lab import card as cards
from lab.errors import LabError
from lab.record import Value, to_input

# A larger batch is scored in parts of this size, so that it needs no more memory than one part.
PART_ROWS = 500
_REMEDY = "promote another version"


class ModelError(LabError):
    """The model failed, or did not give a probability for each row."""


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model. Raises the exceptions of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    # One row is far too little work for several threads.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Without this ONNX Runtime detects the format, and could read a file that was checked as ONNX in another format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def score(session: onnxruntime.InferenceSession, rows: NDArray[np.float32]) -> list[float]:
    """The positive class's probability for each of `rows`, shape (n, features), NaN for missing.

    Raises ModelError unless the model gives n probabilities from 0 to 1. A value that is outside by no more than
    float32's rounding error is clipped.
    """
    if len(rows) <= PART_ROWS:
        return _score(session, rows)
    scores: list[float] = []
    for start in range(0, len(rows), PART_ROWS):
        scores += _score(session, rows[start : start + PART_ROWS])
    return scores


def _score(session: onnxruntime.InferenceSession, rows: NDArray[np.float32]) -> list[float]:
    try:
        scores = session.run(["probabilities"], {"features": rows})[0]
    except Exception as error:  # the runtime raises its own kinds, not all of them documented
        raise ModelError(f"the model fails: {error}"[:500], _REMEDY) from error
    if scores.shape != (len(rows), 2):
        raise ModelError(f"the model answers {len(rows)} rows with the shape {scores.shape}", _REMEDY)
    values: list[float] = scores[:, 1].tolist()
    for probability in values:
        if not 0.0 <= probability <= 1.0:
            return [_cut(each) for each in values]
    return values


def _cut(probability: float) -> float:
    if not -cards.TOLERANCE <= probability <= 1 + cards.TOLERANCE:
        raise ModelError(f"the model gives {probability} as a probability", _REMEDY)
    return min(max(probability, 0.0), 1.0)


def check_self_test(session: onnxruntime.InferenceSession, card: cards.Card) -> None:
    """Raise LabError unless the model gives the probabilities in the card for the rows in the card."""
    _check_scores(session, rows_of(card, card.self_test.rows), card.self_test.probabilities)


def check(card: cards.Card, model: bytes) -> None:
    """Raise LabError unless the API can serve the model and the model gives the probabilities in its card.

    This loads and runs the model, which may take any time and memory: `lab.trial` sets limits.
    """
    from lab.operators import inspect  # imported here, because the import takes memory and only the trial needs it

    inspect(model)
    try:
        session = open_session(model)
    except Exception as error:  # the runtime raises its own kinds, not all of them documented
        raise LabError(f"the model does not run: {error}"[:500], _REMEDY) from error
    _check_interface(session, len(card.features))
    check_self_test(session, card)
    score(session, _corners(card))
    rows, probabilities = rows_of(card, card.self_test.rows), card.self_test.probabilities
    _check_scores(session, rows[:1], probabilities[:1])
    # This is not a multiple of PART_ROWS, so that a part of another size is tried, too.
    count = cards.BATCH_ROWS - 1
    _check_scores(session, np.resize(rows, (count, len(card.features))), np.resize(probabilities, count).tolist())


def _check_interface(session: onnxruntime.InferenceSession, features: int) -> None:
    inputs = [(place.name, place.type, place.shape[1:]) for place in session.get_inputs()]
    if inputs != [("features", "tensor(float)", [features])] or isinstance(session.get_inputs()[0].shape[0], int):
        raise LabError(f"the model's input is not float32 of shape (any number of rows, {features} features)", _REMEDY)
    if ("probabilities", "tensor(float)") not in [(place.name, place.type) for place in session.get_outputs()]:
        raise LabError("the model has no output `probabilities` of float32", _REMEDY)


def _check_scores(session: onnxruntime.InferenceSession, rows: NDArray[np.float32], expectation: list[float]) -> None:
    worst = float(np.abs(np.array(score(session, rows)) - np.array(expectation)).max())
    if not worst <= cards.TOLERANCE:
        raise LabError(f"the model fails its self-test: a probability is off by {worst:.2g}", _REMEDY)


def rows_of(card: cards.Card, rows: Sequence[Sequence[Value | None]]) -> NDArray[np.float32]:
    """Valid rows of a card as the model's input, shape (n, features), NaN for missing."""
    return _array([[to_input(f, value) for f, value in zip(card.features, row, strict=True)] for row in rows])


def _array(rows: Sequence[Sequence[float | None]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)  # numpy converts None to NaN


def _corners(card: cards.Card) -> NDArray[np.float32]:
    """Three records: all values at the lower bounds, all at the upper bounds, and all nullable values missing."""
    least, most = [f.min for f in card.features], [f.max for f in card.features]
    return _array([[*least], [*most], [None if f.nullable else f.min for f in card.features]])
