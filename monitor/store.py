"""The monitor's memory on disk: predictions that may still get a label, and the state. It is one SQLite file.

A batch of events changes predictions, state and position in one transaction. A kill therefore leaves the file as it was
before the batch or after it, and the monitor continues from there to the same state.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)
SCHEMA = """
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS predictions (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, source TEXT NOT NULL, predicted INTEGER NOT NULL,
  probability REAL NOT NULL, at REAL NOT NULL, label INTEGER, features BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS predictions_at ON predictions (at);
CREATE TABLE IF NOT EXISTS early (
  prediction_id TEXT NOT NULL, number INTEGER NOT NULL, source TEXT NOT NULL, label TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (prediction_id, number)
) WITHOUT ROWID;
"""
# A version of this number marks a prediction of another registered model.
OTHER_MODEL = 0
# The number of ids in one query.
VARIABLES = 500


class Prediction(msgspec.Struct):
    """A stored prediction; `label` is its present label, None before the first, and `at` is in seconds since 1970."""

    id: str
    version: int
    source: str
    predicted: bool
    probability: float
    at: float
    label: bool | None
    features: bytes


class Early(msgspec.Struct, frozen=True):
    """Feedback whose prediction has not arrived; `number` is its place in the order of all early feedback."""

    prediction_id: str
    number: int
    source: str
    label: str
    at: float


class Store:
    """The file at `path`. A file that is damaged is moved aside, and the monitor begins again from the events.

    `restarted` is the reason in that case, else empty.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.restarted = ""
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            for extra in ("-wal", "-shm"):
                path.with_name(path.name + extra).unlink(missing_ok=True)
            self.restarted = f"the checkpoint was damaged ({error}) and is now {aside.name}"
            log.warning("%s; all events are read again", self.restarted)
            self._connection = _open(path)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within are kept together, or none when an exception leaves it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def get(self, name: str) -> bytes | None:
        """A value of the state, None when it was never set."""
        row = self._connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set(self, name: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))

    def predictions(self, names: Collection[str]) -> dict[str, Prediction]:
        """The stored predictions among those with these ids, by id."""
        stored, remaining = dict[str, Prediction](), list(names)
        for start in range(0, len(remaining), VARIABLES):
            part = remaining[start : start + VARIABLES]
            marks = ",".join("?" * len(part))
            for row in self._connection.execute(f"SELECT * FROM predictions WHERE id IN ({marks})", part):  # noqa: S608
                label = None if row[6] is None else bool(row[6])
                stored[row[0]] = Prediction(row[0], row[1], row[2], bool(row[3]), row[4], row[5], label, row[7])
        return stored

    def put(self, predictions: Iterable[Prediction]) -> None:
        """Store predictions, in place of those with the same ids."""
        rows = ((p.id, p.version, p.source, p.predicted, p.probability, p.at, p.label, p.features) for p in predictions)
        self._connection.executemany("INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def forget(self, before: float) -> int:
        """Delete predictions older than `before`, in seconds since 1970; return their number."""
        return self._connection.execute("DELETE FROM predictions WHERE at < ?", (before,)).rowcount

    def early(self) -> list[Early]:
        """The feedback that waits for its prediction, in the order of its arrival."""
        rows = self._connection.execute("SELECT * FROM early ORDER BY number")
        return [Early(*row) for row in rows]

    def put_early(self, feedback: Iterable[Early]) -> None:
        rows = (msgspec.structs.astuple(each) for each in feedback)
        self._connection.executemany("INSERT INTO early VALUES (?, ?, ?, ?, ?)", rows)

    def forget_early(self, feedback: Iterable[Early]) -> None:
        rows = ((each.prediction_id, each.number) for each in feedback)
        self._connection.executemany("DELETE FROM early WHERE prediction_id = ? AND number = ?", rows)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if (result := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(result)
        connection.executescript(SCHEMA)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
