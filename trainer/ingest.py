"""Make the dataset of a revision from the source file."""

from __future__ import annotations

import csv
import hashlib
import re
from datetime import datetime
from pathlib import Path

from lab.errors import LabError
from lab.problem import GROUP_COLUMN, ROW_COLUMN, DateColumn, Problem
from lab.record import is_number
from lab.settings import ROOT
from trainer import source
from trainer.source import listing


def ingest(problem: Problem) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows that `data.until` selects; every value is the text of the source.

    The columns are `source_row` (counted from 1), where the source has dated groups `reported`, and those of
    the problem; a missing value is an empty text. Raises LabError for a missing, altered or misshapen file.
    """
    path = ROOT / problem.source.path
    header, lines = source.read(problem, path)
    months = _months(problem, header, lines, path)
    order = [header.index(column) for column in problem.columns]
    # With a decimal comma, the commas in the columns of numbers become points.
    commas = {name for name, f in problem.features.items() if is_number(f) and problem.source.decimal == ","}
    marks = [("," if column in commas else "") for column in problem.columns]
    missing, until = {"", *problem.source.missing_marks}, problem.data.until
    if commas and path.suffix != ".parquet":
        _check_points(header, lines, commas, path)
    rows = []
    for number, line in enumerate(lines, 1):
        month = months[number - 1 : number]
        if not until or month[0] <= until:
            cells = [line[place] for place in order]
            texts = ["" if cell in missing else cell for cell in cells]
            if commas:
                texts = [text.replace(mark, ".") if mark else text for text, mark in zip(texts, marks, strict=True)]
            rows.append([str(number), *month, *texts])
    if not rows:
        raise LabError(f"data.until {until} leaves no row: the first month is {min(months)}", "write a later month")
    return [ROW_COLUMN, *([GROUP_COLUMN] if months else []), *problem.columns], rows


def write(columns: list[str], rows: list[list[str]], path: Path) -> None:
    """Write the dataset: the same rows give the same bytes on every machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def md5(path: Path) -> str:
    """The hash by which DVC knows the file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _check_points(header: list[str], lines: list[list[str]], columns: set[str], path: Path) -> None:
    """Raise LabError for a number with a point in a file with decimal commas, because 1.234 would mean 1234 there."""
    places = [(column, place) for place, column in enumerate(header) if column in columns]
    cells = [(row, column, line[place]) for row, line in enumerate(lines, 1) for column, place in places]
    if faults := [f"row {row}, {column}: {cell[:60]!r}" for row, column, cell in cells if "." in cell]:
        raise LabError(
            f"source.decimal is a comma, and {path} has numbers with a point: {listing(faults)}",
            "correct source.decimal, or remove the points from the file",
        )


def _months(problem: Problem, header: list[str], lines: list[list[str]], path: Path) -> list[str]:
    """The month in which each row was reported; empty where the source has no dated groups."""
    groups, rows = problem.source.groups, len(lines)
    if isinstance(groups, DateColumn):
        place = header.index(groups.column)
        return _months_of_dates(groups, [line[place] for line in lines], path)
    total = sum(group.rows for group in groups)
    if groups and total != rows:
        raise LabError(f"source.groups add up to {total} rows, {path} has {rows}", "correct the rows of source.groups")
    return [group.month for group in groups for _ in range(group.rows)]


def _months_of_dates(groups: DateColumn, cells: list[str], path: Path) -> list[str]:
    month_of = {cell: _month(cell, groups.format) for cell in dict.fromkeys(cells)}
    faults = [f"row {row}, {groups.column}: {cell[:60]!r}" for row, cell in enumerate(cells, 1) if not month_of[cell]]
    if faults:
        form = f"of the form {groups.format}" if groups.format else "such as 2026-11-27"
        raise LabError(
            f"{path} has cells that are no date {form}: {listing(faults)}",
            "correct the cells, or state the form of the dates in source.groups.format, as for Python's strptime",
        )
    return [month_of[cell] for cell in cells]


def _month(cell: str, form: str) -> str:
    """The month of a date as in 2026-11; empty when the cell is no date."""
    try:
        date = datetime.strptime(cell, form) if form else datetime.fromisoformat(cell)  # only the month
    except (ValueError, re.error):  # strptime raises re.error for a format that names a part twice
        return ""
    return f"{date.year:04}-{date.month:02}"
