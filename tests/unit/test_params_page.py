"""docs/params.md describes every field of params.yaml, with its default."""

from __future__ import annotations

import re

import msgspec
import pytest

from lab import problem
from lab.settings import ROOT

PAGE = (ROOT / "docs" / "params.md").read_text()
# The rows of the page's tables: the field, and its default.
ROWS = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| .* \| ([^|]+) \|$", PAGE, re.M))
PLACES = {
    problem.Problem: "",
    problem.Source: "source.",
    problem.Group: "source.groups.",
    problem.Collected: "source.collected.",
    problem.DateColumn: "source.groups.",
    problem.Data: "data.",
    problem.Target: "target.",
    problem.ClassLabel: "target.negative.",
    problem.Feature: "features.",
    problem.Candidate: "candidates.",
    problem.Evaluation: "evaluation.",
    problem.Choice: "choice.",
    problem.Threshold: "threshold.",
}
FIELDS = [(place, field) for kind, place in PLACES.items() for field in msgspec.structs.fields(kind)]


def test_every_struct_is_in_the_list():
    """A struct that is added to lab.problem must be described, too."""
    structs = {
        value for value in vars(problem).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    assert structs - {msgspec.Struct} == set(PLACES)


@pytest.mark.parametrize(("place", "field"), FIELDS, ids=[place + field.name for place, field in FIELDS])
def test_a_field_has_a_row_with_its_default(place, field):
    """The page has a row for the field, and the row states its default, or that it is required."""
    text = ROWS[place + field.name].strip()
    if field.required:
        assert text == "required"
    elif (
        isinstance(field.default, int | float)
        and not isinstance(field.default, bool)
        and field.default == field.default
    ):
        assert text == str(field.default)
    elif isinstance(field.default, bool):
        assert text == f"`{str(field.default).lower()}`"
    elif isinstance(field.default, str) and field.default:
        assert text.strip('`"') == field.default
    else:
        assert text.startswith(("empty", "required for", "its own defaults", "the column's name"))


def test_no_row_is_about_another_field():
    """A field that is removed from lab.problem is removed from the page."""
    assert set(ROWS) == {place + field.name for place, field in FIELDS}
