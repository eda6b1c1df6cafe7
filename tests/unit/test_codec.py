"""The codec accepts valid bodies and names every fault of other ones, for any bytes."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.codec import MAX_INSTANCES, MAX_LISTED, Codec, InvalidError, feedback
from lab import card as cards
from tests.bodies import BATCH, worst


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
    """Any bytes that are not a record are refused with a readable reason, also in a batch."""
    with pytest.raises(InvalidError):
        codec.one(body)
    with pytest.raises(InvalidError):
        codec.many(b'{"instances": [' + body + b"]}")


@pytest.mark.parametrize("body", [b'{"a": 1}', b'{"a": 1, "b": null}', b'{"a": 1.0}', b' {"b":null ,"a":1e0}\n'])
def test_a_missing_value_is_taken_where_the_card_allows(codec, body):
    """An absent value is the same as null, and 1.0 is a whole number."""
    for records in (codec.one(body), codec.many(b'{"instances":[' + body + b"]}")):
        assert records.rows.tolist()[0][0] == 1
        assert np.isnan(records.rows[0, 1])


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3)
)
RECORDS = st.dictionaries(st.sampled_from(["a", "b", "c", "é", "a/b~c"]), VALUES)


def _wrong(record: dict) -> set[str]:
    """The same rules, written a second time in a simple form."""
    number = {n: isinstance(v, int | float) and not isinstance(v, bool) and -9 <= v <= 9 for n, v in record.items()}
    names = set(record) - {"a", "b"}
    if not number.get("a") or record["a"] != int(record["a"]):
        names.add("a")
    if record.get("b") is not None and not number["b"]:
        names.add("b")
    return {"#/" + name.replace("~", "~0").replace("/", "~1") for name in names}


@given(RECORDS)
def test_every_wrong_field_is_named_and_no_other(codec, record):
    """The property holds for any record, alone and in a batch."""
    body, names = json.dumps(record).encode(), _wrong(record)
    if not names:
        assert codec.one(body).rows.shape == codec.many(b'{"instances":[' + body + b"]}").rows.shape == (1, 2)
        return
    with pytest.raises(InvalidError) as one:
        codec.one(body)
    assert pointers(one.value) == names
    with pytest.raises(InvalidError) as many:
        codec.many(b'{"instances":[{"a":1},' + body + b"]}")
    assert pointers(many.value) == {place.replace("#", "#/instances/1", 1) for place in names}


@given(st.lists(st.tuples(st.integers(-9, 9), st.none() | st.floats(-9, 9)), min_size=1, max_size=20))
def test_rows_are_what_was_sent(codec, values):
    """Rows are in order, as float32, with NaN for missing values."""
    body = json.dumps({"instances": [{"b": b, "a": a} for a, b in values]}).encode()
    expectation = np.array([[a, np.nan if b is None else b] for a, b in values], dtype=np.float32)
    np.testing.assert_array_equal(codec.many(body).rows, expectation)


def test_a_batch_has_a_limit(codec):
    """An empty batch and one that is too large are refused; the largest is accepted."""
    for count in (0, MAX_INSTANCES + 1):
        with pytest.raises(InvalidError, match="1 to 10000"):
            codec.many(json.dumps({"instances": [{"a": 1}] * count}).encode())
    assert len(codec.many(json.dumps({"instances": [{"a": 1}] * MAX_INSTANCES}).encode()).rows) == MAX_INSTANCES


@pytest.mark.parametrize("body", [b"[]", b'{"instances": 3}', b'{"instances": [{"a": 1}], "x": 1}', b"{}"])
def test_what_is_no_batch_is_refused(codec, body):
    """A body of another form or with another key is refused."""
    with pytest.raises(InvalidError):
        codec.many(body)


ID = "01a208b6-cd8a-7235-ae1f-c492df07b196"


def test_feedback_names_a_prediction_and_a_class(card):
    """The id may be in either case, and the label must be one of the model's classes."""
    assert feedback(card, json.dumps({"prediction_id": ID.upper(), "label": "yes"}).encode()) == (ID, "yes")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, {"#/prediction_id", "#/label"}),
        ({"prediction_id": ID, "label": "maybe"}, {"#/label"}),
        ({"prediction_id": ID, "label": ["yes"]}, {"#/label"}),
        ({"prediction_id": "7", "label": "yes", "x": 1}, {"#/prediction_id", "#/x"}),
        ({"prediction_id": {}, "label": None}, {"#/prediction_id", "#/label"}),
    ],
)
def test_wrong_feedback_is_named(card, body, names):
    """One answer names every fault."""
    with pytest.raises(InvalidError) as error:
        feedback(card, json.dumps(body).encode())
    assert pointers(error.value) == names


