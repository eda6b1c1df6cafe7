"""Sources with other separators, marks, encodings and columns, and Parquet, give the dataset of the plain CSV."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from lab.errors import LabError
from lab.settings import ROOT
from tests.unit import mixed

PARAMS = """\
name: plain
title: Plain
source: {path: SOURCE, missing: "?"}
data: {until: ""}
id: who
target: {column: y, negative: {value: "no", label: "no"}, positive: {value: "ja, é", label: "yes"}}
features:
  a: {type: integer, min: -100, max: 100, nullable: true}
  b: {type: real, min: -5, max: 5}
  c: {type: category, levels: ["grün, hell", "x;y", "1,5"], nullable: true}
  d: {type: boolean}
candidates:
  logistic-regression: {estimator: sklearn.linear_model.LogisticRegression}
evaluation: {folds: 3, repeats: 1, inner_folds: 2}
threshold: {recall: 0.9}
"""
ROWS = [
    ["who", "a", "b", "c", "d", "y"],
    ["p1", "7", "0.5", "grün, hell", "true", "no"],
    ["p2", "?", "-1.25", "x;y", "false", "ja, é"],
    ["p,3", "-3", "2.0", "?", "true", "no"],
    ["p4", "40", "3.0", "1,5", "false", "ja, é"],
]


def text(rows: list[list[str]] = ROWS, separator: str = ",", comma: bool = False) -> str:
    """The rows with every cell in quotes; `comma`: the numbers have a decimal comma."""
    lines = [
        [cell.replace(".", ",") if comma and n and place in (1, 2) else cell for place, cell in enumerate(row)]
        for n, row in enumerate(rows)
    ]
    return "\n".join(separator.join(f'"{cell}"' for cell in line) for line in lines) + "\n"


def params(**changes: str) -> str:
    """The parameters with these keys of the source, each as YAML."""
    keys = {"path": "SOURCE", "missing": '"?"', **changes}
    return PARAMS.replace(
        '{path: SOURCE, missing: "?"}', "{" + ", ".join(f"{key}: {value}" for key, value in keys.items()) + "}"
    )


def dataset(folder: Path, source: str | bytes, definition: str = PARAMS) -> bytes:
    folder.mkdir(exist_ok=True)
    mixed.run(folder, source, definition, "ingest validate")
    return (folder / "data" / "dataset.csv").read_bytes()


SEMICOLON = {"separator": '";"', "decimal": '","'}
MARKS = [[{"p2": "p2", "?": ["n/a", "-"][n % 2]}.get(cell, cell) for cell in row] for n, row in enumerate(ROWS)]
MORE = [[row[0], f"note {n}", *row[1:], "9"] for n, row in enumerate(ROWS)]
MORE[0][1], MORE[0][-1] = "note", "code"
OTHER_NAMES = [["Who?", "A (mm)", "", "b", "b", "Y"], *ROWS[1:]]
NAMES = "[who, a, b, c, d, y]"
FORMS = {
    "semicolons and decimal commas": (text(separator=";", comma=True), SEMICOLON),
    "latin-1": (text(separator=";", comma=True).encode("latin-1"), {**SEMICOLON, "encoding": "latin-1"}),
    "a byte order mark": (text().encode("utf-8-sig"), {}),
    "a byte order mark and encoding UTF-8": (text().encode("utf-8-sig"), {"encoding": "UTF-8"}),
    "UTF-16": (text().encode("utf-16"), {"encoding": "utf-16"}),
    "UTF-16 in the other order": (b"\xfe\xff" + text().encode("utf-16-be"), {"encoding": "utf-16"}),
    "UTF-16 with tabs and the line ends of Windows": (
        text(separator="\t").replace("\n", "\r\n").encode("utf-16"),
        {"encoding": "utf-16", "separator": r'"\t"'},
    ),
    "tabs": (text(separator="\t"), {"separator": r'"\t"'}),
    "spaces": (text(separator=" "), {"separator": '" "'}),
    "bars": (text(separator="|"), {"separator": '"|"'}),
    "several missing marks": (text(MARKS), {"missing": '["?", "n/a", "-"]'}),
    "no missing mark and empty cells": (text().replace('"?"', '""'), {"missing": '""'}),
    "unused columns": (text(MORE), {"unused": "[note, code]"}),
    "columns in place of the header": (text(OTHER_NAMES), {"columns": NAMES}),
    "columns without a header": (text(ROWS[1:]), {"columns": NAMES, "header": "false"}),
    "columns and unused ones": (text(MORE), {"columns": "[who, z, a, b, c, d, y, q]", "unused": "[q, z]"}),
    "columns in another order": (text([row[::-1] for row in ROWS]), {}),
}


@pytest.mark.parametrize(("source", "changes"), FORMS.values(), ids=FORMS.keys())
def test_another_form_of_the_file_gives_the_same_dataset(tmp_path, source, changes):
    """The dataset is the same, byte by byte, as that of the comma separated file in UTF-8."""
    plain = dataset(tmp_path / "plain", text())
    assert '1,p1,7,0.5,"grün, hell",true,no\n' in plain.decode()
    assert '2,p2,,-1.25,x;y,false,"ja, é"\n' in plain.decode()
    assert dataset(tmp_path / "other", source, params(**changes)) == plain


WRONG = {
    "a point with decimal commas": (
        text(separator=";"),
        SEMICOLON,
        r"source.decimal is a comma, and .* numbers with a point: row 1, b: '0.5', row 2, b: '-1.25'",
    ),
    "a point for thousands": (
        text(separator=";", comma=True).replace('"7"', '"1.007,0"'),
        SEMICOLON,
        r"a point: row 1, a: '1.007,0'",
    ),
    "two decimal commas": (text(separator=";", comma=True).replace("0,5", "0,5,1"), SEMICOLON, "row 1, b: '0.5.1'"),
    "a decimal comma in UTF-8": (text(comma=True), {}, "row 1, b: '0,5' is not a number"),
    "latin-1 for UTF-8": (text().encode("latin-1"), {}, "is not UTF-8: line 2 has the byte 0xfc"),
    "UTF-8 for UTF-16": (text()[:-1].encode(), {"encoding": "utf-16"}, "is not utf-16|no comma|header"),
    "an encoding of no name": (text(), {"encoding": "utf-99"}, "source.encoding 'utf-99' is not known"),
    "an encoding that is none": (text(), {"encoding": "hex"}, "source.encoding 'hex' is not known"),
    "another separator": (text(separator=";").replace('"', ""), {}, "no comma in its first row"),
    "commas for tabs": (text().replace('"', ""), {"separator": r'"\t"'}, "no tab in its first row"),
    "commas for semicolons": (text(), {"separator": '";"'}, "line 1: a quoted cell .*; or correct source.separator"),
    "two separators": (text(), {"separator": '";;"'}, r"length <= 1 - at `\$.source.separator`"),
    "no separator": (text(), {"separator": '""'}, r"length >= 1 - at `\$.source.separator`"),
    "a quote as separator": (text(), {"separator": "'\"'"}, "source.separator must not be a quote or a line end"),
    "a line end as separator": (text(), {"separator": r'"\n"'}, "source.separator must not be a quote or a line end"),
    "one mark for two": (text(), {"decimal": '","'}, "separator and source.decimal are the same mark"),
    "another decimal": (text(), {"decimal": '"·"'}, r"at `\$.source.decimal`"),
    "a column that is not named": (text(MORE), {"unused": "[note]"}, "unknown: 'code'"),
    "an unused column that is absent": (text(), {"unused": "[note]"}, "missing: 'note'"),
    "an unused column that is used": (text(), {"unused": "[a]"}, "a is given twice"),
    "too few columns": (text(MORE), {"columns": NAMES}, "names 6 columns, and the header of .* has 8"),
    "columns of other names": (text(), {"columns": "[who, a, b, c, d, z]"}, "do not agree on y, z"),
    "no names": (text(), {"header": "false"}, "source.columns must name the columns of a file without a header"),
    "a second missing mark that is a class": (text(), {"missing": '["?", "no"]'}, "is also source.missing; a class"),
    "a second missing mark with a space": (text(), {"missing": '["?", " -"]'}, "source.missing has a space"),
}


@pytest.mark.parametrize(("source", "changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_form_is_one_message(tmp_path, source, changes, message):
    """The message names the key or the place in the file, and a remedy."""
    with pytest.raises(LabError) as error:
        dataset(tmp_path, source, params(**changes))
    assert re.search(message, str(error.value), re.DOTALL)
    assert error.value.remedy


QUERY = """
SELECT * FROM (VALUES
  ('p1', 7, 0.5::DOUBLE, 'grün, hell', true, 'no', DATE '2026-01-31'),
  ('p2', NULL, -1.25, 'x;y', false, 'ja, é', DATE '2026-02-01'),
  ('p,3', -3, 2.0, NULL, true, 'no', DATE '2026-02-28'),
  ('p4', 40, 3.0, '1,5', false, 'ja, é', DATE '2026-03-01')
) AS t(who, a, b, c, d, y, day)
"""
DAYS = ["day", "2026-01-31", "2026-02-01", "2026-02-28", "2026-03-01"]


def parquet(path: Path, query: str = QUERY) -> Path:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": "{column: day, by: month}"},
        {"unused": "[day]"},
        {"unused": "[day]", "decimal": '","', "separator": '";"'},
        {"unused": "[when]", "columns": "[who, a, b, c, d, y, when]"},
    ],
)
def test_parquet_gives_the_dataset_of_the_csv(tmp_path, changes):
    """Whole numbers, doubles, booleans, NULLs, words and dates of Parquet have the text of the CSV."""
    form = {key: value for key, value in changes.items() if key not in ("decimal", "separator")}
    plain = dataset(
        tmp_path / "plain", text([[*row, day] for row, day in zip(ROWS, DAYS, strict=True)]), params(**form)
    )
    path = parquet(tmp_path / "table [2026] *.parquet")
    assert dataset(tmp_path / "other", "", params(**changes, path=f'"{path}"')) == plain


def test_a_path_with_brackets_is_one_parquet_file(tmp_path):
    """A path is no pattern: rows come from the file whose hash is checked, and from no other."""
    parquet(tmp_path / "a.parquet", QUERY.replace("'p1'", "'other'"))
    path = parquet(tmp_path / "[a].parquet")
    assert b",p1," in dataset(tmp_path / "one", "", params(path=f'"{path}"', unused="[day]"))


def test_parquet_is_the_same_in_every_time_zone(tmp_path):
    """A time with a time zone is read in UTC, so that the month of a row depends on no machine."""
    path = parquet(
        tmp_path / "times.parquet", QUERY.replace("DATE '2026-01-31'", "TIMESTAMPTZ '2026-01-31 23:30:00+00'")
    )
    (tmp_path / "params.yaml").write_text(params(path=f'"{path}"', groups="{column: day}"))
    command = [sys.executable, "-m", "trainer", "ingest", "--params", str(tmp_path / "params.yaml")]
    datasets = set()
    for zone in ("America/New_York", "Asia/Tokyo"):
        subprocess.run(command, cwd=ROOT, env={**os.environ, "TZ": zone}, check=True, capture_output=True, timeout=120)
        datasets.add((tmp_path / "data" / "dataset.csv").read_text())
    assert len(datasets) == 1
    assert "1,2026-01,p1," in datasets.pop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1", "is not a Parquet file that can be read"),
        (b"a,b\n1,2\n", "is not a Parquet file that can be read"),
        (b"", "is not a Parquet file that can be read"),
    ],
)
def test_what_is_no_parquet_is_one_message(tmp_path, content, message):
    """A file of another form with the name of Parquet is refused."""
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(LabError, match=message) as error:
        dataset(tmp_path / "other", "", params(path=f'"{path}"'))
    assert error.value.remedy


def test_cells_of_parquet_are_checked_as_those_of_text(tmp_path):
    """A wrong value of Parquet names row and column, a column too many is named, and an empty table has no rows."""
    for query, message in (
        (QUERY.replace("40,", "101,"), "row 4, a: '101' is not a whole number from -100 to 100"),
        (QUERY.replace("'x;y'", "'x' || chr(10) || 'y'"), r"row 2, c: 'x\\ny'"),
        (QUERY.replace(", day)", ", other)"), "missing: 'day'; unknown: 'other'"),
        (QUERY + "WHERE a > 1000", "has no rows"),
    ):
        path = parquet(tmp_path / "wrong.parquet", query)
        with pytest.raises(LabError, match=message):
            dataset(tmp_path / "other", "", params(path=f'"{path}"', unused="[day]"))
