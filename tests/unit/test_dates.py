"""Dates in a column of the source give the dated groups."""

from __future__ import annotations

import csv

import pytest

from lab.errors import LabError
from tests.unit import mixed
from tests.unit.test_time import PARAMS, table, text
from trainer import ingest


def test_the_dataset_has_the_months_of_the_dates(tmp_path):
    """The column `reported` has the month of each date, and the date itself is not in the dataset."""
    mixed.run(tmp_path, text(table()), PARAMS, "ingest")
    with (tmp_path / "data" / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["source_row", "reported", "who", "a", "b", "y"]
    assert [row[1] for row in rows] == [row[2][:7] for row in table()]


def test_until_chooses_by_the_dates(tmp_path):
    """`data.until` keeps the rows up to the end of that month, in their order and with their numbers."""
    params = PARAMS.replace('until: ""', "until: 2025-04")
    columns, rows = ingest.ingest(mixed.run(tmp_path, text(table()), params, "ingest"))
    expectation = [str(n) for n, row in enumerate(table(), 1) if row[2] < "2025-05"]
    assert [row[columns.index("source_row")] for row in rows] == expectation
    with pytest.raises(LabError, match="leaves no row: the first month is 2025-01"):
        mixed.run(tmp_path, text(table()), PARAMS.replace('until: ""', "until: 2024-12"), "ingest")


def dated(tmp_path, days: list[str], form: str = "") -> list[str]:
    """The months that ingest reads from these dates."""
    rows = [["0", "red", day, str(n), "yes"] for n, day in enumerate(days)]
    params = PARAMS.replace("by: month", f"by: month, format: '{form}'")
    columns, lines = ingest.ingest(mixed.run(tmp_path, text(rows), params, "ingest"))
    return [line[columns.index("reported")] for line in lines]


@pytest.mark.parametrize(
    ("days", "form", "months"),
    [
        (["2026-11-27", "2026-11-27T23:59:59", "2026-12-01 00:00:00.5+02:00"], "", ["2026-11", "2026-11", "2026-12"]),
        (["27.11.2026", "1.2.2026"], "%d.%m.%Y", ["2026-11", "2026-02"]),
        (["03/04/26"], "%m/%d/%y", ["2026-03"]),
        (["20260304"], "%Y%m%d", ["2026-03"]),
        (["0999-01-31"], "", ["0999-01"]),
    ],
)
def test_dates_have_a_form(tmp_path, days, form, months):
    """Without a format a date is an ISO date; with one it is what Python's strptime reads."""
    assert dated(tmp_path, days, form) == months


@pytest.mark.parametrize(
    ("days", "form", "message"),
    [
        (["2026-11-27", "27.11.2026"], "", "no date such as 2026-11-27: row 2, day: '27.11.2026'\n"),
        (["2026-11-27", ""], "", "row 2, day: ''\n"),
        (["2026-02-29", "2026-13-01", "soon"], "", "row 1, day: '2026-02-29', row 2, .* row 3, day: 'soon'"),
        (["27.11.2026", "11/27/2026"], "%d.%m.%Y", "of the form %d.%m.%Y: row 2, day: '11/27/2026'\n"),
        (["27.11.2026"], "%d.%Q", "of the form %d.%Q: row 1"),
        (["27.11.2026"], "%d.%d.%Y", "of the form %d.%d.%Y: row 1"),
        (["2026"] * 30, "%m", "row 20, day: '2026', and 10 more"),
    ],
)
def test_a_cell_that_is_no_date_names_its_row_and_column(tmp_path, days, form, message):
    """The message has the row, the column and the cell, also when the format itself is wrong."""
    with pytest.raises(LabError, match=message) as error:
        dated(tmp_path, days, form)
    assert "source.groups.format" in error.value.remedy
