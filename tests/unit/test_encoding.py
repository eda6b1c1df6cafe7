"""The encoding of levels: the levels with a column, ONNX against scikit-learn, and the report of rare levels."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lab import problem
from lab.errors import LabError
from tests.unit import mixed
from tests.unit.mixed import RARE, TOWNS
from trainer.encoding import LEAST_ROWS, MISSING, LevelEncoder
from trainer.estimators import pipeline
from trainer.export import export, predict


def column(counts: dict[float, int]) -> np.ndarray:
    """One feature, shape (rows, 1), with these numbers of rows of each level."""
    return np.repeat(list(counts), list(counts.values()))[:, None].astype(float)


def test_levels_with_few_rows_have_no_column():
    """A level has a column from LEAST_ROWS rows on; rarer and absent levels are all zeros, and so the same."""
    encoder = LevelEncoder().fit(column({0: LEAST_ROWS, 1: LEAST_ROWS - 1, 2: 30, MISSING: LEAST_ROWS, 4: 1}))
    assert encoder.levels_.tolist() == [MISSING, 0, 2]
    encoded = encoder.transform(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [MISSING]]))
    assert encoded.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


@given(st.lists(st.dictionaries(st.integers(-1, 5).map(float), st.integers(1, 25), min_size=1), min_size=1, max_size=4))
def test_the_most_frequent_level_always_has_a_column(features):
    """For any counts, each feature has a column for its most frequent level and for each level with enough rows."""
    rows = max(sum(counts.values()) for counts in features)
    x = np.column_stack([np.resize(column(counts)[:, 0], rows) for counts in features])
    encoder = LevelEncoder().fit(x)
    for place in range(x.shape[1]):
        values, counts = np.unique(x[:, place], return_counts=True)
        own = set(encoder.levels_[encoder.places_ == place].tolist())
        assert values[counts.argmax()] in own
        assert own >= set(values[counts >= LEAST_ROWS].tolist())
        if counts.max() >= LEAST_ROWS:
            assert own == set(values[counts >= LEAST_ROWS].tolist())
    assert encoder.transform(x).shape == (rows, len(encoder.levels_))
    assert set(encoder.transform(x).ravel().tolist()) <= {0.0, 1.0}


def with_features(features: dict[str, problem.Feature]) -> problem.Problem:
    """A problem with these features; the steps of the pipeline depend on nothing else."""
    return msgspec.structs.replace(problem.parse(mixed.PARAMS), features=features)


@st.composite
def tables(draw):
    """The features of a problem, and rows for them with missing values."""
    kinds = draw(st.lists(st.sampled_from(["real", "category", "boolean"]), min_size=1, max_size=5))
    features = {}
    for number, kind in enumerate(kinds):
        levels = list(range(draw(st.integers(2, 6)))) if kind == "category" else []
        bounds = {"min": -9.0, "max": 9.0} if kind == "real" else {}
        features[f"f{number}"] = problem.Feature(type=kind, levels=levels, nullable=True, **bounds)
    rng, rows = np.random.default_rng(draw(st.integers(0, 999))), draw(st.integers(12, 60))
    columns = [
        rng.uniform(-9, 9, rows) if f.type == "real" else np.floor((f.max + 1) * rng.beta(1, 2, rows))
        for f in features.values()
    ]
    x = np.column_stack(columns)
    x[rng.random(x.shape) < draw(st.sampled_from([0, 0.3]))] = np.nan
    x[0] = 0  # no column is empty
    return features, x


@given(tables())
@settings(max_examples=25)
def test_onnx_gives_what_scikit_learn_gives(made):
    """For random features and rows with missing values, the export agrees on each row, and on rows never seen."""
    features, x = made
    definition = with_features(features)
    y = np.arange(len(x)) % 2
    model = pipeline(LogisticRegression(), list(definition.features.values())).fit(x, y)
    onnx = export(model, x, 2.0, "model")
    low, high = ([getattr(f, end) for f in features.values()] for end in ("min", "max"))
    other = np.vstack([low, high, np.full(x.shape[1], np.nan)])
    for rows in (x, other):
        assert predict(onnx, rows) == pytest.approx(model.predict_proba(rows)[:, 1], abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_category_without_values_in_a_fold_can_be_fitted():
    """The training rows of a fold may have no value of the only category: the model is fitted without a warning."""
    features = {
        "a": problem.Feature(type="real", min=-9, max=9),
        "b": problem.Feature(type="category", levels=["x", "y"], nullable=True),
    }
    definition = with_features(features)
    x = np.column_stack([np.arange(20.0), np.full(20, np.nan)])
    model = pipeline(LogisticRegression(), list(definition.features.values())).fit(x, np.arange(20) > 9)
    assert np.isfinite(model.predict_proba([[3.0, 1.0], [3.0, np.nan]])).all()


@pytest.fixture
def table():
    return mixed.rows()


def test_the_report_counts_rare_levels(tmp_path, table):
    """validation.json has each level with fewer than LEAST_ROWS rows, absent ones included, and no other."""
    mixed.run(tmp_path, mixed.source(table), stages="ingest validate")
    report = json.loads((tmp_path / "data" / "validation.json").read_text())
    assert report["rare_levels"] == {"town": {**dict.fromkeys(RARE, 3), TOWNS[-1]: 0}, "stage": {}, "smoker": {}}
    assert report["missing"]["town"] == 12


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("town", "Nowhere", "row 3, town: 'Nowhere' is not one of say \"hi\", .*#9 and 3 more"),
        ("town", "PLAIN", "row 3, town: 'PLAIN' is not one of"),
        ("stage", 3, "row 3, stage: '3' is not one of 1, 2, 30"),
        ("stage", "1.5", "row 3, stage: '1.5' is not one of 1, 2, 30"),
        ("stage", "?", "row 3, stage: None is not a value"),
        ("stage", "\u0661", "row 3, stage: '\u0661' is not one of 1, 2, 30"),
    ],
)
def test_an_unknown_level_names_its_row_and_column(tmp_path, table, name, value, message):
    """A cell that is no level is one message with the row, the column and the levels."""
    table[2][name] = value
    with pytest.raises(LabError, match=message) as error:
        mixed.run(tmp_path, mixed.source(table), stages="ingest validate")
    assert "1 fault(s)" in error.value.message


@pytest.mark.parametrize("words", [("F", "T"), ("no", "Yes"), ("N", "y"), ("FALSE", "true"), ("0", "1")])
def test_booleans_have_several_words(tmp_path, table, words):
    """Each pair of words is read in any case."""
    definition = mixed.run(tmp_path, mixed.source(table, words), stages="ingest validate")
    assert definition.features["smoker"].max == 1


@pytest.mark.parametrize("word", ["2", "on", "oui", "1.0", "?"])
def test_other_words_are_no_boolean(tmp_path, table, word):
    """Another word in a boolean column is one message that lists the words."""
    with pytest.raises(LabError, match=r"smoker: .* is not (true or false \(or yes and no|a value)"):
        mixed.run(tmp_path, mixed.source(table, ("no", word)), stages="ingest validate")


@pytest.mark.parametrize("text", ["30.0", "+30", "030"])
def test_a_whole_number_as_a_level_may_have_another_form(tmp_path, table, text):
    """The cell 30.0 of a spreadsheet is the level 30."""
    rows = [{**row, "stage": text} if row["stage"] == 30 else row for row in table]
    mixed.run(tmp_path, mixed.source(rows), stages="ingest validate")
