"""Write each alert once, although several workers find the same fault."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from uuid_utils import uuid7

from lab.errors import from_os_error
from lab.events import Alert, Kind, NotRecordedError, Writer

log = logging.getLogger(__name__)


class Alerts:
    """The alerts about versions of `model`. A file in `folder` marks each alert that was written.

    All workers of a host share the folder, and it stays after a restart, so each host writes an alert once. To get all
    alerts again, remove the files `.alert-*`.
    """

    def __init__(self, events: Writer, environment: str, folder: Path, model: str) -> None:
        self._events, self._environment, self._folder, self._model = events, environment, folder, model

    def refused(self, version: int, reason: str) -> None:
        """Write one alert for each version and reason: a corrected package may be refused for another reason."""
        digest = hashlib.sha256(reason.encode()).hexdigest()[:16]
        self._once(f"{version}-{digest}", "model_refused", version, f"version {version} is refused: {reason}")

    def failing(self, version: int, reason: str) -> None:
        """Write one alert for each version, with the first reason, because each record may have another reason."""
        self._once(str(version), "model_failing", version, f"version {version} is served and fails: {reason}")

    def _once(self, name: str, kind: Kind, version: int, message: str) -> None:
        """Write the alert unless its mark has content. The lock covers the write, so a failed write is repeated."""
        mark = self._folder / f".alert-{self._model}-{kind}-{name}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with mark.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_size == 0 and self._write(kind, version, message):
                    file.write(b"written\n")
        except OSError as error:  # a second copy of an alert is better than no alert
            log.warning("the alert is not marked as written: %s", from_os_error(error))
            self._write(kind, version, message)

    def _write(self, kind: Kind, version: int, message: str) -> bool:
        alert = Alert(
            timestamp=datetime.now(UTC),
            id=str(uuid7()),
            service="api",
            environment=self._environment,
            kind=kind,
            message=message,
            model_name=self._model,
            model_version=str(version),
        )
        try:
            self._events.write([alert])
        except NotRecordedError as error:
            log.warning("%s", error.message)
            return False
        return True
