"""A table with categories and booleans from its file to the answers of the API."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from api.codec import MEASURED
from lab import card as cards
from tests.recorded import written
from tests.unit import mixed
from tests.unit.mixed import FREQUENT, RARE, TOWNS, request

GOOD = {"age": 40, "weight": 70.5, "town": "plain", "stage": 2, "smoker": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder, the rows, the card and the API of one training of the mixed table."""
    folder = tmp_path_factory.mktemp("mixed")
    table = mixed.rows()
    definition = mixed.run(folder, mixed.source(table))
    card, model = mixed.package(folder, definition)
    app = mixed.serve(folder / "api", cards.encode(card), model)
    yield folder, table, card, app.test_client()
    app.close()


@pytest.fixture
def card(served):
    return served[2]


@pytest.fixture
def client(served):
    return served[3]


def independent(table: list[mixed.Row], c: float) -> np.ndarray:
    """The probabilities by scikit-learn's own encoder on the words, without any module of the trainer."""
    frame = pd.DataFrame(table).fillna({"town": "(missing)"})
    frame["weight"] = frame["weight"].astype(float)
    # A rare level has no column: the encoder gives 0 in each column for a level that it does not know.
    levels = [[*FREQUENT, "(missing)"], [1, 2, 30], [False, True]]
    prepare = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "weight"]),
            ("w", OneHotEncoder(categories=levels, handle_unknown="ignore"), ["town", "stage", "smoker"]),
        ]
    )
    model = make_pipeline(prepare, LogisticRegression(C=c, max_iter=5000, tol=1e-9))
    return model.fit(frame, frame["y"] == "yes").predict_proba(frame)[:, 1]


def test_predictions_with_words_are_those_of_scikit_learn(served):
    """`/predict` and `/predict/batch` give for each row of the table the probability of an independent pipeline."""
    _, table, card, client = served
    expectation = independent(table, card.recipe.best["C"])
    assert np.ptp(expectation) > 0.5
    single = [client.post("/predict", json=request(row)).json["probability"] for row in table]
    batch = client.post("/predict/batch", json={"instances": [request(row) for row in table]}).json["predictions"]
    assert single == pytest.approx(expectation, abs=1e-5)
    assert [each["probability"] for each in batch] == pytest.approx(expectation, abs=1e-5)


def test_rare_and_absent_levels_get_the_same_answer(client):
    """The model treats a level with few rows and one with none as the same, and others as different."""
    answers = {town: client.post("/predict", json={**GOOD, "town": town}).json["probability"] for town in TOWNS}
    assert len({answers[town] for town in [*RARE, TOWNS[-1]]}) == 1
    assert len({answers[town] for town in FREQUENT}) == len(FREQUENT)


def test_the_event_has_the_words_of_the_request(served):
    """An event records the level and the boolean as they were sent, not the model's input for them."""
    folder, _, _, client = served
    record = {**GOOD, "town": 'say "hi"', "smoker": False}
    answer = client.post("/predict", json=record)
    (event,) = (e for e in written(folder / "api" / "events") if e.get("event.id") == answer.json["id"])
    assert event["lab.features"] == record
    assert event["lab.features"]["smoker"] is False


