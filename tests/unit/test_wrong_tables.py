"""For a wrong table or params.yaml the trainer's commands give one message, and never compute with another value."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.record import CONTROL
from trainer import validate
from trainer.__main__ import main

PARAMS = """\
name: mine
title: Mine
source: {path: SOURCE, missing: "?"}
data: {until: ""}
id: ""
target: {column: y, negative: {value: "no", label: "no"}, positive: {value: "yes", label: "yes"}}
features:
  a: {type: integer, min: 0, max: 100}
  b: {type: real, min: -5, max: 5, nullable: true}
candidates:
  logistic-regression: {estimator: sklearn.linear_model.LogisticRegression}
evaluation: {folds: 3, repeats: 1, inner_folds: 2}
threshold: {recall: 0.9}
"""
TABLE = "a,b,y\n" + "".join(f"{n},{n / 10},{'yes' if n % 2 else 'no'}\n" for n in range(1, 25))
FEATURE_A, FEATURE_B = (
    "  a: {type: integer, min: 0, max: 100}\n",
    "  b: {type: real, min: -5, max: 5, nullable: true}\n",
)


def run(tmp_path: Path, table: str | bytes = TABLE, params: str = PARAMS, stages: str = "ingest validate") -> Path:
    """Run the stages on a table as `dvc repro` does; return the folder."""
    (tmp_path / "source.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    (tmp_path / "params.yaml").write_text(params.replace("SOURCE", str(tmp_path / "source.csv")))
    for stage in stages.split():
        assert main([stage, "--params", str(tmp_path / "params.yaml")]) == 0
    return tmp_path


def cells(tmp_path: Path) -> list[list[str]]:
    with (tmp_path / "data" / "dataset.csv").open(newline="", encoding="utf-8") as file:
        return [line[1:] for line in csv.reader(file)]


def first(row: str) -> str:
    """The table with another first row."""
    return TABLE.replace("1,0.1,yes\n", row + "\n", 1)


WRONG_TABLES = {
    "nothing": ("", "has no rows|header"),
    "a header only": ("a,b,y\n", "has no rows"),
    "blank lines only": ("\n  \n\n", "header"),
    "a newline within a number": (first('"1\n0",0.1,yes'), r"row 1, a: '1\\n0'"),
    "a newline after a number": (first('"1\n",0.1,yes'), r"row 1, a: '1\\n'"),
    "a newline in a later row": (TABLE.replace("\n7,0.7", '\n"7\n",0.7'), r"row 7, a: '7\\n'"),
    "a newline within a class": (first('1,0.1,"y\nes"'), r"row 1, y: 'y\\nes'"),
    "a carriage return within a number": (first('"1\r0",0.1,yes'), r"row 1, a: '1\\r0'"),
    "a tab within a number": (first("1\t0,0.1,yes"), r"row 1, a: '1\\t0'"),
    **{
        f"U+{ord(end):04X} within a number": (first(f"1{end}0,0.1,yes"), r"row 1, a: '1\\")
        for end in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    },
    "NUL": (first("1\x000,0.1,yes"), r"row 1, a: '1\\x000'"),
    "a quote that is not closed": (first('"1,0.1,yes'), "line 2: a quoted cell is not closed"),
    "a quote that is not closed at the end": (TABLE + '5,0.5,"yes', "line 26: a quoted cell is not closed"),
    "text after a quote": (first('"1"0,0.1,yes'), "line 2: a quoted cell .* goes on"),
    "a cell of a megabyte": (first("1" * 2**20 + ",0.1,yes"), "line 2: .* too long"),
    "bytes that are no UTF-8": (first("1,0.1,yes").encode() + b"\xff,1,yes\n", "line 26 has the byte 0xff"),
    "UTF-16": (TABLE.encode("utf-16"), "not UTF-8"),
    "a column too few": (first("1,0.1"), "row 1 has 2"),
    "a column too many": (first("1,0.1,yes,"), "row 1 has 4"),
    "a decimal comma": (first("1,0,1,yes"), "row 1 has 4"),
    "a quoted decimal comma": (first('1,"0,1",yes'), "row 1, b: '0,1' is not a number from -5 to 5"),
    "semicolons": (TABLE.replace(",", ";"), "has no comma in its first row"),
    "tabs": (TABLE.replace(",", "\t"), "has no comma in its first row"),
    "no header": (TABLE.split("\n", 1)[1], "header .* missing: 'a', 'b', 'y'"),
    "a header name twice": (TABLE.replace("a,b,y", "a,a,y"), "missing: 'b'; more than once: 'a'"),
    "the target twice": (re.sub("(?m)$", ",yes", TABLE.rstrip()).replace("y,yes", "y,y", 1), "more than once: 'y'"),
    "a header name in another case": (TABLE.replace("a,b,y", "A,b,y"), "missing: 'a'; unknown: 'A'"),
    "a header name with a newline": (TABLE.replace("a,b,y", '"a\n",b,y'), r"unknown: 'a\\n'"),
    "a column more": (TABLE.replace("\n", ",1\n").replace("y,1", "y,z", 1), "unknown: 'z'"),
    "five thousand columns more": (
        "\n".join(
            line + (",c" * 5000 if n else "".join(f",c{i}" for i in range(5000)))
            for n, line in enumerate(TABLE.splitlines())
        ),
        "and 4980 more",
    ),
    "nothing in a cell": (first(",0.1,yes"), "row 1, a: None is not a value"),
    "the missing mark in a cell": (first("?,0.1,yes"), "row 1, a: None is not a value"),
    "nothing in the target": (first("1,0.1,"), "row 1, y: None is not"),
    **{
        f"{value} as a whole number": (
            first(f'"{value}",0.1,yes'),
            rf"row 1, a: {re.escape(repr(value))} is not a whole",
        )
        for value in [
            "1_0",
            "\uff11",
            "\u0663",
            "nan",
            "inf",
            "-inf",
            "infinity",
            "1e400",
            "0x10",
            "1.5",
            "1 0",
            "1e5",
            "101",
            "-1",
            "one",
            "TRUE",
            "1,5",
            "1'000",
            "\u22121",
            "½",
            "²",
            "1e",
            "--1",
            "1\ufeff",
            "\u200b1",
            "'1'",
        ]
    },
    "a class never seen": (first("1,0.1,Yes"), "row 1, y: 'Yes' is not one of"),
    "a quoted class within spaces": (first('1,0.1, "yes"'), "row 1, y: '\"yes\"' is not one of"),
    "one class only": (TABLE.replace("yes", "no"), "one class only: y is 'no' in each"),
    "an empty column": (re.sub(r",[\d.]+,", ",,", TABLE), "no value in the columns b"),
    "ten thousand faults": ("a,b,y\n" + "x,0,yes\n" * 10_000, "and 9980 more"),
}


@pytest.mark.parametrize(("table", "message"), WRONG_TABLES.values(), ids=WRONG_TABLES.keys())
def test_a_wrong_table_is_one_message(tmp_path, table, message):
    """Ingest or validation refuses the table with the place in the file and a remedy."""
    with pytest.raises(LabError, match=message) as error:
        run(tmp_path, table)
    assert error.value.remedy
    assert len(error.value.message) < 4000
    assert "source.csv" in error.value.message or "the dataset" in error.value.message


RIGHT_TABLES = {
    "a byte order mark": "\ufeff" + TABLE,
    "line ends of Windows": TABLE.replace("\n", "\r\n"),
    "line ends of old Macs": TABLE.replace("\n", "\r"),
    "no line end at the end": TABLE.rstrip(),
    "blank lines": TABLE.replace("\n", "\n\n") + "   \n\t\n",
    "spaces around cells": TABLE.replace(",", "\t ,\u00a0 "),
    "quotes around cells": re.sub(r"[^,\n]+", r'"\g<0>"', TABLE),
    "columns in another order": "\n".join(",".join(reversed(line.split(","))) for line in TABLE.splitlines()),
    "zeros before and plus signs": TABLE.replace("\n7,0.7", "\n+007,+0.70"),
}


@pytest.mark.parametrize("table", RIGHT_TABLES.values(), ids=RIGHT_TABLES.keys())
def test_another_form_of_a_table_is_the_same_table(tmp_path, table):
    """Other forms of the same table give the same numbers."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    rows = [cells(run(tmp_path / name, text)) for name, text in (("plain", TABLE), ("other", table))]
    numbers = [
        [line if n == 0 else [float(line[0]), float(line[1]), line[2]] for n, line in enumerate(r)] for r in rows
    ]
    assert numbers[0] == numbers[1]


