"""params.yaml has the same meaning for the lab and for DVC, and written values are read back."""

from __future__ import annotations

import msgspec
import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import problem
from lab.errors import LabError
from lab.settings import ROOT
from lab.strict_yaml import decode, encode

# fmt: off
PLAIN = [
    "1", "0", "-0", "+1", "00", "007", "010", "08", "09", "1_000", "0x10", "0o10", "0b11", "-12",
    "1.", "1.5", ".5", "-.5", "1e5", "1e-3", "1E+5", "1.5e3", "-1.5E-3", "12e03", "1_0.5", "1e", "e5", "_1",
    "0xG", "1:30", "true", "True", "TRUE", "false", "yes", "Yes", "no", "No", "on", "off", "y", "n",
    "null", "Null", "NULL", "~", "none", "1989-01", "1,5", "é",
]
# fmt: on


@pytest.mark.parametrize("word", PLAIN)
def test_a_word_means_what_dvc_takes_it_for(word):
    """1e5, 010 and no have DVC's meaning, although PyYAML by itself reads them differently."""
    assert repr(decode(f"a: {word}", "x")["a"]) == repr(parse_yaml(f"a: {word}", "x")["a"])


@given(st.from_regex(r"[-+]?[0-9_.eExob]{1,6}", fullmatch=True))
@settings(max_examples=500, deadline=None)
def test_whatever_looks_like_a_number_is_what_dvc_takes_it_for(word):
    """A text that the lab and DVC both read as a number is the same number."""
    try:
        ours, theirs = decode(f"a: {word}", "x")["a"], parse_yaml(f"a: {word}", "x")["a"]
    except (LabError, ValueError):
        return
    if not isinstance(ours, str) and not isinstance(theirs, str):
        assert repr(ours) == repr(theirs)


def test_the_labs_own_files_are_read_as_before():
    """Both tables of the repository are read as PyYAML reads them."""
    for path in (ROOT / "params.yaml", ROOT / "tables" / "crabs" / "params.yaml"):
        assert decode(path.read_bytes(), "x") == msgspec.yaml.decode(path.read_bytes())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))
    | st.sampled_from(PLAIN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read_back(value):
    """Written values are also read back by PyYAML's rules, with which the code of earlier commits reads them."""
    assert decode(encode(value), "x") == value
    assert msgspec.yaml.decode(encode(value)) == value


def test_bounds_can_be_shared_with_an_alias():
    """Anchors, aliases and merge keys of a sensible size are accepted."""
    text = (ROOT / "params.yaml").read_text()
    first = "clump_thickness: {type: integer, min: 1, max: 10}"
    assert first in text
    shared = text.replace(first, f"clump_thickness: &scale {first.split(': ', 1)[1]}")
    shared = shared.replace("mitoses: {type: integer, min: 1, max: 10}", "mitoses: *scale")
    shared = shared.replace(
        "bare_nuclei: {type: integer, min: 1, max: 10, nullable: true}", "bare_nuclei: {<<: *scale, nullable: true}"
    )
    assert "*scale\n" in shared
    assert problem.parse(shared) == problem.parse(text)


def test_a_bound_just_within_32_bits_is_taken():
    """Only bounds that a model cannot compute with are refused."""
    text = (ROOT / "params.yaml").read_text().replace("min: 1, max: 10}", "min: 1, max: 3.4e38}", 1)
    assert problem.parse(text).features["clump_thickness"].max == 3.4e38
