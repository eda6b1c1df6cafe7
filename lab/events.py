"""Events: one JSON object a line, named after the Elastic Common Schema, and the files they are kept in.

Each process appends to a file of its own, with one `write` per call, before it acknowledges anything. Acknowledged
events therefore survive the end of any process. Only an unacknowledged line can be cut; such a line is the
last of its file and has no newline. A process starts a new file when its file has grown to `LIMIT` or is a day old. No
file name is used twice. Closed files are deleted after some time (`lab.retention`). `lab.event_reader` reads the files.

A reader that must see every event keeps a file `<reader>.checkpoint` in the folder. The checkpoint lists the event
files that the reader no longer needs, one name per line; the reader replaces the checkpoint atomically. While there are
checkpoints, an event file is deleted only when every checkpoint names it, even if the disk fills up; a checkpoint that
cannot be read keeps everything. A reader may name a file once `is_open` has returned false for it and the reader has
then read the file to its end. A checkpoint lists files because one position would not be enough: a worker
without requests keeps an old file open, and every newer file would have to stay.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from lab.errors import LabError, from_os_error
from lab.event_types import CLIENT as CLIENT
from lab.event_types import CLIENTS as CLIENTS
from lab.event_types import DATASET as DATASET
from lab.event_types import DATASETS as DATASETS
from lab.event_types import ECS_VERSION as ECS_VERSION
from lab.event_types import NAMES as NAMES
from lab.event_types import UNKNOWN as UNKNOWN
from lab.event_types import Alert as Alert
from lab.event_types import Decision as Decision
from lab.event_types import Drift as Drift
from lab.event_types import Event as Event
from lab.event_types import Feedback as Feedback
from lab.event_types import Kind as Kind
from lab.event_types import Metric as Metric
from lab.event_types import Prediction as Prediction
from lab.event_types import Quality as Quality
from lab.event_types import Request as Request
from lab.retention import SUFFIX, Retention, hold, prune
from lab.retention import is_open as is_open

# The form of the time in a file's name: the start of the file, in UTC.
STARTED = "%Y%m%dT%H%M%S.%f"
LIMIT, LIMIT_SECONDS = 64 * 2**20, 86_400.0
# A writer deletes old files when it opens a new one, and also once in this number of seconds.
PRUNE_SECONDS = 60.0
# The most writes of one event when its file is removed after each write.
TRIES = 5


class NotRecordedError(LabError):
    """The events could not be written; the file contains no part of them."""


_encoder = msgspec.json.Encoder()
RETENTION = Retention()


class Writer:
    """Appends events of `service` to files in `folder`; safe for threads, one for each process.

    A process that writes a few events and ends uses it as a context manager, which closes the file.
    """

    def __init__(self, folder: Path, service: str, limit: int = LIMIT, retention: Retention = RETENTION) -> None:
        self._folder, self._service, self._limit, self._retention = folder, service, limit, retention
        self._lock = threading.Lock()
        self._file, self._path = -1, ""
        self._identity = (0, 0)
        self._size = 0
        self._opened = self._pruned = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next event would begin a new one."""
        with self._lock:
            self._close()

    def write(self, events: Sequence[Event]) -> None:
        """Append all events or none; raise NotRecordedError when the disk is full or the folder is not writable."""
        lines = _encoder.encode_lines(events)
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                fault = from_os_error(error)
                raise NotRecordedError(f"events are not recorded: {fault.message}", fault.remedy) from error

    def _append(self, lines: bytes) -> None:
        if self._file >= 0:
            now = time.monotonic()
            if self._size >= self._limit or now - self._opened >= LIMIT_SECONDS:
                self._close()
            elif now - self._pruned >= PRUNE_SECONDS:
                self._prune()
        for _ in range(TRIES):
            if self._file < 0:
                self._open()
            count = os.write(self._file, lines)
            if count != len(lines):  # the disk filled up half-way
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
            self._size += count
            if self._in_place():
                return
            self._close()
        raise OSError(errno.ENOENT, "each event file is removed as soon as it is written", self._path)

    def _in_place(self) -> bool:
        """Whether readers can find the file: false when the file or its folder was removed, moved or replaced."""
        try:
            status = os.stat(self._path)  # noqa: PTH116, Path.stat() takes twice as long
        except OSError:
            return False
        return (status.st_ino, status.st_dev) == self._identity

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        name = f"{self._service}-{datetime.now(UTC):{STARTED}}-{os.getpid()}{SUFFIX}"
        self._path = str(self._folder / name)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        part = f"{self._path}.part"
        self._file, self._size = os.open(part, flags, 0o640), 0  # the umask restricts it further
        hold(self._file)
        Path(part).rename(self._path)  # readers and `prune` see the file only after it is locked
        status = os.fstat(self._file)
        self._identity, self._opened = (status.st_ino, status.st_dev), time.monotonic()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _prune(self) -> None:
        self._pruned = time.monotonic()
        prune(self._folder, self._retention)
