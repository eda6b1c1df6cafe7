"""Look at every column of a loaded table: what its cells are, how many are missing, its bounds or its levels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from lab.errors import LabError
from lab.record import MOST_LEVELS
from trainer.draft.file import MARKS, NUMBER_MARKS, File

# A column in which at least this share of the cells are numbers, or dates, is a column of numbers, or of dates. Other
# cells in it are faults.
MOSTLY = 0.9
# The number of faulty rows that a message names.
SHOWN = 5
# A column with more different cells is looked at in SQL only; of others, each different cell is looked at once.
MOST_CELLS = 1000
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
# Digits after a leading zero are a code and no number.
_CODE = re.compile(r"0\d+", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column of the file.

    `kind` is number, date, words, or empty. `filled` counts the cells that are not missing, `distinct` (near enough for
    large counts) the different ones. Numbers have `low`, `high` and `whole`; words with few levels have `levels`, which
    map each level to its number of rows. `ascending`: the values grow from row to row, as those of a counter do.
    `marks` are the texts that stand for a missing value in this column.
    """

    place: int
    name: str
    kind: str
    filled: int
    distinct: int
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    ascending: bool = False
    levels: Mapping[str, int] = field(default_factory=dict)
    months: int = 0
    marks: Sequence[str] = ()


def look(connection: duckdb.DuckDBPyConnection, file: File) -> list[Column]:
    """Every column of the table `source`; raises LabError that names the rows of cells that do not fit their column."""
    columns = []
    for place, (filled, distinct) in enumerate(_sizes(connection, len(file.names))):
        reader = _Reader(connection, file, place, filled, distinct)
        columns.append(reader.few() if distinct <= MOST_CELLS else reader.many())
    return columns


def values(connection: duckdb.DuckDBPyConnection, column: Column) -> dict[str, int]:
    """The rows of each value of the target, the most frequent first; raises LabError for a row without a value."""
    cell = f"c{column.place}"
    marks = f"{cell} IS NULL OR {_is_mark(cell, MARKS)}"
    rows = connection.execute(f"SELECT rowid + 1 FROM source WHERE {marks} ORDER BY rowid LIMIT {SHOWN}").fetchall()
    if rows:
        raise LabError(
            f"{_count(connection, marks):,} rows have no value in the target {column.name}, such as row "
            f"{', '.join(str(row[0]) for row in rows)}",
            "remove these rows from the file; row 1 is the first row of data",
        )
    counts = f"SELECT {cell}, count(*) FROM source GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MOST_LEVELS + 1}"
    return dict(connection.execute(counts).fetchall())


