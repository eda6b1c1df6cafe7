"""The rules about levels in params.yaml, in a card, and in the bodies of requests to a model of any features."""

from __future__ import annotations

import copy
import json
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.codec import Codec, InvalidError
from lab import card as cards
from lab import problem
from lab.errors import LabError
from tests import hostile
from tests.unit import mixed
from tests.unit.test_wrong_tables import FEATURE_A, PARAMS

CATEGORY = "  a: {type: category, levels: LEVELS}\n"


def with_levels(text: str) -> str:
    return PARAMS.replace(FEATURE_A, CATEGORY.replace("LEVELS", text))


WRONG_PARAMS = {
    "levels that differ in case": (with_levels("[Red, red]"), "features.a: the levels 'Red' and 'red' differ in case"),
    "levels that differ in spaces": (with_levels('["a b", "a  b"]'), "'a b' and 'a  b' differ in case or spaces only"),
    "a level twice": (with_levels("[red, red]"), "the levels 'red' and 'red' differ in case or spaces only"),
    "a number twice": (with_levels("[1, 2, 1]"), "the levels 1 and 1 differ"),
    "the same letter in two forms": (with_levels('["Straße", "STRASSE"]'), "'Straße' and 'STRASSE' differ in case"),
    "more than a hundred levels": (with_levels(str(list(range(101)))), "needs 2 to 100 levels, and this one has 101"),
    "one level": (with_levels("[red]"), "needs 2 to 100 levels, and this one has 1"),
    "no level": (with_levels("[]"), "needs 2 to 100 levels, and this one has 0"),
    "no levels": (PARAMS.replace(FEATURE_A, "  a: {type: category}\n"), "needs 2 to 100 levels, and this one has 0"),
    "words and numbers": (with_levels("[red, 1]"), "all words or all whole numbers; put quotes around the numbers"),
    "true as a level": (with_levels("[true, maybe]"), r"got `bool` - at `\$.features.a.levels\[0\]`.*put quotes"),
    "a fraction as a level": (with_levels("[1.5, 2]"), r"got `float` - at `\$.features.a.levels\[0\]`"),
    "nothing as a level": (with_levels("[red, ]  ").replace("red, ", "red, null"), "got `null`"),
    "a number beyond 53 bits": (with_levels("[1, 9007199254740993]"), r"the level 9007199254740993 is beyond ±2\^53"),
    "a number beyond 64 bits": (
        with_levels("[1, -18446744073709551616]"),
        r"the level -18446744073709551616 is beyond",
    ),
    "an empty level": (with_levels('[red, ""]'), "the level '' is empty"),
    "a level with a space at its end": (with_levels('[red, "blue "]'), "the level 'blue ' is empty, .* a space at an"),
    "a level with a line end": (with_levels('[red, "b\\nlue"]'), r"the level 'b\\nlue' is empty, .* control character"),
    "a long level": (with_levels(f"[red, {'x' * 101}]"), "longer than 100 characters"),
    "a missing mark as a level": (with_levels('[red, "?"]'), "the level '\\?' is also source.missing"),
    "a missing mark as a number": (
        with_levels("[1, 9]").replace('missing: "?"', 'missing: ["?", "9"]'),
        "the level 9 is also source.missing",
    ),
    "bounds on a category": (
        PARAMS.replace(FEATURE_A, CATEGORY.replace("LEVELS", "[x, z], min: 0, max: 5")),
        "a category has no bounds: remove min and max",
    ),
    "one bound on a category": (
        PARAMS.replace(FEATURE_A, CATEGORY.replace("LEVELS", "[x, z], max: 5")),
        "a category has no bounds: remove min and max",
    ),
    "levels on a number": (
        PARAMS.replace("max: 100}", "max: 100, levels: [1, 2]}"),
        "a number has no levels; write type: category, or remove them",
    ),
    "a boolean with levels": (
        PARAMS.replace(FEATURE_A, "  a: {type: boolean, levels: [x, z]}\n"),
        "a boolean has no levels: remove them, or write type: category",
    ),
    "a boolean with bounds": (
        PARAMS.replace(FEATURE_A, "  a: {type: boolean, min: 0, max: 2}\n"),
        "a boolean has no bounds",
    ),
    "another type": (PARAMS.replace("type: integer", "type: word"), r"'word' - at `\$.features.a.type`"),
}


@pytest.mark.parametrize(("params", "message"), WRONG_PARAMS.values(), ids=WRONG_PARAMS.keys())
def test_wrong_levels_are_one_message(params, message):
    """The message names the feature and the level, and a remedy."""
    with pytest.raises(LabError) as error:
        problem.parse(params)
    assert re.search(message, str(error.value), re.DOTALL), str(error.value)
    assert error.value.remedy