BELOW = PARAMS.replace
WRONG_PARAMS = {
    "a key twice": (BELOW("max: 100}", "max: 100, max: 10}"), "line 8: max is given twice; it stands in line 8"),
    "a feature twice": (BELOW(FEATURE_B, FEATURE_B + FEATURE_A), "line 10: a is given twice; it stands in line 8"),
    "a section twice": (PARAMS + "title: Other\n", "line 14: title is given twice; it stands in line 2"),
    "no lower bound": (BELOW("min: 0", "min: -.inf"), "line 8: -.inf is not a finite number"),
    "no upper bound": (BELOW("max: 100", "max: .inf"), "line 8: .inf is not a finite number"),
    "a bound that is not a number": (BELOW("min: 0", "min: .nan"), "line 8: .nan is not a finite number"),
    "a bound beyond 64 bits": (BELOW("max: 100", "max: 1e400"), "line 8: 1e400 is not a finite number"),
    "a bound beyond 32 bits": (BELOW("max: 100", "max: 1e300"), r"features.a: a bound is beyond ±3.4e\+38"),
    "a bound below 32 bits": (BELOW("min: 0", "min: -1e39"), r"features.a: a bound is beyond ±3.4e\+38"),
    "a bound of a thousand digits": (BELOW("max: 100", "max: 1" + "0" * 1000), r"\$.features.a.max"),
    "a bound of ten thousand digits": (BELOW("max: 100", "max: 1" + "0" * 10_000), "line 8: this number has"),
    "bounds turned round": (BELOW("min: 0, max: 100", "min: 100, max: 0"), "features.a: min is not below max"),
    "a bound as text": (BELOW("max: 100", 'max: "100"'), r"Expected `float`, got `str` - at `\$.features.a.max`"),
    "no bound": (BELOW(", max: 100", ""), "features.a: min and max are missing; a number needs both"),
    "a feature without bounds": (BELOW("{type: integer, min: 0, max: 100}", "integer"), r"at `\$.features.a`"),
    "a feature with a space": (BELOW("  a:", "  a b:"), r"at `\$.features.a b`"),
    "a feature of digits": (BELOW("  a:", "  7:"), "line 8: the key 7 is not text"),
    "a feature with a line end": (BELOW("  a:", '  "a\\n":'), r"at `\$.features.a\n`"),
    "a name with a line end": (BELOW("name: mine", 'name: "mine\\n"'), r"at `\$.name`"),
    "a month in other digits": (BELOW('until: ""', 'until: "\uff12\uff10\uff12\uff16-01"'), r"at `\$.data.until`"),
    "no features": (BELOW(FEATURE_A + FEATURE_B, "  {}\n"), r"at `\$.features`"),
    "a feature called source_row": (BELOW("  a:", "  source_row:"), "no column may be called source_row"),
    "a feature called reported": (
        BELOW("  a:", "  reported:").replace('missing: "?"', "groups: [{month: 2026-01, rows: 24}]"),
        "no column may be called reported",
    ),
    "a feature called as the target": (BELOW("  a:", "  y:"), "must be different columns; y is given twice"),
    "the id is a feature": (BELOW('id: ""', "id: a"), "must be different columns; a is given twice"),
    "a class that is the missing mark": (
        BELOW('value: "no"', 'value: "?"'),
        "target.negative.value is also source.missing",
    ),
    "a class that is empty": (BELOW('value: "no"', 'value: ""'), "target.negative.value is also source.missing"),
    "a class with a space": (BELOW('value: "no"', 'value: "no "'), "target.negative.value has a space"),
    "a class that is a number": (
        BELOW('value: "no"', "value: 2"),
        r"Expected `str \| array`, got `int` - at `\$.target",
    ),
    "a class without a label": (BELOW('label: "no"}', 'label: ""}'), "target.negative.label is empty"),
    "a missing mark with a space": (BELOW('missing: "?"', 'missing: " ?"'), "source.missing has a space"),
    "a source that is no path": (BELOW("SOURCE", '"a\\0b"'), "cannot read the source"),
    "a source that is a folder": (BELOW("SOURCE", "."), "cannot read the source .*directory"),
    "a floor that is not a number": (PARAMS + "choice: {floors: {recall: .nan}}\n", "line 14: .nan is not a finite"),
    "a floor as text": (PARAMS + "choice: {floors: {recall: high}}\n", r"at `\$.choice.floors.recall`"),
    "a floor of no metric": (PARAMS + "choice: {floors: {kappa: 0.5}}\n", r"'kappa' - at `\$.choice.floors.kappa`"),
    "a grid that is no list": (
        BELOW("LogisticRegression}", "LogisticRegression, grid: {C: 1}}"),
        r"Expected `array`, got `int` - at `\$.candidates.logistic-regression.grid.C`",
    ),
    "a candidate without estimator": (BELOW("{estimator: sklearn.linear_model.LogisticRegression}", "{}"), "estimator"),
    "an unknown key": (BELOW("folds: 3", "fold: 3"), "unknown field `fold`"),
    "an alias of itself": (BELOW('data: {until: ""}', "data: &d {until: *d}"), "line 4: the aliases"),
    "an alias bomb": (
        "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]" for n in range(12)),
        "the aliases .* expand to more",
    ),
    "brackets without end": ("a: " + "[" * 100_000, "line 1: this is nested deeper than 20 levels"),
    "an object of Python": (PARAMS + "choice: !!python/object:os.system {}\n", "line 14: tags are not allowed"),
    "no YAML": (BELOW("max: 100}", "max: 100"), r"line \d+: this is not YAML"),
    "a tab": ("\t" + PARAMS, "line 1: this is not YAML"),
    "two documents": (PARAMS + "---\n" + PARAMS, "line 14: this is not YAML"),
    "a control character": (PARAMS + "# \x07\n", "line 14: there is a character"),
    "nothing at all": ("", "does not define a problem"),
    "a list": ("- 1\n- 2\n", "does not define a problem"),
}


