"""Make the dataset of a revision from the source file."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.problem import GROUP_COLUMN, ROW_COLUMN, Problem
from lab.settings import ROOT

SHOWN = 20
# Control characters, and Unicode's line and paragraph separators: some readers end a row there.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def ingest(problem: Problem) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows that `data.until` selects; every value is the text of the source.

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
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise LabError(
            f"cannot read the source {path}: {getattr(error, 'strerror', error)}",
            f"put the file there, or correct source.path; `git checkout {problem.source.path}` restores the lab's",
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if problem.source.sha256 and digest != problem.source.sha256:
        raise LabError(
            f"the source {path} was altered: its SHA-256 is {digest}, params.yaml says {problem.source.sha256}",
            "restore the file, or, if the change is meant, put the new hash in source.sha256",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabError(
            f"the source {path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}",
            "save it as UTF-8; spreadsheets offer `CSV UTF-8` as a file type",
        ) from error


def _table(problem: Problem, text: str, path: Path) -> tuple[list[str], list[list[str]]]:
    lines = _cells(text, path)
    if lines and len(lines[0]) == 1:
        raise LabError(f"{path} has no comma in its first row, {lines[0][0][:60]!r}", "save it as comma separated text")
    if problem.source.header:
        header, lines = (lines[0], lines[1:]) if lines else ([], [])
        _check_header(problem, header, path)
    else:
        header = list(problem.source.columns)
    lengths = [f"row {n} has {len(line)}" for n, line in enumerate(lines, 1) if len(line) != len(header)]
    if lengths:
        raise LabError(
            f"{path} should have {len(header)} columns in every row, but {listing(lengths)}",
            "correct the file, or source.columns",
        )
    if not lines:
        raise LabError(f"{path} has no rows", "put the table there")
    faults = [
        f"row {n}, {column}: {cell[:60]!r}"
        for n, line in enumerate(lines, 1)
        for column, cell in zip(header, line, strict=True)
        if CONTROL.search(cell)
    ]
    if faults:
        raise LabError(
            f"{path} has cells with a line end or another control character: {listing(faults)}",
            "remove the characters from the file; row 1 is the first row of data",
        )
    return header, lines


def _cells(text: str, path: Path) -> list[list[str]]:
    """The cells of every line that is not blank, without spaces at both ends."""
    reader, lines = csv.reader(io.StringIO(text, newline=""), strict=True), list[list[str]]()
    while True:
        start = reader.line_num + 1
        try:
            line = next(reader)
        except StopIteration:
            return lines
        except csv.Error as error:
            raise LabError(
                f"{path}, line {start}: a quoted cell is not closed, goes on after its closing quote, or is too long",
                'put quotes around a whole cell and write a quote within it twice, as in "3"" pipe"',
            ) from error
        cells = [cell.strip(" \t") for cell in line]
        if cells not in ([], [""]):
            # strip() also removes other kinds of space. Cells with line ends keep them, because they are refused later.
            lines.append([cell if CONTROL.search(cell) else cell.strip() for cell in cells])


def _check_header(problem: Problem, header: list[str], path: Path) -> None:
    faults = {
        "missing": sorted(set(problem.columns) - set(header)),
        "unknown": sorted(set(header) - set(problem.columns)),
        "more than once": sorted(name for name, count in Counter(header).items() if count > 1),
    }
    message = "; ".join(
        f"{what}: {listing([repr(name[:60]) for name in names])}" for what, names in faults.items() if names
    )
    if message:
        raise LabError(
            f"the header of {path} does not fit; {message}",
            "name every column once in id, features or target, or remove it from the file",
        )


def listing(items: Sequence[str], separator: str = ", ") -> str:
    """The first SHOWN items in one text, and the number of the others."""
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join([*items[:SHOWN], *more])


def _months(problem: Problem, rows: int, path: Path) -> list[str]:
    """The month in which each row was reported; empty where the source has no dated groups."""
    groups = problem.source.groups
    total = sum(group.rows for group in groups)
    if groups and total != rows:
        raise LabError(f"source.groups add up to {total} rows, {path} has {rows}", "correct the rows of source.groups")
    return [group.month for group in groups for _ in range(group.rows)]
