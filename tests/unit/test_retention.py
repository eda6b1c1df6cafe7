"""Closed event files that no reader needs are deleted, oldest first, and no more of them than the limits demand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab import events, retention
from lab.retention import Retention, prune
from lab.settings import ROOT, SETTINGS
from tests.unit.test_events import ids

DAY = 86_400.0
# A disk with less free space than the margin would delete more than a test asks for.
pytestmark = pytest.mark.usefixtures("roomy")


@pytest.fixture
def roomy(monkeypatch):
    monkeypatch.setattr(retention, "FREE", 0)


def make(folder: Path, number: int, days: float = 0, size: int = 0) -> Path:
    """Write a file as a writer leaves it, `days` after its last event."""
    path = folder / f"api-20260101T000000.{number:06}-7.ndjson"
    path.touch()
    os.truncate(path, size)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.ndjson")}


def test_the_defaults_are_those_of_the_settings():
    """An image that runs by itself deletes the same files as the lab."""
    definition = {setting.name: setting.default for setting in SETTINGS}
    assert Retention() == Retention(float(definition["EVENTS_DAYS"]), float(definition["EVENTS_MB"]))


FILE = st.tuples(st.integers(0, 200), st.integers(0, 400), st.booleans(), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(FILE, max_size=12, unique_by=lambda file: file[0]), st.integers(1, 200), st.integers(0, 1500))
@example([(3, 5, False, True), (2, 5, True, False), (1, 5, False, False)], 90, 7)
def test_no_file_goes_that_may_stay_and_none_stays_that_must_go(files, days, limit):
    """The rule holds for any ages, sizes, open files and checkpoints of a reader."""
    with tempfile.TemporaryDirectory() as name:
        folder, handles = Path(name), []
        paths = [make(folder, number, age + 0.5, size) for number, (age, size, _, _) in enumerate(files)]
        for path, (_, _, is_open, _) in zip(paths, files, strict=True):
            if is_open:
                handles.append(os.open(path, os.O_WRONLY))
                retention.hold(handles[-1])
        finished_names = [path.name for path, file in zip(paths, files, strict=True) if file[3]]
        (folder / "monitor.checkpoint").write_text("\n".join(finished_names))
        prune(folder, Retention(days, limit / 1e6))
        remainder = names(folder)
        for file in handles:
            os.close(file)
    whole = sum(size for path, (_, size, _, _) in zip(paths, files, strict=True) if path.name in remainder)
    ages = [age for path, (age, *_) in zip(paths, files, strict=True) if path.name in remainder]
    losses = [file for path, file in zip(paths, files, strict=True) if path.name not in remainder]
    free = [age for age, _, is_open, needless in files if not is_open and needless]
    assert {age for age, *_ in losses} <= set(free), "what is open or needed stays"
    assert all(age + 0.5 < days for age in set(ages) & set(free)), "what is too old goes"
    assert whole <= limit or not set(ages) & set(free), "as many go as must"
    if losses:
        youngest = min(losses)
        assert youngest[0] + 0.5 > days or whole + youngest[1] > limit, "and no more"
        assert max(set(ages) & set(free), default=0) <= youngest[0], "the oldest first"


IDLE = """
import sys
from pathlib import Path
from lab import events
from tests.unit.test_events import feedback
writer = events.Writer(Path(sys.argv[1]), "api")
writer.write([feedback(1)])
print("written", flush=True)
sys.stdin.read()
"""


def test_an_idle_writer_keeps_its_file_until_it_is_killed(tmp_path):
    """An open file is kept whatever its age, until its writer ends in any way."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as idle:
        try:
            assert idle.stdout.readline() == b"written\n"
            (path,) = tmp_path.iterdir()
            os.utime(path, (0, 0))
            prune(tmp_path, Retention(days=1))
            assert path.exists()
            assert events.is_open(path)
        finally:
            idle.send_signal(signal.SIGKILL)
    assert not events.is_open(path)
    prune(tmp_path, Retention(days=1))
    assert not path.exists()


