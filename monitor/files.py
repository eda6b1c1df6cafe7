"""The event files of one folder as a source of events (`monitor.source`).

A position holds for each file the number of bytes that were read, or DONE for a file that was read to its end and that
no writer has open. The files are merged by the times of their next events, so that the order of the events depends
on the content of the files only, and not on the sizes of the batches.

The lines are decoded one by one with msgspec, and not with DuckDB as in the dashboards' checks: DuckDB cannot read a
file from a position, so that it would read the open file of up to 64 MB again at each look.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lab.event_reader import start
from lab.events import DATASET, DATASETS
from lab.retention import SUFFIX, is_open
from monitor.source import Batch, Position, Read

DONE = -1
# An event waits for this time, in seconds: writers of other files may still write earlier events.
HOLD_SECONDS = 0.5
# An event that is further in the future, in seconds, was written before a clock was set back.
FUTURE_SECONDS = 60.0
# A file's first event may be older than the file, by the time between the event's timestamp and its write.
SLACK_SECONDS = 5.0
CHUNK = 2**18
_event: msgspec.json.Decoder[Read] = msgspec.json.Decoder(Read)


class _Line(msgspec.Struct, rename={"dataset": DATASET}):
    dataset: str


_line = msgspec.json.Decoder(_Line)
# RecursionError: JSON that is nested too deeply.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class FileSource:
    """The events in `folder`. `clock` gives the time in seconds since 1970."""

    def __init__(self, folder: Path, hold: float = HOLD_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._hold, self._clock = folder, hold, clock

    def read(self, position: Position, limit: int) -> Batch:
        """As `Source.read`. A file that cannot be opened is skipped, and is tried again at the next read."""
        now = self._clock()
        merge = _Merge(self._waiting(position), now - self._hold, now + FUTURE_SECONDS)
        events = []
        for event in merge:
            events.append(event)
            if len(events) >= limit:
                break
        places = {**{name: place for name, place in position.items() if self._exists(name)}, **merge.position()}
        return Batch(events, places, merge.broken, merge.unknown, more=len(events) >= limit)

    def _exists(self, name: str) -> bool:
        return (self._folder / name).exists()

    def _waiting(self, position: Position) -> list[tuple[float, Path, int]]:
        """The files that are not done, by their start: the start in seconds, the path, and the place to read from."""
        files = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            place = int(position.get(path.name, 0))
            if place != DONE:
                begin = start(path)
                files.append((begin.timestamp() if begin else 0.0, path, place))
        return sorted(files, key=lambda file: (file[0], file[1].name))


def finished(position: Position) -> list[str]:
    """The names of the files that are not needed any more, for the checkpoint in the folder (`lab.events`)."""
    return sorted(name for name, place in position.items() if place == DONE)


class _File:
    """A file that is being read. `at` and `event` are the next event, and `end` is the place after it."""

    def __init__(self, path: Path, place: int) -> None:
        self.path, self.place, self.broken, self.unknown = path, place, 0, 0
        self.closed = not is_open(path)  # before the file is read, so that nothing can come after the read
        self._lines = self._read(place)
        self.event: Read | None = None

    def advance(self) -> bool:
        """Go to the next event; false when there is none now. `place` is then the end of the complete lines."""
        self.event = None
        for line, end in self._lines:
            self.event = self._decode(line)
            if self.event is not None:
                self._end = end
                return True
            self.place = end
        return False

    def take(self) -> None:
        """The present event is handed out."""
        self.place = self._end

    def _read(self, place: int) -> Iterator[tuple[bytes, int]]:
        try:
            file = self.path.open("rb")
        except OSError:
            self.closed = False
            return
        with file:
            size = file.seek(0, 2)
            if size < place:  # the file was cut, and its rest is read from its new end on
                place = self.place = size
            file.seek(place)
            rest = b""
            while chunk := file.read(CHUNK):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    place += len(line) + 1
                    yield line, place

    def _decode(self, line: bytes) -> Read | None:
        try:
            return _event.decode(line)
        except _UNREADABLE:
            pass
        try:
            dataset = _line.decode(line).dataset
        except _UNREADABLE:
            self.broken += 1
            return None
        if dataset not in DATASETS:
            self.unknown += 1
        elif dataset in ("lab.prediction", "lab.feedback", "lab.request"):
            self.broken += 1
        return None


class _Merge:
    """The events of several files in the order of their times. A file is opened when its start is reached."""

    def __init__(self, files: list[tuple[float, Path, int]], cut: float, future: float) -> None:
        self._later, self._opened = list(reversed(files)), list[_File]()
        self._heap: list[tuple[float, int]] = []
        self._cut, self._future = cut, future

    def __iter__(self) -> Iterator[Read]:
        while True:
            while self._later and (not self._heap or self._later[-1][0] - SLACK_SECONDS <= self._heap[0][0]):
                _, path, place = self._later.pop()
                self._opened.append(_File(path, place))
                self._push(len(self._opened) - 1)
            if not self._heap:
                return
            _, number = heapq.heappop(self._heap)
            file = self._opened[number]
            event = file.event
            assert event is not None  # noqa: S101, only files with an event are in the heap
            file.take()
            yield event
            self._push(number)

    def _push(self, number: int) -> None:
        file = self._opened[number]
        if file.advance() and file.event is not None:
            at = file.event.at.timestamp()
            if at <= self._cut or at > self._future:
                heapq.heappush(self._heap, (at, number))

    def position(self) -> dict[str, int]:
        """The place in each file that was opened."""
        return {f.path.name: DONE if f.closed and f.event is None else f.place for f in self._opened}

    @property
    def broken(self) -> int:
        return sum(file.broken for file in self._opened)

    @property
    def unknown(self) -> int:
        return sum(file.unknown for file in self._opened)
