"""Events: what was written is there, whole, whatever happened."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import events


def feedback(number: int) -> events.Feedback:
    return events.Feedback(
        timestamp=datetime.now(UTC), id=str(number), service="api", prediction_id="p" * (number % 3000), label="yes"
    )


def ids(folder: Path) -> set[str]:
    return {event["event.id"] for event in events.read(folder)}


def test_threads_write_whole_lines_over_several_files(tmp_path):
    """Each event is there once, in files that were left at the limit."""
    writer = events.Writer(tmp_path, "api", limit=100_000)

    def write(start: int) -> None:
        for number in range(start, start + 500):
            writer.write([feedback(number)])

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 2000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(tmp_path) == {str(number) for number in range(2000)}
    assert len(list(tmp_path.iterdir())) > 10
    assert all(path.stat().st_mode & 0o037 == 0 for path in tmp_path.iterdir()), "others see nothing"


def test_a_cut_last_line_was_never_acknowledged(tmp_path):
    """It is left out, what stands before it is read."""
    writer = events.Writer(tmp_path, "api")
    writer.write([feedback(1), feedback(2)])
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 5)
    assert ids(tmp_path) == {"1"}


def test_a_short_write_leaves_nothing_behind(tmp_path, monkeypatch):
    """A disk that fills up half-way: the half line is taken back, and the next event stands on a line of its own."""
    writer = events.Writer(tmp_path, "api")
    writer.write([feedback(1)])
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:40]))
    with pytest.raises(events.NotRecordedError, match="disk is full"):
        writer.write([feedback(2)])
    monkeypatch.undo()
    writer.write([feedback(3)])
    assert ids(tmp_path) == {"1", "3"}
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().count(b"\n") == 2


def test_a_removed_file_is_made_anew(tmp_path):
    """Somebody tidied up: what comes after is not written into the void."""
    writer = events.Writer(tmp_path, "api")
    writer.write([feedback(1)])
    for path in tmp_path.iterdir():
        path.unlink()
    writer._look = 0.0
    writer.write([feedback(2)])
    assert ids(tmp_path) == {"2"}