def repeated_rows(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> int:
    """The number of rows that repeat another row in all these columns."""
    cells = ", ".join(f"c{column.place}" for column in columns)
    return _number_of(connection, f"SELECT count(*) - count(DISTINCT hash({cells})) FROM source")


def number(file: File, cell: str) -> str:
    """The SQL of a cell as a number, NULL when it is none."""
    text = f"replace({cell}, ',', '.')" if file.decimal == "," else cell
    return f"TRY_CAST({text} AS DOUBLE)"


def date(file: File, cell: str) -> str:
    """The SQL of a cell as a date, NULL when it is none."""
    if file.date_format:
        return f"try_strptime({cell}, '{file.date_format}')"
    return f"CASE WHEN {cell} SIMILAR TO '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}.*' THEN TRY_CAST({cell} AS TIMESTAMP) END"


def _sizes(connection: duckdb.DuckDBPyConnection, columns: int) -> list[tuple[int, int]]:
    """The filled cells of every column, and about the number of different ones."""
    figures = ", ".join(f"count(c{place}), approx_count_distinct(c{place})" for place in range(columns))
    row = connection.execute(f"SELECT {figures} FROM source").fetchall()[0]
    return list(zip(row[::2], row[1::2], strict=True))


@dataclass(frozen=True)
class _Reader:
    """Looks at one column. `filled` and `distinct` include the marks of missing values."""

    connection: duckdb.DuckDBPyConnection
    file: File
    place: int
    filled: int
    distinct: int

    @property
    def name(self) -> str:
        return self.file.names[self.place]

    @property
    def cell(self) -> str:
        return f"c{self.place}"

    def few(self) -> Column:
        """A column with few different cells, each of which is looked at once."""
        rows = self.connection.execute(
            f"SELECT {self.cell}, count(*), min(rowid) + 1 FROM source WHERE {self.cell} IS NOT NULL GROUP BY 1"
        ).fetchall()
        counts = {text: count for text, count, _ in sorted(rows)}
        usable = {text: count for text, count in counts.items() if text and text not in NUMBER_MARKS}
        marks = [text for text in counts if text in NUMBER_MARKS]
        filled = sum(usable.values())
        numbers = {text: float(text.replace(self.file.decimal, ".")) for text in usable if self._is_number(text)}
        if filled and _share(usable, numbers) >= MOSTLY and not any(map(_CODE.fullmatch, usable)):
            self._refuse(sorted(set(usable) - set(numbers)), "a number", filled)
            whole = all(value.is_integer() for value in numbers.values())
            low, high = min(numbers.values()), max(numbers.values())
            ascending = whole and len(usable) == filled > 1 and self._ascends()
            return self._column(
                "number", filled, len(usable), marks, low=low, high=high, whole=whole, ascending=ascending
            )
        dates = self.connection.execute(
            f"SELECT cell FROM (SELECT unnest(?::VARCHAR[]) AS cell) WHERE {date(self.file, 'cell')} IS NOT NULL",
            [list(usable)],
        ).fetchall()
        if filled and _share(usable, [row[0] for row in dates]) >= MOSTLY:
            self._refuse(sorted(set(usable) - {row[0] for row in dates}), "a date", filled)
            return self._column("date", filled, len(usable), marks, months=self._months())
        marks = [text for text in counts if text in MARKS]
        levels = {text: count for text, count in counts.items() if text and text not in MARKS}
        if len(levels) <= MOST_LEVELS:
            _check_levels(self.name, [row for row in rows if row[0] in levels])
        kind = "words" if levels else "empty"
        return self._column(kind, sum(levels.values()), len(levels), marks, levels=levels)

    def many(self) -> Column:
        """A column with many different cells."""
        cell, value = self.cell, number(self.file, self.cell)
        usable = f"NOT {_is_mark(cell, NUMBER_MARKS)}"
        row = self.connection.execute(
            f"SELECT count(*) FILTER ({usable}), count(value), min(value), max(value), "
            f"count(*) FILTER (value = floor(value)), count(*) FILTER ({cell} BETWEEN '00' AND '0:') "
            f"FROM (SELECT {cell}, CASE WHEN {usable} THEN {value} END AS value FROM source)"
        ).fetchall()[0]
        filled, numbers, low, high, wholes, codes = row
        marks = self._marks() if filled < self.filled else []
        if filled and numbers >= MOSTLY * filled and not codes:
            if numbers < filled or max(abs(low), abs(high)) == float("inf"):
                self._refuse_where(f"({value} IS NULL OR NOT isfinite({value})) AND {usable}", "a number", filled)
            distinct = self._distinct()
            ascending = wholes == filled and distinct >= filled and self._ascends()
            return self._column(
                "number", filled, distinct, marks, low=low, high=high, whole=wholes == filled, ascending=ascending
            )
        day = date(self.file, cell)
        if numbers < filled and filled and _count(self.connection, f"{day} IS NOT NULL") >= MOSTLY * filled:
            self._refuse_where(f"{day} IS NULL AND {usable}", "a date", filled)
            return self._column("date", filled, self._distinct(), marks, months=self._months())
        words = _count(self.connection, f"{cell} IS NOT NULL AND NOT {_is_mark(cell, MARKS)}")
        return self._column("words", words, self._distinct(), [mark for mark in marks if mark in MARKS])

    def _column(self, kind: str, filled: int, distinct: int, marks: Sequence[str], **rest: object) -> Column:
        return Column(self.place, self.name, kind, filled, distinct, marks=tuple(marks), **rest)  # type: ignore[arg-type]

    def _is_number(self, text: str) -> bool:
        return _NUMBER.fullmatch(text.replace(self.file.decimal, ".")) is not None

    def _marks(self) -> list[str]:
        rows = self.connection.execute(
            f"SELECT DISTINCT {self.cell} FROM source WHERE {_is_mark(self.cell, NUMBER_MARKS)}"
        ).fetchall()
        return sorted(row[0] for row in rows if row[0])

    def _distinct(self) -> int:
        """The number of different cells; exact unless there are many that repeat."""
        if self.distinct < 0.8 * self.filled:  # the estimate errs by a few percent
            return self.distinct
        return _number_of(self.connection, f"SELECT count(DISTINCT {self.cell}) FROM source")

    def _ascends(self) -> bool:
        steps = (
            f"SELECT {number(self.file, self.cell)} - lag({number(self.file, self.cell)}) OVER (ORDER BY rowid) AS step"
        )
        return not _number_of(self.connection, f"SELECT count(*) FROM ({steps} FROM source) WHERE step <= 0")

    def _months(self) -> int:
        month = f"date_trunc('month', {date(self.file, self.cell)})"
        return _number_of(self.connection, f"SELECT count(DISTINCT {month}) FROM source")

    def _refuse(self, cells: Sequence[str], kind: str, filled: int) -> None:
        """Raise LabError if there are cells that are not of the kind of their column."""
        if cells:
            self._refuse_where(f"{self.cell} IN ({_texts(cells)})", kind, filled)

    def _refuse_where(self, condition: str, kind: str, filled: int) -> None:
        rows = self.connection.execute(
            f"SELECT rowid + 1, {self.cell} FROM source WHERE {self.cell} IS NOT NULL AND {condition} ORDER BY rowid"
        ).fetchmany(1000)
        if rows:
            listed = "; ".join(f"row {row}, {self.name}: {text[:60]!r}" for row, text in rows[:SHOWN])
            more = f"; and {len(rows) - SHOWN} or more others" if len(rows) > SHOWN else ""
            raise LabError(
                f"{len(rows):,} of {filled:,} cells of the column {self.name} are not {kind}: {listed}{more}",
                "correct them, or empty the cells that stand for a missing value; row 1 is the first row of data",
            )


def _share(counts: Mapping[str, int], chosen: Mapping[str, float] | Sequence[str]) -> float:
    """The share of the rows that have one of the chosen cells."""
    return sum(counts[text] for text in chosen) / sum(counts.values())


def _check_levels(name: str, rows: Sequence[tuple[str, int, int]]) -> None:
    first: dict[str, tuple[str, int]] = {}
    for text, _, row in sorted(rows, key=lambda each: each[2]):
        key = " ".join(text.split()).casefold()
        if key in first:
            other, place = first[key]
            raise LabError(
                f"column {name}: {text!r} in row {row} and {other!r} in row {place} differ in case or spaces only",
                "write them in one way in the file; row 1 is the first row of data",
            )
        first[key] = (text, row)


def _is_mark(cell: str, marks: Sequence[str]) -> str:
    return f"coalesce({cell} IN ('', {_texts(marks)}), true)"


def _count(connection: duckdb.DuckDBPyConnection, condition: str) -> int:
    return _number_of(connection, f"SELECT count(*) FROM source WHERE {condition}")


def _number_of(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _texts(texts: Sequence[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