@pytest.mark.parametrize("text", [b"\xff\xfe", b"api-1.ndjson\nsomething else\n", None, b""])
def test_a_checkpoint_that_cannot_be_read_keeps_everything(tmp_path, caplog, text):
    """With a checkpoint that is not text, names no event file, is a folder or is empty, every file stays, with a log
    line.
    """
    old = make(tmp_path, 1, days=100)
    checkpoint = tmp_path / "monitor.checkpoint"
    checkpoint.mkdir() if text is None else checkpoint.write_bytes(text)
    (tmp_path / "other.checkpoint").write_text(f"{old.name}\n")
    prune(tmp_path, Retention(days=1))
    assert old.exists()
    assert "monitor.checkpoint cannot be read" in caplog.text or text == b""
    assert "1 event files are over the limits but kept" in caplog.text
    checkpoint.rmdir() if text is None else checkpoint.unlink()
    prune(tmp_path, Retention(days=1))
    assert not old.exists()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_the_oldest_go_before_the_disk_is_full(small_disk, monkeypatch):
    """A twentieth of a small disk stays free, except for files that a reader needs."""
    monkeypatch.setattr(retention, "FREE", 2**30)
    for number in range(19):
        make(small_disk, number, days=20 - number).write_bytes(bytes(2**20))
        os.utime(small_disk / f"api-20260101T000000.{number:06}-7.ndjson", (number, number))
    (small_disk / "other").write_bytes(bytes(2**19))
    before = names(small_disk)
    (small_disk / "monitor.checkpoint").write_text("")
    prune(small_disk, Retention(days=1e6))
    assert names(small_disk) == before
    (small_disk / "monitor.checkpoint").unlink()
    prune(small_disk, Retention(days=1e6))
    assert before - names(small_disk) == {"api-20260101T000000.000000-7.ndjson"}


WRITE = """
import sys
from pathlib import Path
from lab import events
from lab.retention import Retention
from tests.unit.test_events import feedback
folder, first = Path(sys.argv[1]), int(sys.argv[2])
writer = events.Writer(folder, "api", limit=int(sys.argv[3]), retention=Retention(megabytes=int(sys.argv[4]) / 1e6))
for number in range(first, first + 1000):
    writer.write([feedback(number)])
"""


def start_writers(folder: Path, limit: int, size: int) -> list[subprocess.Popen]:
    return [
        subprocess.Popen([sys.executable, "-c", WRITE, str(folder), str(first), str(limit), str(size)], cwd=ROOT)
        for first in range(0, 4000, 1000)
    ]


def test_writers_that_delete_at_once_do_not_harm_each_other(tmp_path):
    """No writer fails, every file is whole, the last event exists, and the limit holds."""
    for writer in start_writers(tmp_path, limit=20_000, size=200_000):
        assert writer.wait(120) == 0
    remainder = ids(tmp_path)
    assert {"999", "1999", "2999", "3999"} & remainder
    assert len(remainder) < 2000
    prune(tmp_path, Retention(megabytes=0.2))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000


def test_a_reader_with_a_checkpoint_sees_every_event(tmp_path):
    """While four writers delete files, no event is deleted before the reader has it."""
    checkpoint, numbers, offsets, finished_files = tmp_path / "reader.checkpoint", set(), {}, set()
    checkpoint.touch()
    writers = start_writers(tmp_path, limit=5_000, size=0)
    while True:
        last = all(writer.poll() is not None for writer in writers)
        for path in sorted(tmp_path.glob("*.ndjson")):
            if path.name in finished_files:
                continue
            is_closed = not events.is_open(path)
            with path.open("rb") as file:
                file.seek(offsets.get(path.name, 0))
                for line in file:
                    if not line.endswith(b"\n"):  # the writer is in the middle of it; the next read would give the rest
                        break
                    numbers.add(events.msgspec.json.decode(line)["event.id"])
                    offsets[path.name] = offsets.get(path.name, 0) + len(line)
            if is_closed:
                finished_files.add(path.name)
        part = checkpoint.with_suffix(".part")
        part.write_text("\n".join(finished_files & names(tmp_path)))
        part.replace(checkpoint)
        if last:
            break
    assert [writer.returncode for writer in writers] == [0] * 4
    assert numbers == {str(number) for number in range(4000)}
    assert len(names(tmp_path)) < len(finished_files), "some were deleted"
