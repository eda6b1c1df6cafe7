"""One definition of a valid value: its words, its msgspec type and its JSON Schema agree."""

from __future__ import annotations

import json
import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lab import record
from lab.card import Feature

NUMBERS = st.integers(-30, 30) | st.floats(-30, 30) | st.sampled_from([math.nan, math.inf, -math.inf, 2.0, True])
VALUES = NUMBERS | st.none() | st.text(max_size=3)


@st.composite
def features(draw) -> Feature:
    low = draw(st.integers(-20, 10) | st.floats(-20, 10))
    return Feature(
        name="x",
        label="x",
        type=draw(st.sampled_from(["integer", "real"])),
        min=low,
        max=low + draw(st.integers(1, 20)),
        nullable=draw(st.booleans()),
    )


@given(features(), VALUES)
def test_a_value_without_fault_is_one_that_msgspec_takes_and_no_other(feature, value):
    """The words for a person and the msgspec type for decoding give the same verdict."""
    kind, *default = record.value_field(feature)
    try:
        # msgspec takes 2.0 for no whole number; the codec then reads the record anew, as a person would.
        whole = feature.type == "integer" and isinstance(value, float) and value.is_integer()
        msgspec.json.decode(json.dumps(int(value) if whole else value), type=kind)
        fits = True
    except msgspec.DecodeError:  # also for NaN and Infinity, which are not JSON
        fits = False
    assert (record.value_fault(feature, value) == "") == fits
    assert bool(default) == feature.nullable


@given(features())
def test_the_schema_has_the_bounds(feature):
    """The JSON Schema has the same bounds, and null where a value may be missing."""
    schema = record.json_schema(feature)
    assert (schema["minimum"], schema["maximum"]) == (feature.min, feature.max)
    assert ("null" in schema["type"]) == feature.nullable


def test_missing_is_told_from_out_of_bounds_and_from_not_whole():
    """Each kind of fault has the reason that the API gives."""
    feature = Feature(name="x", label="x", type="integer", min=1, max=10, nullable=False)
    reasons = [record.value_fault(feature, value) for value in (None, "1", True, 11, 1.5, 2)]
    assert reasons == [
        "is missing",
        "is not a number",
        "is not a number",
        "is out of bounds: 1 to 10",
        "is not a whole number",
        "",
    ]
