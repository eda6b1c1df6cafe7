"""From the source file, as its makers distribute it, to the dataset of a revision."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from lab.errors import LabError
from lab.problem import Problem
from lab.settings import ROOT

GROUP_COLUMN = "reported"
ROW_COLUMN = "source_row"


def ingest(problem: Problem) -> tuple[list[str], list[list[str]]]:
    """Give the columns and the rows that `data.until` selects, every value still the text of the source.

    The columns are `source_row` (counted from 1), where the source has dated groups `reported`, and those of
    the problem; a missing value is an empty text. Raises LabError for a missing, altered or misshapen file.
    """
    path = ROOT / problem.source.path
    header, lines = _table(problem, _read(problem, path), path)
    months = _months(problem, len(lines), path)
    order = [header.index(column) for column in problem.columns]
    missing, until = problem.source.missing, problem.data.until
    rows = []
    for number, line in enumerate(lines, 1):
        month = months[number - 1 : number]
        if not until or month[0] <= until:
            cells = [line[place] for place in order]
            rows.append([str(number), *month, *("" if cell == missing else cell for cell in cells)])
    return [ROW_COLUMN, *([GROUP_COLUMN] if months else []), *problem.columns], rows


def write(columns: list[str], rows: list[list[str]], path: Path) -> None:
    """Write the dataset: the same rows give the same bytes on every machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def md5(path: Path) -> str:
    """The hash by which DVC knows the file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _read(problem: Problem, path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabError(
            f"cannot read the source {path}: {error.strerror}",
            f"put the file there, or correct source.path; `git checkout {problem.source.path}` restores the lab's",
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if problem.source.sha256 and found != problem.source.sha256:
        raise LabError(
            f"the source {path} was altered: its SHA-256 is {found}, params.yaml says {problem.source.sha256}",
            "restore the file, or, if the change is meant, put the new hash in source.sha256",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"the source {path} is not UTF-8: {error}", "save it as UTF-8") from error


def _table(problem: Problem, text: str, path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        raise LabError(f"{path} is not comma separated text: {error}", "save it as CSV") from error
    if problem.source.header:
        header, lines = (lines[0], lines[1:]) if lines else ([], [])
        missing, extra = set(problem.columns) - set(header), set(header) - set(problem.columns)
        if missing or extra or len(header) != len(set(header)):
            raise LabError(
                f"the header of {path} does not fit: missing {sorted(missing)}, unknown {sorted(extra)}",
                "name every column once in id, features or target, or take it out of the file",
            )
    else:
        header = list(problem.source.columns)
    wrong = [(n, len(line)) for n, line in enumerate(lines, 1) if len(line) != len(header)]
    if wrong:
        shown = ", ".join(f"row {n} has {count}" for n, count in wrong[:10])
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise LabError(
            f"{path} should have {len(header)} columns in every row, but {shown}{more}",
            "correct the file, or source.columns",
        )
    if not lines:
        raise LabError(f"{path} has no rows", "put the table there")
    return header, lines


def _months(problem: Problem, rows: int, path: Path) -> list[str]:
    """The month in which each row was reported; empty where the source has no dated groups."""
    groups = problem.source.groups
    stated = sum(group.rows for group in groups)
    if groups and stated != rows:
        raise LabError(f"source.groups add up to {stated} rows, {path} has {rows}", "correct the rows of source.groups")
    return [group.month for group in groups for _ in range(group.rows)]
