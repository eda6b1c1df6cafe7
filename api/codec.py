"""What a request must hold and what an answer holds."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from flask import Response
from numpy.typing import NDArray

from api.model import Model
from lab.card import Feature


class InvalidError(Exception):
    """A request the API refuses; `errors` names every wrong field."""

    def __init__(self, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []


def read_record(features: list[Feature], body: bytes) -> NDArray[np.float32]:
    """A row of shape (1, features) from a JSON object, a missing value as NaN; raise InvalidError."""
    try:
        record = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidError("the body must be a JSON object with one value a feature")
    faults = {f.name: fault for f in features if (fault := _fault(f, record))}
    faults |= dict.fromkeys(record.keys() - {f.name for f in features}, "is not a feature of this model")
    if faults:
        errors = [{"field": name, "problem": problem} for name, problem in faults.items()]
        raise InvalidError(f"{len(errors)} field(s) are wrong", errors)
    values = [record.get(f.name) for f in features]
    return np.array([[math.nan if value is None else value for value in values]], dtype=np.float32)


def _fault(feature: Feature, record: dict[str, Any]) -> str:
    value = record.get(feature.name)
    if value is None:
        return "" if feature.nullable else "is missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if not feature.min <= value <= feature.max:
        return f"is out of bounds: {feature.min:g} to {feature.max:g}"
    if feature.type == "integer" and value != int(value):
        return "is not a whole number"
    return ""


def answer(model: Model, probability: float) -> Response:
    """The prediction for one record, with the model that gave it."""
    card = model.card
    positive = probability >= card.threshold
    return reply(
        {
            "label": card.classes.positive if positive else card.classes.negative,
            "probability": probability,
            "threshold": card.threshold,
            "model": {"name": card.problem, "version": model.version},
        }
    )


def reply(value: Any, status: int = 200, content_type: str = "application/json") -> Response:
    return Response(msgspec.json.encode(value), status, content_type=content_type)


def problem(status: int, title: str, detail: str, errors: list[dict[str, str]] | None = None) -> Response:
    """An RFC 9457 problem."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = errors
    return reply(body, status, "application/problem+json")
