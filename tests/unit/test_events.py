"""Written events stay whole, also after failed writes and removed files."""

from __future__ import annotations

import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import events
from tests.recorded import written


def feedback(number: int) -> events.Feedback:
    return events.Feedback(
        timestamp=datetime.now(UTC), id=str(number), service="api", prediction_id="p" * (number % 3000), label="yes"
    )


def ids(folder: Path) -> set[str]:
    return {event["event.id"] for event in written(folder)}


def test_threads_write_whole_lines_over_several_files(tmp_path):
    """Each event is there once, in files that end at the limit."""
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
    """A cut last line is left out, and the lines before it are read."""
    writer = events.Writer(tmp_path, "api")
    writer.write([feedback(1), feedback(2)])
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 5)
    assert ids(tmp_path) == {"1"}


def test_a_short_write_leaves_nothing_behind(tmp_path, monkeypatch):
    """When the disk fills up in a write, the half line is removed, and the next event has its own line."""
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


def remove_file(path: Path) -> None:
    path.unlink()


def move_file(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def replace_file(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(b"")
    copy.replace(path)


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name(f"moved-{path.stem}"))


@pytest.mark.parametrize("tidy", [remove_file, move_file, replace_file, remove_folder, move_folder])
def test_what_is_written_is_where_readers_look(tmp_path, tidy):
    """After the event file or its folder was removed or moved, the next event is at once in a file of the folder."""
    folder = tmp_path / "events"
    writer = events.Writer(folder, "api")
    for number in range(1, 4):
        writer.write([feedback(number)])
        assert str(number) in ids(folder)
        tidy(max(folder.glob("*.ndjson")))
    writer.write([feedback(4)])
    assert ids(folder) == {"4"}


def test_a_file_that_is_removed_in_the_middle_of_a_write(tmp_path, monkeypatch):
    """The event is written again before it counts as recorded."""
    writer = events.Writer(tmp_path, "api")
    writer.write([feedback(1)])
    real, files = os.write, list(tmp_path.iterdir())

    def write(file: int, data: bytes) -> int:
        size = real(file, data)
        while files:
            files.pop().unlink()
        return size

    monkeypatch.setattr(os, "write", write)
    writer.write([feedback(2)])
    assert ids(tmp_path) == {"2"}


def test_a_file_that_is_a_day_old_is_left(tmp_path, monkeypatch):
    """A writer leaves a file of any size after a day, so that its age has an end."""
    monkeypatch.setattr(events, "LIMIT_SECONDS", 0.01)
    writer = events.Writer(tmp_path, "api")
    for number in range(3):
        writer.write([feedback(number)])
        time.sleep(0.02)
    assert len(list(tmp_path.iterdir())) == 3
    assert ids(tmp_path) == {"0", "1", "2"}
