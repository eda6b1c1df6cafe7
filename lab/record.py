"""The rules for a valid value of a feature, shared by the card, the API, its OpenAPI document and the dataset.

A feature comes from params.yaml (`lab.problem.Feature`) or from a card (`lab.card.Feature`). Bounds are inclusive. The
value of a category is one of its levels, that of a boolean is true or false. The model sees numbers only: the index of
the level, and 0 or 1.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

from msgspec import UNSET, Meta, UnsetType

Level = str | int
Value = float | str | bool
# A category with more levels is refused, because most of its levels would have too few rows to learn from.
MOST_LEVELS = 100
MOST_LEVEL_CHARACTERS = 100
# JSON parsers agree on whole numbers up to this one only.
MOST_WHOLE = 2**53
# The number of levels that a message lists.
SHOWN_LEVELS = 10
# Control characters, and Unicode's line and paragraph separators: some readers end a row there.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The texts of a boolean in the source, in lower case.
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


class Feature(Protocol):
    """The fields of a feature that determine its valid values."""

    @property
    def type(self) -> Literal["integer", "real", "category", "boolean"]: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def levels(self) -> list[Level]: ...
    @property
    def nullable(self) -> bool: ...


def is_number(feature: Feature) -> bool:
    """Whether the values are numbers with bounds, and not levels."""
    return feature.type in ("integer", "real")


def levels(feature: Feature) -> Sequence[Level | bool]:
    """The values of a category or a boolean, in the order of the model's input."""
    return (False, True) if feature.type == "boolean" else feature.levels


def value_fault(feature: Feature, value: object) -> str:
    """The reason why a value, None for missing, is not valid, as the end of a sentence; empty when it is valid."""
    if value is None:
        return "" if feature.nullable else "is missing"
    if feature.type == "boolean":
        return "" if isinstance(value, bool) else "is neither true nor false"
    if feature.type == "category":
        return "" if _is_level(feature, value) else f"is none of {listed(feature.levels)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if not feature.min <= value <= feature.max:  # also rejects numbers that are not finite
        return f"is out of bounds: {feature.min:g} to {feature.max:g}"
    if feature.type == "integer" and value != int(value):
        return "is not a whole number"
    return ""


def is_within(feature: Feature, value: Value | None) -> bool:
    """Whether a value of a card's self-test is valid, except that it need not be a whole number."""
    if value is None or not is_number(feature):
        return not value_fault(feature, value)
    return isinstance(value, int | float) and not isinstance(value, bool) and feature.min <= value <= feature.max


def listed(values: Sequence[Level]) -> str:
    """The first levels in words, and the number of the others."""
    more = f" and {len(values) - SHOWN_LEVELS} more" if len(values) > SHOWN_LEVELS else ""
    return ", ".join(map(str, values[:SHOWN_LEVELS])) + more


def description(feature: Feature) -> str:
    """The valid values in words."""
    if feature.type == "boolean":
        return "true or false (or yes and no, t and f, y and n, 1 and 0)"
    if feature.type == "category":
        return f"one of {listed(feature.levels)}"
    kind = "whole number" if feature.type == "integer" else "number"
    return f"a {kind} from {feature.min:.15g} to {feature.max:.15g}"


def inputs(feature: Feature) -> dict[Any, float | None]:
    """The model's input for each value of a category or a boolean, None and UNSET for missing included."""
    return {None: None, UNSET: None, **{value: float(place) for place, value in enumerate(levels(feature))}}


def to_input(feature: Feature, value: Any) -> float | None:
    """The model's input for a valid value, None for missing."""
    return value if value is None or is_number(feature) else inputs(feature)[value]


def from_input(feature: Feature, number: float | None) -> Value | None:
    """The value for a number that the model sees, None for missing."""
    if number is None or feature.type == "real":
        return number
    return int(number) if feature.type == "integer" else levels(feature)[int(number)]


def from_text(feature: Feature, text: str) -> Value | None:
    """The value that a cell of the dataset stands for; empty means missing. A cell that stands for none stays text."""
    if not text:
        return None
    if feature.type == "boolean":
        return BOOLEANS.get(text.lower(), text)
    if feature.type == "category" and not isinstance(feature.levels[0], int):
        return text
    if "_" in text or not text.isascii():  # text that float() reads and other readers of CSV do not
        return text
    with contextlib.suppress(ValueError):
        number = float(text)
        return int(number) if feature.type != "real" and number.is_integer() else number
    return text


def value_field(feature: Feature) -> tuple[Any, ...]:
    """The type of a valid value for msgspec, and the default of a feature that may be left out, as for `defstruct`."""
    kind: Any = Annotated[float, Meta(ge=feature.min, le=feature.max)]
    if feature.type == "integer":  # msgspec requires whole bounds for whole numbers
        kind = Annotated[int, Meta(ge=math.ceil(feature.min), le=math.floor(feature.max))]
    elif feature.type == "boolean":
        kind = bool
    elif feature.type == "category":
        kind = Literal[tuple(feature.levels)]
    return (kind | None | UnsetType, UNSET) if feature.nullable else (kind,)


def json_schema(feature: Feature) -> dict[str, Any]:
    """The JSON Schema of a valid value."""
    if feature.type == "category":
        return {"enum": [*feature.levels, None] if feature.nullable else list(feature.levels)}
    kind = {"integer": "integer", "real": "number", "boolean": "boolean"}[feature.type]
    types = {"type": [kind, "null"] if feature.nullable else kind}
    return types if feature.type == "boolean" else {**types, "minimum": feature.min, "maximum": feature.max}


def level_faults(values: Sequence[Level]) -> list[str]:
    """The reasons why these cannot be the levels of a category, as sentences; empty when they can."""
    if not 2 <= len(values) <= MOST_LEVELS:
        return [
            f"a category needs 2 to {MOST_LEVELS} levels, and this one has {len(values)}; merge levels in the table, "
            "or leave the column out"
        ]
    if len({isinstance(value, int) for value in values}) > 1:
        return ["levels must be all words or all whole numbers; put quotes around the numbers"]
    faults = [
        f"the level {value} is beyond ±2^53, and programs do not agree on such numbers; put quotes around all levels"
        for value in values
        if isinstance(value, int) and abs(value) > MOST_WHOLE
    ]
    words: dict[str, Level] = {}
    for value in values:
        text = str(value)
        key = " ".join(text.split()).casefold()
        if key in words:
            faults.append(f"the levels {words[key]!r} and {value!r} differ in case or spaces only; keep one of them")
        words[key] = value
        if text != text.strip() or not text or len(text) > MOST_LEVEL_CHARACTERS or CONTROL.search(text):
            faults.append(
                f"the level {text[:60]!r} is empty, longer than {MOST_LEVEL_CHARACTERS} characters, has a space at an "
                "end, or a control character"
            )
    return faults


def _is_level(feature: Feature, value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value in feature.levels