def test_the_bounds_of_levels_need_not_be_stated():
    """The parameters in a card state them, and are read again as the same problem."""
    definition = problem.parse(with_levels("[x, z, '1']"))
    assert (definition.features["a"].min, definition.features["a"].max) == (0, 2)
    assert msgspec.convert(problem.to_builtins(definition), problem.Problem) == definition


def values() -> dict:
    """A valid card with a category of words, one of whole numbers, and a boolean."""
    card = hostile.card_values()
    promise = {"value": 0.97, "low": 0.91, "high": 0.99, "method": "counts", "rows": 10, "failures": 3}
    kinds = {"a": {"type": "category", "levels": ["x", "z"]}, "b": {"type": "category", "levels": [1, 2, 9]}}
    kinds["c"] = {"type": "boolean"}
    features, references = [], {}
    for name, kind in kinds.items():
        levels = kind.get("levels", [False, True])
        features.append({"name": name, "label": "l", "min": 0, "max": len(levels) - 1, "nullable": name == "a", **kind})
        counts = [10, *[0] * (len(levels) - 1)]
        shares = [count / 10 for count in counts]
        references[name] = {"levels": levels, "shares": shares, "counts": counts, "missing": 0}
    self_test = {"rows": [["x", 1, True], [None, 9.0, False]], "probabilities": [0.5, 0.5]}
    score = {"edges": [0, 1], "shares": [1.0], "missing": 0, "counts": [10]}
    changes = {"schema_version": 3, "rows": 10, "prevalence": 0.5, "promises": {"accuracy": promise}}
    card |= {**changes, "features": features, "feature_reference": references}
    return {**card, "score_reference": score, "self_test": self_test}


def test_a_card_with_levels_is_valid():
    """The card that the hostile ones are made of is read, and what is written of it is read as the same."""
    card = cards.decode(msgspec.json.encode(values()))
    assert cards.decode(cards.encode(card)) == card


HOSTILE = {
    "no levels": (["features", 0, "levels"], [], "a: a category needs 2 to 100 levels"),
    "one level": (["features", 0, "levels"], ["x"], "a: a category needs 2 to 100 levels"),
    "too many levels": (["features", 1, "levels"], list(range(101)), "b: a category needs 2 to 100 levels"),
    "a level twice": (["features", 0, "levels"], ["x", "x"], "a: the levels 'x' and 'x' differ in case or spaces only"),
    "levels of two types": (["features", 0, "levels"], ["x", 1], "a: levels must be all words or all whole numbers"),
    "a boolean as a level": (["features", 0, "levels"], ["x", True], "Expected `int | str`|got `bool`"),
    "a fraction as a level": (["features", 1, "levels"], [1, 2.5, 9], "got `float`"),
    "a level of a megabyte": (["features", 0, "levels"], ["x", "z" * 200_000], "a: the level 'z+' is empty, longer"),
    "a level beyond 64 bits": (["features", 1, "levels"], [1, 2, 2**64 - 1], r"b: the level \d+ is beyond"),
    "a level with a line end": (["features", 0, "levels"], ["x", "z\n"], "a: the level"),
    "an upper bound beyond the levels": (["features", 0, "max"], 2, "min and max of a are not those of its levels"),
    "a lower bound below the levels": (["features", 0, "min"], -1, "min and max of a are not those of its levels"),
    "bounds of a boolean": (["features", 2, "max"], 5, "min and max of c are not those of its levels"),
    "levels of a boolean": (["features", 2, "levels"], ["no", "yes"], "min and max of c are not those of its levels"),
    "levels of a number": (["features", 0, "type"], "real", "a is a number and has levels"),
    "another order in the reference": (["feature_reference", "a", "levels"], ["z", "x"], "of a must have the levels"),
    "other levels in the reference": (["feature_reference", "a", "levels"], ["x", "y"], "of a must have the levels"),
    "fewer levels in the reference": (["feature_reference", "b", "levels"], [1, 2], "of b must have the levels"),
    "no levels in the reference": (["feature_reference", "a", "levels"], [], "of a must have the levels"),
    "edges of levels": (["feature_reference", "a", "edges"], [0, 1, 2], "of a must have the levels"),
    "fewer shares": (["feature_reference", "a", "shares"], [1.0], "of a must have the levels"),
    "levels of the score": (["score_reference", "levels"], ["x"], "the score has levels, and the feature is a number"),
    "counts of other rows": (["feature_reference", "a", "counts"], [9, 1], "of a has counts that are not its shares"),
    "an unknown word in the self-test": (["self_test", "rows", 0, 0], "y", "the self-test has y for a"),
    "an input in the self-test": (["self_test", "rows", 0, 0], 0, "the self-test has 0.0 for a"),
    "null in the self-test": (["self_test", "rows", 0, 1], None, "the self-test has None for b"),
    "1 for true in the self-test": (["self_test", "rows", 0, 2], 1, "the self-test has 1.0 for c"),
    "an object in the self-test": (["self_test", "rows", 0, 0], {}, "got `object`"),
}


