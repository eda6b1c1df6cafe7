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
from typing import Annotated, Any, Literal, Self

import msgspec

from lab.errors import LabError, from_os_error
from lab.retention import SUFFIX, Retention, hold, prune
from lab.retention import is_open as is_open

ECS_VERSION = "9.1.0"
# All datasets. Logstash, Elasticsearch's templates and Kibana's data views list the same ones.
DATASETS = ("lab.prediction", "lab.feedback", "lab.request", "lab.decision", "lab.alert")
DATASET = "event.dataset"
# Values of `source`. A request without X-Client comes from a client; only clients count as patients. The header
# holds one of CLIENTS. The source is UNKNOWN for a request whose X-Client was refused, and in an event that earlier
# code wrote without a source.
CLIENT, UNKNOWN = "client", "unknown"
CLIENTS = ("dashboard", "loadtest", "demo")
Kind = Literal["model_refused", "model_failing", "below_floor", "drift", "promise_broken"]
# The form of the time in a file's name: the start of the file, in UTC.
STARTED = "%Y%m%dT%H%M%S.%f"
LIMIT, LIMIT_SECONDS = 64 * 2**20, 86_400.0
# A writer deletes old files when it opens a new one, and also once in this number of seconds.
PRUNE_SECONDS = 60.0
# The most writes of one event when its file is removed after each write.
TRIES = 5

# The name on disk of each attribute: ECS's name where there is one, else a name under lab.*.
NAMES = {
    "timestamp": "@timestamp",
    "ecs_version": "ecs.version",
    "service": "service.name",
    "environment": "service.environment",
    "id": "event.id",
    "duration": "event.duration",
    "trace_id": "trace.id",
    "message": "message",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "route": "url.path",
    "model_name": "labels.model_name",
    "model_version": "labels.model_version",
    "source": "labels.source",
    "prediction_id": "lab.prediction_id",
    "label": "lab.label",
    "probability": "lab.probability",
    "threshold": "lab.threshold",
    "features": "lab.features",
    "fields": "lab.fields",
    "kind": "lab.kind",
    "figures": "lab.figures",
    "decision": "lab.decision",
    "number": "lab.number",
    "from_version": "lab.from_version",
    "to_version": "lab.to_version",
    "reason": "event.reason",
}


class Event(msgspec.Struct, frozen=True, kw_only=True, rename=NAMES, tag_field=DATASET):
    """The fields of every event. `timestamp` is in UTC; no event holds anything that names a person.

    `environment` says which lab or release wrote the event: laptop, staging or production; events of
    earlier code do not have the field.
    """

    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    id: str
    service: str
    environment: str = ""
    trace_id: str = ""
    ecs_version: str = ECS_VERSION


class Prediction(Event, frozen=True, kw_only=True, tag="lab.prediction"):
    """The answer to one record.

    `duration` is the time from the start of the request to this event, in ns; `features` are the sent values by name.
    """

    duration: int
    model_name: str
    model_version: str
    source: str = UNKNOWN
    label: str
    probability: float
    threshold: float
    features: Any


class Feedback(Event, frozen=True, kw_only=True, tag="lab.feedback"):
    """The true class of an earlier prediction, as somebody reported it."""

    prediction_id: str
    source: str = UNKNOWN
    label: str


class Request(Event, frozen=True, kw_only=True, tag="lab.request"):
    """A request that failed. `fields` are the model's features that were wrong in the request."""

    duration: int
    method: str
    route: str
    status: int
    source: str = UNKNOWN
    fields: list[str] = []


class Decision(Event, frozen=True, kw_only=True, tag="lab.decision"):
    """An entry of the ledger: its kind, its number, and the versions before and after it.

    The entry names the person that decided; the event does not, because no event names a person.
    """

    decision: str
    number: int
    model_name: str
    from_version: int | None = None
    to_version: int | None = None
    reason: str
    figures: dict[str, float] = {}


class Alert(Event, frozen=True, kw_only=True, tag="lab.alert"):
    """A fault that a person should look at; `model_version` is the faulty version, and `figures` show the fault."""

    kind: Kind
    message: str
    model_name: str
    model_version: str
    figures: dict[str, float] = {}


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
