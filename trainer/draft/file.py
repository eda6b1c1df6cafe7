"""Open the file of a table with DuckDB: its sniffer finds the separator, the header and the form of dates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lab.errors import LabError

MOST_COLUMNS = 1000
MEMORY = "700MB"
# DuckDB's sniffer needs to be told the encoding. The first one that it can read the file with is taken; UTF-16 is
# marked by the first two bytes.
ENCODINGS = ("utf-8", "latin-1")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# The first bytes of Excel's files: the first is a ZIP file, which is no text either.
EXCEL = {b"PK\x03\x04": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls"}
# Texts that often stand for a missing value. The rarer ones count only in columns of numbers or dates, because they
# may be words elsewhere.
MARKS = ("?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null")
NUMBER_MARKS = (*MARKS, "None", "none", "-", "--", ".", "na")


@dataclass(frozen=True)
class File:
    """A file that was loaded as the DuckDB table `source`: a column of text for each of `names`, called c0, c1, ….

    `date_format` is the form of the dates in the file, as for Python's strptime; empty for ISO dates.
    """

    path: Path
    names: list[str]
    header: bool = True
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    date_format: str = ""


def load(connection: duckdb.DuckDBPyConnection, path: Path, target: str) -> File:
    """Load a CSV or Parquet file; raise LabError for a file that is no table."""
    _check(path)
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    if path.suffix.lower() == ".parquet":
        file = _parquet(connection, path)
    else:
        file = _sniffed(connection, path, target)
        _load_text(connection, file)
    if len(file.names) < 2:
        raise LabError(f"{path} has one column, {file.names[0][:60]!r}", "give a file with the target and the features")
    if not connection.execute("SELECT count(*) FROM source").fetchall()[0][0]:
        raise LabError(f"{path} has no rows", "give a file with the target and the features")
    return file


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise LabError(
            f"cannot read {path}: {error.strerror}", "TABLE= is the path of a CSV or Parquet file"
        ) from error
    if not start:
        raise LabError(f"{path} is empty", "give a file with the target and the features")
    if start in EXCEL or path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise LabError(f"{path} is a spreadsheet or an archive", "save the table as `CSV UTF-8` and give that file")


def _sniffed(connection: duckdb.DuckDBPyConnection, path: Path, target: str) -> File:
    with path.open("rb") as opened:
        encodings = ("utf-16",) if opened.read(2) in UTF_16 else ENCODINGS
    for encoding in encodings:
        try:
            return _with_decimal(connection, path, target, encoding)
        except duckdb.Error as error:
            fault = error
    text = re.sub(r"\s+", " ", str(fault))
    raise LabError(f"{path} is not a table that can be read: {text}"[:600], "save it as `CSV UTF-8`") from fault


def _with_decimal(connection: duckdb.DuckDBPyConnection, path: Path, target: str, encoding: str) -> File:
    """The form of the file. The decimal mark is the one with which more columns are numbers."""
    best: tuple[int, File] | None = None
    for decimal in (".", ","):
        sniffed = connection.execute(
            "SELECT Delimiter, Quote, HasHeader, Columns, DateFormat, TimestampFormat FROM "
            "sniff_csv(?, encoding = ?, decimal_separator = ?, nullstr = ?)",
            [str(path), encoding, decimal, ["", *NUMBER_MARKS]],
        ).fetchall()[0]
        separator, quote, header, columns, date_format, time_format = sniffed
        if quote not in ("(empty)", '"', ""):
            raise LabError(f'{path} has cells in {quote}, not in "', "save it with double quotes around cells")
        if separator == decimal:
            continue
        names = [column["name"] for column in columns]
        numbers = sum(column["type"] in ("BIGINT", "DOUBLE", "HUGEINT") for column in columns)
        form = date_format or time_format or ""
        file = File(path, names, header, separator, decimal, encoding, "" if _is_iso(form) else form)
        if best is None or numbers > best[0]:
            best = (numbers, file)
    if best is None:
        raise LabError(f"{path} has no separator between its columns", "save it as `CSV UTF-8`")
    file = best[1]
    if len(file.names) > MOST_COLUMNS:
        raise LabError(
            f"{path} has {len(file.names):,} columns, and a first draft is made for {MOST_COLUMNS:,} at most",
            "keep the columns that a person would look at to decide",
        )
    if not file.header:
        # The sniffer takes the first row as data when all columns are words. The name of the target decides.
        first = connection.execute(*_read(file, "*", " LIMIT 1")).fetchall()
        if first and target in first[0]:
            file = File(path, list(map(str, first[0])), True, *_form(file))
    return file


def _form(file: File) -> tuple[str, str, str, str]:
    return file.separator, file.decimal, file.encoding, file.date_format


def _is_iso(form: str) -> bool:
    return form.startswith("%Y-%m-%d") or form == "iso"


def _read(file: File, selection: str, rest: str = "") -> tuple[str, list[object]]:
    """The query that reads a CSV file as text, and its parameters."""
    columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(file.names)))
    query = (
        f"SELECT {selection} FROM read_csv(?, auto_detect = false, delim = ?, quote = '\"', escape = '\"', "
        f"header = {file.header}, columns = {{{columns}}}, encoding = ?, nullstr = ''){rest}"
    )
    return query, [str(file.path), file.separator, file.encoding]


def _trimmed(file: File) -> str:
    return ", ".join(f"trim(c{place}) AS c{place}" for place in range(len(file.names)))


def _load_text(connection: duckdb.DuckDBPyConnection, file: File) -> None:
    query, parameters = _read(file, _trimmed(file))
    try:
        connection.execute(f"CREATE TABLE source AS {query}", parameters)
    except duckdb.Error as error:
        text = re.sub(r"\s+", " ", str(error).split("Possible")[0])
        raise LabError(f"{file.path} cannot be read: {text}"[:600], "correct that row of the file") from error


def _parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> File:
    try:
        names = [row[0] for row in connection.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()]
        file = File(path, names)
        columns = ", ".join(
            f"nullif(trim({_quoted(name)}::VARCHAR), '') AS c{place}" for place, name in enumerate(names)
        )
        connection.execute(f"CREATE TABLE source AS SELECT {columns} FROM read_parquet(?)", [str(path)])
    except duckdb.Error as error:
        text = re.sub(r"\s+", " ", str(error))
        raise LabError(f"{path} is not a Parquet file that can be read: {text}"[:600], "write it anew") from error
    return file


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