@pytest.mark.parametrize(("path", "value", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_card_that_contradicts_its_levels_is_refused(path, value, message):
    """One changed value of a valid card is found, with its reason."""
    card = copy.deepcopy(values())
    place = card
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(LabError, match=message):
        cards.decode(msgspec.json.encode(card))


@st.composite
def codecs(draw):
    """The codec of a random card, and the features of the card."""
    words = st.text(
        st.sampled_from('ab"\\,{}é🦀:[]/\u0301 ') | st.characters(codec="utf-8", categories=["L"]), min_size=1
    )
    features = []
    for number in range(draw(st.integers(1, 5))):
        kind, levels = draw(st.sampled_from(["integer", "real", "category", "boolean"])), []
        if kind == "category":
            elements = draw(st.sampled_from([words, st.integers(-(2**53), 2**53)]))
            levels = draw(st.lists(elements, min_size=2, max_size=6, unique_by=lambda level: str(level).casefold()))
        low, high = (0, max(len(levels) - 1, 1)) if kind in ("category", "boolean") else (-9, 9)
        nullable = draw(st.booleans())
        features.append(
            cards.Feature(name=f"f{number}", label="", type=kind, min=low, max=high, nullable=nullable, levels=levels)
        )
    card = cards.decode(msgspec.json.encode(values()))
    return Codec(msgspec.structs.replace(card, features=features)), features


def valid(draw, feature: cards.Feature):
    """A valid value of a feature."""
    kinds = {"integer": st.integers(-9, 9), "real": st.floats(-9, 9), "boolean": st.booleans()}
    value = kinds[feature.type] if feature.type in kinds else st.sampled_from(feature.levels)
    return draw(st.none() | value if feature.nullable else value)


@given(codecs(), st.data())
def test_the_fast_and_the_slow_reading_give_the_same(made, data):
    """For valid records of any card, bodies of two forms give the same rows, the same events, and the right inputs.

    The second form has 5.0 for each whole number and escapes in each text, which msgspec's type or the count of the
    quotes does not accept, so that the body is read once more in Python.
    """
    codec, features = made
    records = []
    for _ in range(data.draw(st.integers(1, 4))):
        record = {feature.name: valid(data.draw, feature) for feature in features}
        absent = [name for name, value in record.items() if value is None and data.draw(st.booleans())]
        records.append({name: value for name, value in record.items() if name not in absent})
    slow = [
        {n: float(v) if isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**53 else v for n, v in r.items()}
        for r in records
    ]
    expectation = np.array(
        [[_input(feature, record.get(feature.name)) for feature in features] for record in records], np.float32
    )
    for form in (records, slow):
        for ascii_only in (True, False):
            texts = [json.dumps(record, ensure_ascii=ascii_only) for record in form]
            one = [codec.one(text.encode()) for text in texts]
            many = codec.many(f'{{"instances": [{",".join(texts)}]}}'.encode())
            np.testing.assert_array_equal(many.rows, expectation)
            np.testing.assert_array_equal(np.vstack([each.rows for each in one]), expectation)
            for events in (many.features, [each.features[0] for each in one]):
                assert [msgspec.json.decode(msgspec.json.encode(event)) for event in events] == records


def _input(feature: cards.Feature, value) -> float:
    if value is None:
        return np.nan
    return float(feature.levels.index(value)) if feature.type == "category" else float(value)


@given(codecs(), st.data())
def test_a_repeated_key_is_refused_in_any_record(made, data):
    """A valid record of any card with one key given twice is refused, whatever the two values are."""
    codec, features = made
    record = {feature.name: valid(data.draw, feature) for feature in features}
    again = data.draw(st.sampled_from(features))
    pair = f"{json.dumps(again.name)}: {json.dumps(valid(data.draw, again))}"
    text = json.dumps(record)[:-1] + f", {pair}}}"
    for read, body in ((codec.one, text), (codec.many, f'{{"instances": [{text}]}}')):
        with pytest.raises(InvalidError) as error:
            read(body.encode())
        assert [each["detail"] for each in error.value.errors] == ["is given more than once"]


def test_a_card_of_schema_version_2_is_served(tmp_path, package):
    """A card that was written before there were categories has no levels, and the API serves it."""
    card = {**package[0], "schema_version": 2}
    assert all("levels" not in feature for feature in card["features"])
    text = cards.encode(cards.decode(msgspec.json.encode(card)))
    assert b'"levels"' not in text
    app = mixed.serve(tmp_path / "api", text, package[1], "small")
    client = app.test_client()
    assert client.post("/predict", json={"a": 1}).status_code == 200
    assert client.get("/model").json["card"]["schema_version"] == 2
    app.close()
