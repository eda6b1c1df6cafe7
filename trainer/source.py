"""Read the source file of a problem: text with separators, or Parquet."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.problem import Problem
from lab.record import CONTROL

SHOWN = 20


def listing(items: Sequence[str], separator: str = ", ") -> str:
    """The first SHOWN items in one text, and the number of the others."""
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join([*items[:SHOWN], *more])


def read(problem: Problem, path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and the cells of every row, as text without spaces at both ends.

    Raises LabError for a missing, altered or misshapen file.
    """
    data = _bytes(problem, path)
    if path.suffix == ".parquet":
        header, lines = _parquet(path)
    else:
        header, lines = _text_table(problem, _decoded(problem, data, path), path)
    return _named(problem, header, path), _checked(header, lines, path)


def _bytes(problem: Problem, path: Path) -> bytes:
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
    return data


def _decoded(problem: Problem, data: bytes, path: Path) -> str:
    encoding = problem.source.encoding
    try:
        return data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise LabError(
            f"source.encoding {encoding!r} is not known", "write utf-8, utf-16, latin-1 or cp1252, for example"
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise LabError(
            f"the source {path} is not {name}: line {line} has the byte 0x{data[error.start]:02x}",
            "save it as UTF-8 (spreadsheets offer `CSV UTF-8` as a file type), or state source.encoding",
        ) from error


def _text_table(problem: Problem, text: str, path: Path) -> tuple[list[str], list[list[str]]]:
    separator = problem.source.separator
    lines = _cells(text, separator, path)
    if lines and len(lines[0]) == 1:
        mark = {",": "comma", ";": "semicolon", "\t": "tab"}.get(separator, repr(separator))
        raise LabError(
            f"{path} has no {mark} in its first row, {lines[0][0][:60]!r}",
            "state source.separator, or save the file as comma separated text",
        )
    if problem.source.header:
        return (lines[0], lines[1:]) if lines else ([], [])
    return list(problem.source.columns), lines


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import duckdb  # here, because only a Parquet file needs it

    try:
        with duckdb.connect() as connection:
            # Without this, the text of a time with a time zone, and so its month, would depend on the machine's zone.
            connection.execute("SET TimeZone = 'UTC'")
            # DuckDB would otherwise take a path with * or [ for a pattern of several files.
            place = glob.escape(str(path))
            relation = connection.execute("SELECT COLUMNS(*)::VARCHAR FROM read_parquet(?)", [place])
            header = [str(column[0]) for column in relation.description or ()]
            return header, [["" if cell is None else cell.strip() for cell in row] for row in relation.fetchall()]
    except duckdb.Error as error:
        raise LabError(f"{path} is not a Parquet file that can be read: {error}"[:500], "write it anew") from error


def _named(problem: Problem, header: list[str], path: Path) -> list[str]:
    """The names of the columns; `source.columns` replaces those of the header."""
    names = list(problem.source.columns)
    if not names:
        _check_header(problem, header, path)
        return header
    if problem.source.header and len(names) != len(header):
        raise LabError(
            f"source.columns names {len(names)} columns, and the header of {path} has {len(header)}",
            "name every column of the file, in its order",
        )
    return names


def _checked(header: list[str], lines: list[list[str]], path: Path) -> list[list[str]]:
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
    return lines


def _cells(text: str, separator: str, path: Path) -> list[list[str]]:
    """The cells of every line that is not blank, without spaces at both ends."""
    reader, lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), list[list[str]]()
    spaces = " " if separator == "\t" else " \t"
    while True:
        start = reader.line_num + 1
        try:
            line = next(reader)
        except StopIteration:
            return lines
        except csv.Error as error:
            raise LabError(
                f"{path}, line {start}: a quoted cell is not closed, goes on after its closing quote, or is too long",
                'put quotes around a whole cell and write a quote within it twice, as in "3"" pipe"; or correct '
                "source.separator",
            ) from error
        cells = [cell.strip(spaces) for cell in line]
        if cells not in ([], [""]):
            # strip() also removes other kinds of space. Cells with line ends keep them, because they are refused later.
            lines.append([cell if CONTROL.search(cell) else cell.strip() for cell in cells])


def _check_header(problem: Problem, header: list[str], path: Path) -> None:
    faults = {
        "missing": sorted(set(problem.source_columns) - set(header)),
        "unknown": sorted(set(header) - set(problem.source_columns)),
        "more than once": sorted(name for name, count in Counter(header).items() if count > 1),
    }
    message = "; ".join(
        f"{what}: {listing([repr(name[:60]) for name in names])}" for what, names in faults.items() if names
    )
    if message:
        raise LabError(
            f"the header of {path} does not fit; {message}",
            "name every column once in id, features, target or source.unused, or remove it from the file",
        )