FIRST_TEN = ", ".join(TOWNS[:10])
WRONG = {
    "an unknown level": ({"town": "Nowhere"}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "another case": ({"town": "Plain"}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "a space more": ({"town": "plain "}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "an empty word": ({"town": ""}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "a number for a word": ({"town": 1}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "a list for a word": ({"town": ["plain"]}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "an object for a word": ({"town": {}}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "true for a word": ({"town": True}, "town", f"is none of {FIRST_TEN} and 3 more"),
    "an unknown whole number": ({"stage": 3}, "stage", "is none of 1, 2, 30"),
    "a fraction as a level": ({"stage": 1.5}, "stage", "is none of 1, 2, 30"),
    "text for a whole number": ({"stage": "1"}, "stage", "is none of 1, 2, 30"),
    "true for a whole number": ({"stage": True}, "stage", "is none of 1, 2, 30"),
    "null for a level": ({"stage": None}, "stage", "is missing"),
    "1 for true": ({"smoker": 1}, "smoker", "is neither true nor false"),
    "1.0 for true": ({"smoker": 1.0}, "smoker", "is neither true nor false"),
    "the text true": ({"smoker": "true"}, "smoker", "is neither true nor false"),
    "null for a boolean": ({"smoker": None}, "smoker", "is missing"),
    "a word for a number": ({"age": "plain"}, "age", "is not a number"),
}


@pytest.mark.parametrize(("change", "name", "detail"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_422_and_names_the_right_ones(client, change, name, detail):
    """The error names the field and the levels, the first ten and the number of the others, alone and in a batch."""
    record = {**GOOD, **change}
    answer = client.post("/predict", json=record)
    assert answer.status_code == 422
    assert answer.json["errors"] == [{"detail": detail, "pointer": f"#/{name}"}]
    batch = client.post("/predict/batch", json={"instances": [GOOD, record]})
    assert batch.status_code == 422
    assert batch.json["errors"] == [{"detail": detail, "pointer": f"#/instances/1/{name}"}]


def test_every_fault_of_a_record_is_listed(client):
    """Faults in a category, a boolean and a number, a missing feature and an unknown one are in one answer."""
    answer = client.post("/predict", json={"age": -1, "town": 0, "smoker": "yes", "colour": "red"})
    pointers = {each["pointer"]: each["detail"] for each in answer.json["errors"]}
    assert pointers.keys() == {"#/age", "#/town", "#/smoker", "#/stage", "#/colour"}
    assert pointers["#/stage"] == "is missing"


def probability(client, text: str) -> float:
    """The probability of one record, alone and in a batch, which must be the same."""
    one = client.post("/predict", data=text.encode(), content_type="application/json")
    many = client.post("/predict/batch", data=f'{{"instances":[{text}]}}'.encode(), content_type="application/json")
    assert (one.status_code, many.status_code) == (200, 200), one.text + many.text
    assert one.json["probability"] == many.json["predictions"][0]["probability"]
    return one.json["probability"]


@pytest.mark.parametrize("town", TOWNS)
def test_a_word_may_have_any_mark(client, town):
    """Quotes, backslashes, commas, braces and other scripts are read in each form in which JSON can write them."""
    plain = json.dumps({**GOOD, "town": town}, ensure_ascii=False)
    escaped = json.dumps({**GOOD, "town": town})
    codes = "".join(f"\\u{unit:04x}" for unit in np.frombuffer(town.encode("utf-16-le"), "<u2"))
    coded = json.dumps({**GOOD, "town": "TOWN"}).replace("TOWN", codes)
    assert probability(client, plain) == probability(client, escaped) == probability(client, coded)


def test_other_forms_of_a_value_are_the_same_value(client):
    """1.0 is the level 1, and a missing word may be null or left out."""
    assert probability(client, json.dumps({**GOOD, "stage": 30.0})) == probability(
        client, json.dumps({**GOOD, "stage": 30})
    )
    absent = {name: value for name, value in GOOD.items() if name != "town"}
    assert probability(client, json.dumps({**GOOD, "town": None})) == probability(client, json.dumps(absent))


@pytest.mark.parametrize(
    "pair", ['"town":"plain","town":"l"', '"town":"plain","town":null', '"town":"l","\\u0074own":"say \\"hi\\""']
)
def test_a_word_that_is_given_twice_is_refused(client, pair):
    """A repeated key of a category is a fault, alone and in a batch, whatever the words are."""
    text = f'{{"age":40,"stage":2,"smoker":true,{pair}}}'
    for path, body in (("/predict", text), ("/predict/batch", f'{{"instances":[{text}]}}')):
        answer = client.post(path, data=body.encode(), content_type="application/json")
        assert answer.status_code == 422
        assert [each["detail"] for each in answer.json["errors"]] == ["is given more than once"]


@pytest.mark.parametrize("town", [mixed.COMMAS, "{braces}}"])
def test_the_largest_batch_may_have_words_with_braces_and_commas(client, town):
    """10,000 records with marks in their words pass the count of marks before the parsing, in their order."""
    pair = [{**GOOD, "town": town}, {**GOOD, "town": 'say "hi"'}]
    records = [pair[0]] * (cards.BATCH_ROWS - 1) + [pair[1]]
    body = json.dumps({"instances": records}, indent=4).encode()
    assert len(body) > MEASURED
    answer = client.post("/predict/batch", data=body, content_type="application/json")
    assert answer.status_code == 200, answer.text[:300]
    values = [each["probability"] for each in answer.json["predictions"]]
    first, last = (client.post("/predict", json=record).json["probability"] for record in pair)
    assert first != last
    assert values == pytest.approx([first] * (cards.BATCH_ROWS - 1) + [last], abs=1e-6)


def test_the_openapi_document_accepts_what_the_api_accepts(client):
    """The document has an `enum` of the levels, and JSON Schema gives the same verdict as the API on each request."""
    schema = client.get("/openapi.json").json["components"]["schemas"]["Record"]
    assert schema["properties"]["town"]["enum"] == [*TOWNS, None]
    assert schema["properties"]["stage"]["enum"] == [1, 2, 30]
    assert schema["properties"]["smoker"]["type"] == "boolean"
    assert schema["required"] == ["age", "stage", "smoker"]
    validator = jsonschema.Draft202012Validator(schema)
    right = [*({**GOOD, "town": town} for town in [*TOWNS, None]), {**GOOD, "stage": 30.0, "smoker": False}]
    wrong = [{**GOOD, **change} for change, _, _ in WRONG.values()]
    for record in right + wrong:
        status = client.post("/predict", json=record).status_code
        assert status == (200 if validator.is_valid(record) else 422), record
    assert all(map(validator.is_valid, right))


def test_the_card_counts_levels_and_tests_itself_with_words(served):
    """A reference has a share and a count for each level, and the rows of the self-test have words and booleans."""
    _, table, card, _ = served
    for feature in card.features[2:]:
        histogram = card.feature_reference[feature.name]
        levels = [False, True] if feature.type == "boolean" else feature.levels
        assert histogram.levels == levels
        assert histogram.edges == []
        assert histogram.counts == [sum(row[feature.name] == level for row in table) for level in levels]
        assert histogram.shares == pytest.approx([count / len(table) for count in histogram.counts])
    assert card.feature_reference["town"].missing == pytest.approx(12 / len(table))
    known = [list(request(row).values()) for row in table]
    assert all(row in known for row in card.self_test.rows)
    towns, stages, smokers = (list(column) for column in list(zip(*card.self_test.rows, strict=True))[2:])
    assert set(stages) <= {1, 2, 30}
    assert {type(value) for value in smokers} == {bool}
    assert None in towns
    assert "plain" in towns
    assert (card.features[2].min, card.features[2].max) == (0, len(TOWNS) - 1)


def test_the_levels_in_another_order_give_the_same_answers(tmp_path, served):
    """The order of the levels in params.yaml is the order of the model's input only."""
    _, table, card, client = served
    turned = mixed.PARAMS.replace(
        msgspec.json.encode(TOWNS).decode(), msgspec.json.encode(TOWNS[::-1]).decode()
    ).replace("[1, 2, 30]", "[30, 1, 2]")
    definition = mixed.run(tmp_path, mixed.source(table, ("0", "TRUE")), turned)
    other, model = mixed.package(tmp_path, definition)
    assert other.recipe.best == card.recipe.best
    app = mixed.serve(tmp_path / "api", cards.encode(other), model)
    body = {"instances": [request(row) for row in table]}
    answers = [c.post("/predict/batch", json=body).json["predictions"] for c in (client, app.test_client())]
    app.close()
    assert [p["probability"] for p in answers[0]] == pytest.approx([p["probability"] for p in answers[1]], abs=1e-5)
