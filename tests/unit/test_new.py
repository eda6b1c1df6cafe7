"""`make new` drafts a params.yaml that the lab can train on, and refuses with one message what is no table."""

from __future__ import annotations

import random
import zipfile

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import problem
from lab.errors import LabError
from trainer import evaluate, ingest, validate
from trainer.draft import new
from trainer.table import table

ROWS = 300


@pytest.fixture
def draft(tmp_path, monkeypatch):
    """Give a function that runs `make new` in a folder of its own, and returns the problem."""
    monkeypatch.setattr(new, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(ingest, "ROOT", tmp_path)

    def run(path, target="y", positive="", name="mine"):
        new.new(path, target, positive, name)
        return problem.load(tmp_path / "tables" / (name or path.stem) / "params.yaml")

    return run


def frame(rows: int = ROWS) -> pd.DataFrame:
    """A table with numbers, words, dates, an id and texts; the class depends on `size` and `colour`."""
    draw = np.random.default_rng(5)
    size, colour = draw.normal(50, 10, rows).round(1), draw.choice(["red", "green", "blue"], rows)
    score = (size - 50) / 5 + 2.0 * (colour == "red") + draw.normal(0, 1, rows)
    return pd.DataFrame(
        {
            "order id": np.arange(rows) * 3 + 7,
            "size": size,
            "count": draw.integers(1, 9, rows),
            "colour": colour,
            "member": draw.choice(["true", "false"], rows),
            "day": pd.date_range("2026-01-05", periods=rows, freq="D").strftime("%Y-%m-%d"),
            "note": [f"note {row}" for row in range(rows)],
            "constant": "x",
            "y": np.where(score > 0.5, "yes", "no"),
        }
    )


def written(path, data: pd.DataFrame, **options):
    data.to_csv(path, index=False, **options)
    return path


def test_a_draft_has_what_the_table_has(draft, tmp_path):
    """Types, bounds, levels, id, dates and the columns left out are those of the table; the file is a copy."""
    source = written(tmp_path / "orders.csv", frame())
    definition = draft(source, name="")
    assert definition.name == "orders"
    assert definition.id == "order_id"
    assert {name: feature.type for name, feature in definition.features.items()} == {
        "size": "real",
        "count": "integer",
        "colour": "category",
        "member": "boolean",
    }
    assert definition.features["colour"].levels == ["blue", "green", "red"]
    assert (definition.features["count"].min, definition.features["count"].max) == (1, 8)
    size = frame()["size"]
    assert 0 <= definition.features["size"].min < size.min() < size.max() < definition.features["size"].max < 120
    assert definition.source.unused == ["note", "constant"]
    assert definition.source.date_column == "day"
    assert (definition.target.positive.value, definition.target.negative.value) == ("yes", "no")
    assert (tmp_path / definition.source.path).read_bytes() == source.read_bytes()
    assert 0.6 <= definition.choice.floors["roc_auc"] < 0.95


def test_a_draft_can_be_trained_on(draft, tmp_path):
    """The dataset of the draft is valid, has all rows, and fits every candidate."""
    definition = draft(written(tmp_path / "orders.csv", frame()))
    data = table(definition, validate.validate(definition, validate.frame_of(*ingest.ingest(definition))))
    assert data.x.shape == (ROWS, 4)
    assert data.months.max() == 9
    for name, candidate in definition.candidates.items():
        model = evaluate.build(definition, name, candidate).fit(data.x, data.y)
        assert model.score(data.x, data.y) > 0.7, name


FORMS = {
    "semicolons, decimal commas, Latin-1": {"sep": ";", "decimal": ",", "encoding": "latin-1"},
    "tabs, UTF-16": {"sep": "\t", "encoding": "utf-16"},
    "a byte order mark": {"encoding": "utf-8-sig"},
    "bars": {"sep": "|"},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_every_form_of_a_file_gives_the_same_dataset(draft, tmp_path, options):
    """Separator, decimal mark and encoding are found, and do not change the dataset."""
    data = frame().assign(colour=lambda f: f["colour"].replace("red", "röt"))
    plain = ingest.ingest(draft(written(tmp_path / "a.csv", data), name="a"))
    other = ingest.ingest(draft(written(tmp_path / "b.csv", data, **options), name="b"))
    assert other == plain


def test_parquet_gives_the_same_dataset(draft, tmp_path):
    data = frame().drop(columns="day")
    plain = ingest.ingest(draft(written(tmp_path / "a.csv", data), name="a"))
    data.assign(member=data["member"] == "true").to_parquet(tmp_path / "b.parquet", index=False)
    assert ingest.ingest(draft(tmp_path / "b.parquet", name="b")) == plain


def test_marks_of_missing_values_are_found(draft, tmp_path):
    """NA in words and a hyphen in numbers mean missing; a hyphen among words is a level of its own."""
    data = frame().astype({"size": str})
    data.loc[:9, "size"], data.loc[20:29, "colour"] = "-", "NA"
    definition = draft(written(tmp_path / "a.csv", data))
    assert definition.source.missing_marks == ["-", "NA"]
    assert definition.features["size"].nullable
    assert definition.features["colour"].nullable
    assert definition.features["colour"].levels == ["blue", "green", "red"]
    rows = validate.frame_of(*ingest.ingest(definition))
    assert (int(rows["size"].isna().sum()), int(rows["colour"].isna().sum())) == (10, 10)


def test_one_value_can_be_the_positive_class_against_the_others(draft, tmp_path):
    data = frame().assign(y=lambda f: np.where(f["count"] > 6, "maybe", f["y"]))
    path = written(tmp_path / "a.csv", data)
    with pytest.raises(LabError, match=r"has 3 values: .*maybe \(\d+ rows\)"):
        draft(path)
    definition = draft(path, positive="maybe")
    assert definition.target.positive.values == ["maybe"]
    assert sorted(definition.target.negative.values) == ["no", "yes"]
    valid = validate.validate(definition, validate.frame_of(*ingest.ingest(definition)))
    assert int(valid["y"].sum()) == int((data["y"] == "maybe").sum())


def test_what_a_person_must_decide_is_said(draft, tmp_path, capsys):
    """A leak, rare positives, repeated rows and few rows of a class are warnings."""
    data = frame().drop(columns=["order id", "day", "note"])
    data["outcome"] = np.where(data["y"] == "yes", 1.5, 2.5)
    rare = pd.concat([data[data["y"] == "no"], data[data["y"] == "yes"].head(15)])
    draft(written(tmp_path / "a.csv", pd.concat([rare, rare.head(5)])))
    output = capsys.readouterr().out
    for text in (
        "outcome alone tells the classes apart (ROC AUC 1.000)",
        "5 rows repeat another row",
        "a class has 15 rows only",
        "the classes are out of balance",
    ):
        assert text in output


def change(row: int, column: str, value: str):
    """A function that changes one cell of a table; rows are counted from 1."""

    def changed(data: pd.DataFrame) -> pd.DataFrame:
        data = data.astype(str)
        data.loc[row - 1, column] = value
        return data

    return changed


REFUSED = {
    "a word among numbers": (change(17, "size", "big"), "row 17, size: 'big'"),
    "a day that does not exist": (change(30, "day", "2026-02-31"), "row 30, day: '2026-02-31'"),
    "levels that differ in case": (change(40, "colour", "Red"), "column colour: 'Red' in row 40 and 'red' in row"),
    "levels that differ in spaces": (
        lambda data: change(9, "colour", "dark  red")(change(8, "colour", "dark red")(data)),
        "column colour: 'dark  red' in row 9 and 'dark red' in row 8",
    ),
    "a row without a class": (change(12, "y", ""), "1 rows have no value in the target y, such as row 12"),
    "no such column": (lambda data: data.rename(columns={"y": "z"}), "no column 'y'; it has order id, size"),
    "one column": (lambda data: data[["y"]], "has one column"),
    "no rows": (lambda data: data.head(0), "has no rows"),
    "a target that is no class": (lambda data: data.assign(y=data["note"]), "300 different values, so it is no class"),
    "too few of a class": (
        lambda data: pd.concat([data[data["y"] == "no"], data[data["y"] == "yes"].head(4)]),
        "one class of y has 4 rows",
    ),
    "ten thousand columns": (
        lambda data: pd.concat([data.head(20), pd.DataFrame(1, range(20), [f"c{n}" for n in range(10_000)])], axis=1),
        "has 10,009 columns",
    ),
    "nothing to learn from": (lambda data: data[["note", "constant", "y"]], "no column is left to learn from"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_one_message_and_nothing_is_written(draft, tmp_path, changed, message):
    path = written(tmp_path / "a.csv", changed(frame()))
    with pytest.raises(LabError) as error:
        draft(path)
    assert message in error.value.message, error.value.message
    assert error.value.remedy
    assert not list(tmp_path.glob("tables/*"))


def test_files_that_are_no_table_are_refused(draft, tmp_path):
    """An empty file, a missing file, an Excel file, a file of bytes, a broken Parquet file."""
    empty, excel, noise, parquet = (tmp_path / name for name in ("empty.csv", "a.xlsx", "noise.csv", "a.parquet"))
    empty.write_bytes(b"")
    with zipfile.ZipFile(excel, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    noise.write_bytes(random.Random(1).randbytes(5_000))
    parquet.write_bytes(b"PAR1 and then nothing")
    for path, message in (
        (empty, "is empty"),
        (excel, "is a spreadsheet"),
        (tmp_path / "absent.csv", "cannot read"),
        (noise, "noise.csv"),
        (parquet, "is not a Parquet file"),
    ):
        with pytest.raises(LabError) as error:
            draft(path)
        assert message in error.value.message
    assert not list(tmp_path.glob("tables/*"))


def test_a_name_that_is_taken_is_refused_and_left_alone(draft, tmp_path):
    path = written(tmp_path / "a.csv", frame())
    draft(path, name="mine")
    before = (tmp_path / "tables" / "mine" / "params.yaml").read_bytes()
    with pytest.raises(LabError, match="tables/mine exists"):
        draft(path, name="mine")
    with pytest.raises(LabError, match="cannot be the name of a table"):
        draft(path, name="../mine")
    assert (tmp_path / "tables" / "mine" / "params.yaml").read_bytes() == before
    assert [each.name for each in (tmp_path / "tables").iterdir()] == ["mine"]


CELLS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.3f}"),
    st.sampled_from(["", "NA", "red", "Blue sky", "a,b", 'a "b"', "ü", "true", "2026-01-01", "007", "yes: no", "#1"]),
)


@given(
    cells=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    names=st.lists(st.text("aB _-%é1.", min_size=1, max_size=8), min_size=3, max_size=3, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_any_table_is_drafted_or_refused(tmp_path_factory, cells, names):
    """For any cells and names: draft and dataset are valid, or there is one message and nothing is written."""
    folder = tmp_path_factory.mktemp("any")
    rows = [[*cells[row % len(cells)], "yes" if row % 3 else "no"] for row in range(60)]
    path = folder / "a.csv"
    pd.DataFrame(rows, columns=[*names, "the class"]).to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new, "TABLES", folder / "tables")
        patch.setattr(ingest, "ROOT", folder)
        try:
            new.new(path, "the class", "", "mine")
        except LabError as error:
            assert error.remedy  # noqa: PT017  # only some of the tables are refused
            assert not list(folder.glob("tables/*"))
            return
        definition = problem.load(folder / "tables" / "mine" / "params.yaml")
        valid = validate.validate(definition, validate.frame_of(*ingest.ingest(definition)))
    assert len(valid) == 60


def test_a_file_that_duckdb_wrote_is_read(draft, tmp_path):
    """DuckDB's own CSV, with its quotes, is drafted as the frame is."""
    with duckdb.connect() as connection:
        connection.from_df(frame()).write_csv(str(tmp_path / "a.csv"))
    assert list(draft(tmp_path / "a.csv").features) == ["size", "count", "colour", "member"]
