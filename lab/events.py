"""Events: one JSON object a line, named after the Elastic Common Schema, and the files they are kept in.

A process appends to a file of its own, one `write` a call, before it acknowledges anything. What was acknowledged
is therefore on disk whatever is killed; only a line that nobody was told of can be cut, and then it is a file's last
and has no newline. A file that has grown to `LIMIT` is left behind for a new one; none is ever renamed.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from lab.errors import LabError, from_os_error

ECS_VERSION = "9.1.0"
LIMIT = 64 * 2**20
SUFFIX = ".ndjson"
# Every dataset there may be. Logstash, Elasticsearch's templates and Kibana's data views know the same ones; nothing
# writes a decision yet.
DATASETS = ("lab.prediction", "lab.feedback", "lab.request", "lab.decision", "lab.alert")

# Attribute to name on disk: ECS's own where it has one, else under lab.*.
NAMES = {
    "timestamp": "@timestamp",
    "ecs_version": "ecs.version",
    "service": "service.name",
    "dataset": "event.dataset",
    "id": "event.id",
    "duration": "event.duration",
    "trace_id": "trace.id",
    "message": "message",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "route": "url.path",
    "model_name": "labels.model_name",
    "model_version": "labels.model_version",
    "prediction_id": "lab.prediction_id",
    "label": "lab.label",
    "probability": "lab.probability",
    "threshold": "lab.threshold",
    "features": "lab.features",
    "fields": "lab.fields",
    "refused_version": "lab.refused_version",
}


class Event(msgspec.Struct, frozen=True, kw_only=True, rename=NAMES):
    """What every event has. `timestamp` is in UTC; no event holds anything that names a person."""

    timestamp: datetime
    id: str
    dataset: str
    service: str
    trace_id: str = ""
    ecs_version: str = ECS_VERSION


class Prediction(Event, frozen=True, kw_only=True):
    """One record answered. `duration` is of the whole request up to here, in ns; `features` are those sent, by name."""

    dataset: Literal["lab.prediction"] = "lab.prediction"
    duration: int
    model_name: str
    model_version: str
    label: str
    probability: float
    threshold: float
    features: Any


class Feedback(Event, frozen=True, kw_only=True):
    """The true class of an earlier prediction, as somebody reported it."""

    dataset: Literal["lab.feedback"] = "lab.feedback"
    prediction_id: str
    label: str


class Request(Event, frozen=True, kw_only=True):
    """A request that was not answered with success. `fields` are the model's features that were wrong in it."""

    dataset: Literal["lab.request"] = "lab.request"
    duration: int
    method: str
    route: str
    status: int
    fields: list[str] = []


class Alert(Event, frozen=True, kw_only=True):
    """Something a person should look at: a version that is refused, or the one that is served and fails."""

    dataset: Literal["lab.alert"] = "lab.alert"
    message: str
    model_name: str
    model_version: str | msgspec.UnsetType = msgspec.UNSET
    refused_version: int | msgspec.UnsetType = msgspec.UNSET


class NotRecordedError(LabError):
    """The events could not be written; nothing of them is in the file."""


_encoder = msgspec.json.Encoder()


class Writer:
    """Appends events of `service` to files in `folder`; safe for threads, one for each process."""

    def __init__(self, folder: Path, service: str, limit: int = LIMIT) -> None:
        self._folder, self._service, self._limit = folder, service, limit
        self._lock = threading.Lock()
        self._file = -1
        self._size = 0
        self._look = 0.0

    def write(self, events: Sequence[Event]) -> None:
        """Append the events, all or none; raise NotRecordedError when there is no room or no right to."""
        lines = _encoder.encode_lines(events)
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                fault = from_os_error(error)
                raise NotRecordedError(f"events are not recorded: {fault.message}", fault.remedy) from error

    def _append(self, lines: bytes) -> None:
        if self._file < 0 or self._size >= self._limit or self._removed():
            self._open()
        written = os.write(self._file, lines)
        if written != len(lines):  # the disk filled up half-way
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self._size += written

    def _removed(self) -> bool:
        """Whether somebody removed the file; looked at once a second, for it costs as much as the write."""
        if (now := time.monotonic()) < self._look:
            return False
        self._look = now + 1
        return not os.fstat(self._file).st_nlink

    def _open(self) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._service}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}{SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file, self._size = os.open(self._folder / name, flags, 0o640), 0  # and the umask

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Every recorded event of the folder, file by file; a last line without a newline was never acknowledged."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield msgspec.json.decode(line)