@pytest.mark.parametrize(("params", "message"), WRONG_PARAMS.values(), ids=WRONG_PARAMS.keys())
def test_wrong_params_are_one_message(tmp_path, params, message):
    """The message names the line or the key, and a remedy."""
    with pytest.raises(LabError, match=message) as error:
        run(tmp_path, params=params)
    assert error.value.remedy
    assert len(error.value.message) < 2000


def test_params_that_are_no_utf_8_name_the_line(tmp_path):
    """The message names the line of a file in Latin-1, as some editors save it."""
    (tmp_path / "params.yaml").write_bytes(PARAMS.replace("title: Mine", "title: M\xfcller").encode("latin-1"))
    with pytest.raises(LabError, match=r"params.yaml, line 2: this is not UTF-8"):
        main(["ingest", "--params", str(tmp_path / "params.yaml")])


UNFIT = {
    "one row of a class": (TABLE.replace("yes", "no").replace("no", "yes", 1), PARAMS, "y is 'yes' in 1 of 24 rows"),
    "a grid without values": (TABLE, BELOW("Regression}", "Regression, grid: {C: []}}"), "grid.C is empty"),
    "a grid of nonsense": (
        TABLE,
        BELOW("Regression}", "Regression, grid: {C: [much]}}"),
        "logistic-regression cannot be fitted",
    ),
    "settings of nonsense": (TABLE, BELOW("Regression}", "Regression, settings: {C: -1}}"), "cannot be fitted"),
    "an estimator that is none": (
        TABLE,
        BELOW("LogisticRegression", "Nothing"),
        "candidates.logistic-regression: cannot make",
    ),
    "one value of an id": (
        re.sub("(?m)$", ",1", TABLE.rstrip()).replace("y,1", "y,who", 1),
        BELOW('id: ""', "id: who").replace("folds: 3", "group: who, folds: 3", 1),
        "in 1 of 1 values of who",
    ),
}