@pytest.mark.parametrize("kind", [name for name, _ in worst(64)])
def test_the_worst_bodies_take_a_moment(codec, card, kind):
    """No body takes long; a quadratic one took a minute for each megabyte before."""
    small, large = dict(worst(64 * 1024))[kind], dict(worst(2**20))[kind]
    for read, body in (
        (codec.one, small),
        (lambda text: feedback(card, text), small),
        (codec.many, large),
        (codec.many, BATCH + large + b"]}"),
        (codec.many, BATCH + (small + b",") * 15 + small + b"]}"),
    ):
        start = time.process_time()
        with contextlib.suppress(InvalidError):
            read(body)
        assert time.process_time() - start < 0.5


@pytest.mark.parametrize("number", [1, 2, 200])
def test_keys_that_are_given_twice_are_named(codec, number):
    """Each repeated key is named once, up to the limit of the list."""
    pairs = ", ".join(f'"k{n // 2}": 1' for n in range(2 * number))
    with pytest.raises(InvalidError) as error:
        codec.one(f'{{"a": 1, {pairs}}}'.encode())
    assert pointers(error.value) == {f"#/k{n}" for n in range(min(number, MAX_LISTED))}


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"a": 1}], "instances": [{"a": 1}]}',
        b'{"instances": 1, "instances": [{"a": 1}]}',
        b'{"instances": [{"a": 1}], "\\u0069nstances": [{"a": 1}]}',
        b'{"instances": [{"a": 1, "a": 1}]}',
        b'{"instances": [{"a": 1.0}], "instances": [{"a": 1.0}]}',
        b'{"instances": [], "instances": [{"a": 1.0}]}',
    ],
)
def test_a_batch_with_a_key_twice_is_refused(codec, body):
    """A repeated key is refused on every level and in every order."""
    with pytest.raises(InvalidError) as error:
        codec.many(body)
    assert [each["detail"] for each in error.value.errors] == ["is given more than once"]


def test_no_more_faults_are_looked_for_than_are_listed(codec):
    """The search for faults ends at the limit, and the answer says so."""
    with pytest.raises(InvalidError, match=f"{MAX_LISTED} or more fields") as error:
        codec.many(json.dumps({"instances": [{"a": 99}] * MAX_INSTANCES}).encode())
    assert pointers(error.value) == {f"#/instances/{n}/a" for n in range(MAX_LISTED)}


def test_a_long_record_in_a_batch_is_refused_as_it_is_alone(codec):
    """A record that is too long is not parsed, and the others are."""
    body = json.dumps({"instances": [{"a": 1}, {"a": 1, "x" * 70_000: 1}, {"a": 99}]}).encode()
    with pytest.raises(InvalidError) as error:
        codec.many(body)
    assert pointers(error.value) == {"#/instances/1", "#/instances/2/a"}


@pytest.mark.parametrize("part", [b"{}", b'{"a":1,"b":null}', b"[]", b"1", b'{"b":1}'])
def test_a_large_body_is_measured_before_it_is_read(codec, part):
    """A body with more than the largest batch creates no objects, so the memory does not grow."""
    body = BATCH + part + (b"," + part) * (8 * 2**20 // len(part)) + b"]}"
    resident = psutil.Process().memory_info().rss
    tracemalloc.start()
    try:
        with pytest.raises(InvalidError, match="1 to 10000"):
            codec.many(body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert psutil.Process().memory_info().rss < resident + 8 * 2**20


@pytest.mark.parametrize("key", [b"k%d", b"\\u00e9%d"])
def test_the_keys_beside_the_instances_become_no_objects(card, key):
    """Other keys create no objects, also with a hundred features; a million keys took 180 MB and a second before."""
    definition = [msgspec.structs.replace(card.features[0], name=f"f{number}") for number in range(100)]
    codec = Codec(msgspec.structs.replace(card, features=definition))
    more = b",".join(b'"%b":1' % (key % number) for number in range(900_000))
    for body in (b'{"instances":[],%b}' % more, b"{%b}" % more):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidError, match=r"instances|1 field"):
                codec.many(body)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_the_largest_valid_batch_is_taken(codec, package):
    """10,000 records with every feature are accepted with any blanks between them."""
    record = b'{"a": 1, "b" : 0.5 }'
    body = BATCH + b",".join([record] * MAX_INSTANCES) + b"]" + b" " * 2**20 + b"}"
    assert codec.many(body).rows.shape == (MAX_INSTANCES, 2)
