"""The rules for a valid value of a feature, shared by the card, the API, its OpenAPI document and the dataset.

A feature comes from params.yaml (`lab.problem.Feature`) or from a card (`lab.card.Feature`). Bounds are inclusive.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Protocol

from msgspec import UNSET, Meta, UnsetType


class Feature(Protocol):
    """The fields of a feature that determine its valid values."""

    @property
    def type(self) -> Literal["integer", "real"]: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def nullable(self) -> bool: ...


def value_fault(feature: Feature, value: object) -> str:
    """The reason why a value, None for missing, is not valid, as the end of a sentence; empty when it is valid."""
    if value is None:
        return "" if feature.nullable else "is missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if not is_within(feature, value):  # also rejects numbers that are not finite
        return f"is out of bounds: {feature.min:g} to {feature.max:g}"
    if feature.type == "integer" and value != int(value):
        return "is not a whole number"
    return ""


def is_within(feature: Feature, value: float | None) -> bool:
    """Whether a model's input is within the bounds, or missing in a nullable feature; it need not be a whole number."""
    return feature.nullable if value is None else feature.min <= value <= feature.max


def description(feature: Feature) -> str:
    """The valid values in words."""
    kind = "whole number" if feature.type == "integer" else "number"
    return f"a {kind} from {feature.min:.15g} to {feature.max:.15g}"


def value_field(feature: Feature) -> tuple[Any, ...]:
    """The type of a valid value for msgspec, and the default of a feature that may be left out, as for `defstruct`."""
    kind: Any = Annotated[float, Meta(ge=feature.min, le=feature.max)]
    if feature.type == "integer":  # msgspec requires whole bounds for whole numbers
        kind = Annotated[int, Meta(ge=math.ceil(feature.min), le=math.floor(feature.max))]
    return (kind | None | UnsetType, UNSET) if feature.nullable else (kind,)


def json_schema(feature: Feature) -> dict[str, Any]:
    """The JSON Schema of a valid value."""
    kind = "integer" if feature.type == "integer" else "number"
    types = [kind, "null"] if feature.nullable else kind
    return {"type": types, "minimum": feature.min, "maximum": feature.max}
