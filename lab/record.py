"""A valid value of a feature: one definition for the card, the API and its OpenAPI document, and the dataset.

A feature is that of params.yaml (`lab.problem.Feature`) or that of a card (`lab.card.Feature`). Bounds are inclusive.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Protocol

from msgspec import UNSET, Meta, UnsetType


class Feature(Protocol):
    """The part of a feature that decides about its values."""

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
    if not is_within(feature, value):  # also when it is not a finite number
        return f"is out of bounds: {feature.min:g} to {feature.max:g}"
    if feature.type == "integer" and value != int(value):
        return "is not a whole number"
    return ""


def is_within(feature: Feature, value: float | None) -> bool:
    """Whether a model's input is within the bounds, or missing where it may be. A whole number is not asked for."""
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