@pytest.mark.parametrize(("table", "params", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_what_cannot_be_trained_is_one_message(tmp_path, table, params, message):
    """A valid table or candidate from which nothing can be learnt is one message."""
    with pytest.raises(LabError, match=message) as error:
        run(tmp_path, table, params, "ingest validate train")
    assert error.value.remedy


def test_a_dataset_of_other_columns_says_so(tmp_path):
    """The message tells that params.yaml was changed after the ingestion, or that the dataset is another file."""
    run(tmp_path)
    with pytest.raises(LabError, match="do not agree on the columns b, c"):
        run(tmp_path, params=PARAMS.replace("  b:", "  c:"), stages="validate")
    for content in (b"", b"\xff\xfe\x00", b'a,b\n"1'):
        (tmp_path / "data" / "dataset.csv").write_bytes(content)
        with pytest.raises(LabError, match=r"is not what ingest wrote|do not agree") as error:
            run(tmp_path, stages="validate")
        assert "make train" in error.value.remedy


def test_bounds_of_32_bits_that_a_model_cannot_compute_with_refuse_it(tmp_path, capsys):
    """A model that gives no probability for a record at the bounds is trained and refused."""
    wide = "{type: real, min: -3.4e38, max: 3.4e38}\n"
    params = PARAMS.replace(FEATURE_A, f"  a: {wide}").replace(FEATURE_B, f"  b: {wide}")
    run(tmp_path, re.sub(r"(?m)^\d+,([\d.]+),", r"\1,\1,", TABLE), params, "ingest validate train")
    assert "no probability for some records at the bounds" in capsys.readouterr().out


def test_names_that_differ_in_case_are_two_columns(tmp_path):
    """The columns `a` and `A` go through all stages."""
    table = "\n".join(f"{line.split(',')[0] if n else 'A'},{line}" for n, line in enumerate(TABLE.splitlines()))
    run(tmp_path, table, PARAMS.replace(FEATURE_A, FEATURE_A + FEATURE_A.replace("a:", "A:")), "ingest validate train")


def test_two_thousand_columns_are_a_table(tmp_path):
    """Ingest and validation accept two thousand columns in reasonable time."""
    names = [f"c{n}" for n in range(2000)]
    table = "\n".join([",".join([*names, "y"]), *[",".join([*"1" * 2000, c]) for c in ("yes", "no") * 5]])
    features = "".join(f"  {name}: {{type: integer, min: 0, max: 100}}\n" for name in names)
    run(tmp_path, table, PARAMS.replace(FEATURE_A + FEATURE_B, features))


TEXTS = st.text(
    st.one_of(st.sampled_from(" ,\"\n\r\t\x00\x0b\x0c\x1c\x85\u2028\xa0\ufeff01?#'\\"), st.characters(codec="utf-8")),
    max_size=6,
)


@given(
    rows=st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=6),
    # With other line ends than its own, csv leaves some cells with line ends without quotes.
    form=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL)]),
)
@settings(max_examples=300, deadline=None)
def test_a_cell_is_read_as_it_was_written_or_refused(tmp_path_factory, rows, form):
    """For any cells: what Python's csv writes is ingested and read back as the same cells without the spaces around
    them, row by row, or it is refused.
    """
    folder = tmp_path_factory.mktemp("cells")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=form[0], quoting=form[1]).writerows([["a", "b", "y"], *rows])
    params = PARAMS.replace('missing: "?"', 'missing: ""')
    if any(CONTROL.search(cell.strip(" \t")) for row in rows for cell in row):
        with pytest.raises(LabError, match="line end or another control character"):
            run(folder, text.getvalue(), params, "ingest")
        return
    run(folder, text.getvalue(), params, "ingest")
    assert cells(folder)[1:] == [[cell.strip() for cell in row] for row in rows]
    again = validate.read(folder / "data" / "dataset.csv").fillna("")
    assert again[["a", "b", "y"]].to_numpy().tolist() == [[cell.strip() for cell in row] for row in rows]
