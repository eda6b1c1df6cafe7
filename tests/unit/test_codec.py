"""What a body must hold, whatever its bytes."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.codec import MAX_INSTANCES, Codec, InvalidError, feedback
from lab import card as cards


@pytest.fixture(scope="module")
def card(package):
    return cards.decode(msgspec.json.encode(package[0]))


@pytest.fixture(scope="module")
def codec(card):
    return Codec(card)


def pointers(error: InvalidError) -> set[str]:
    return {each["pointer"] for each in error.errors}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"a": 1}\xff',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": true}',
        b'{"a": "1"}',
        b'{"a": 1, "c": 2}',
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": 1, "b": 1, "b": null}',
        b'{"a": 1} {"a": 1}',
        b'{"a": 1.5}',
        b'{"a": 1' + b"0" * 5000 + b"}",
        b"{a: 1}",
        b'\xef\xbb\xbf{"a": 1}',
    ],
)
def test_what_is_no_record_is_refused(codec, body):
    """Whatever the bytes, the answer is a refusal that can be read; in a batch too."""
    with pytest.raises(InvalidError):
        codec.one(body)
    with pytest.raises(InvalidError):
        codec.many(b'{"instances": [' + body + b"]}")


@pytest.mark.parametrize("body", [b'{"a": 1}', b'{"a": 1, "b": null}', b'{"a": 1.0}', b' {"b":null ,"a":1e0}\n'])
def test_a_missing_value_is_taken_where_the_card_allows(codec, body):
    """Absent and null are the same, and 1.0 is a whole number."""
    for records in (codec.one(body), codec.many(b'{"instances":[' + body + b"]}")):
        assert records.rows.tolist()[0][0] == 1
        assert np.isnan(records.rows[0, 1])


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3)
)
RECORDS = st.dictionaries(st.sampled_from(["a", "b", "c", "é", "a/b~c"]), VALUES)


def _wrong(record: dict) -> set[str]:
    """The same rules, said once more and simply."""
    number = {n: isinstance(v, int | float) and not isinstance(v, bool) and -9 <= v <= 9 for n, v in record.items()}
    wrong = set(record) - {"a", "b"}
    if not number.get("a") or record["a"] != int(record["a"]):
        wrong.add("a")
    if record.get("b") is not None and not number["b"]:
        wrong.add("b")
    return {"#/" + name.replace("~", "~0").replace("/", "~1") for name in wrong}


@given(RECORDS)
def test_every_wrong_field_is_named_and_no_other(codec, record):
    """For any record, by itself and in a batch."""
    body, wrong = json.dumps(record).encode(), _wrong(record)
    if not wrong:
        assert codec.one(body).rows.shape == codec.many(b'{"instances":[' + body + b"]}").rows.shape == (1, 2)
        return
    with pytest.raises(InvalidError) as one:
        codec.one(body)
    assert pointers(one.value) == wrong
    with pytest.raises(InvalidError) as many:
        codec.many(b'{"instances":[{"a":1},' + body + b"]}")
    assert pointers(many.value) == {place.replace("#", "#/instances/1", 1) for place in wrong}


@given(st.lists(st.tuples(st.integers(-9, 9), st.none() | st.floats(-9, 9)), min_size=1, max_size=20))
def test_rows_are_what_was_sent(codec, values):
    """In order, as float32, missing as NaN."""
    body = json.dumps({"instances": [{"b": b, "a": a} for a, b in values]}).encode()
    wanted = np.array([[a, np.nan if b is None else b] for a, b in values], dtype=np.float32)
    np.testing.assert_array_equal(codec.many(body).rows, wanted)


def test_a_batch_has_a_limit(codec):
    """None, and one too many, are refused; the greatest is taken."""
    for count in (0, MAX_INSTANCES + 1):
        with pytest.raises(InvalidError, match="1 to 10000"):
            codec.many(json.dumps({"instances": [{"a": 1}] * count}).encode())
    assert len(codec.many(json.dumps({"instances": [{"a": 1}] * MAX_INSTANCES}).encode()).rows) == MAX_INSTANCES


@pytest.mark.parametrize("body", [b"[]", b'{"instances": 3}', b'{"instances": [{"a": 1}], "x": 1}', b"{}"])
def test_what_is_no_batch_is_refused(codec, body):
    """Another shape, another key."""
    with pytest.raises(InvalidError):
        codec.many(body)


ID = "01a208b6-cd8a-7235-ae1f-c492df07b196"


def test_feedback_names_a_prediction_and_a_class(card):
    """An id in either case, and one of the model's classes."""
    assert feedback(card, json.dumps({"prediction_id": ID.upper(), "label": "yes"}).encode()) == (ID, "yes")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"#/prediction_id", "#/label"}),
        ({"prediction_id": ID, "label": "maybe"}, {"#/label"}),
        ({"prediction_id": ID, "label": ["yes"]}, {"#/label"}),
        ({"prediction_id": "7", "label": "yes", "x": 1}, {"#/prediction_id", "#/x"}),
        ({"prediction_id": {}, "label": None}, {"#/prediction_id", "#/label"}),
    ],
)
def test_wrong_feedback_is_named(card, body, wrong):
    """Every fault at once."""
    with pytest.raises(InvalidError) as error:
        feedback(card, json.dumps(body).encode())
    assert pointers(error.value) == wrong
