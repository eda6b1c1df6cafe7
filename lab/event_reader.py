"""Read event files as the types of `lab.events`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec

from lab.events import (
    DATASET,
    DATASETS,
    LIMIT_SECONDS,
    STARTED,
    Alert,
    Decision,
    Drift,
    Feedback,
    Kind,
    Prediction,
    Quality,
    Request,
)
from lab.retention import SUFFIX

Recorded = Prediction | Feedback | Request | Decision | Alert | Quality | Drift
KINDS = get_args(Kind)
# An event's time lies between the start of its file and a day later. This tolerance covers a clock that was set, and
# the time between an event's timestamp and its write.
SLACK = timedelta(hours=1)


class _OldAlert(msgspec.Struct, tag_field=DATASET, tag="lab.alert", rename={"refused": "lab.refused_version"}):
    """The part of an alert that gives its kind, when earlier code wrote the alert without `kind`."""

    refused: int | None = None


class _Line(msgspec.Struct, rename={"dataset": DATASET, "kind": "lab.kind"}):
    dataset: str
    kind: str | None = None


_event: msgspec.json.Decoder[Recorded] = msgspec.json.Decoder(Recorded)
_line = msgspec.json.Decoder(_Line)
_fields = msgspec.json.Decoder(dict[str, Any])
_old_alert = msgspec.json.Decoder(_OldAlert)
# RecursionError: JSON that is nested too deeply.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reader:
    """The events of `folder` with `since` <= timestamp < `until`; both are aware datetimes; None means no limit.

    Files come in the order of their start, and a file's events in the order in which they were written. Files of
    several processes overlap in time, so that the whole is not sorted by timestamp. Fields that this code does not know
    are left out. After the iteration, `broken` is the number of complete lines that were no event, and `unknown` that
    of lines with a dataset or a kind of alert that this code does not know; both were skipped. A last line without a
    newline was never acknowledged: it is skipped and not counted. Files that cannot hold an event of the period are not
    opened, so that their lines are not counted either.
    """

    def __init__(self, folder: Path, since: datetime | None = None, until: datetime | None = None) -> None:
        self._folder, self._since, self._until = folder, since, until
        self.broken = self.unknown = 0

    def __iter__(self) -> Iterator[Recorded]:
        self.broken = self.unknown = 0
        for path in self._files():
            try:
                file = path.open("rb")
            except FileNotFoundError:  # a writer has deleted the file because of its age or size
                continue
            with file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the writer is in the middle of this line, and the next read could give the rest of it
                    event = self._decode(line)
                    if event is not None and self._within(event.timestamp):
                        yield event

    def _files(self) -> list[Path]:
        starts = [(start(path), path) for path in self._folder.glob(f"*{SUFFIX}")]
        day = timedelta(seconds=LIMIT_SECONDS)
        return [
            path
            for start, path in sorted(starts, key=lambda file: (file[0] or datetime.min.replace(tzinfo=UTC), file[1]))
            if start is None
            or (
                (self._since is None or start + day + SLACK >= self._since)
                and (self._until is None or start - SLACK < self._until)
            )
        ]

    def _within(self, time: datetime) -> bool:
        return (self._since is None or time >= self._since) and (self._until is None or time < self._until)

    def _decode(self, line: bytes) -> Recorded | None:
        try:
            return _event.decode(line)
        except _UNREADABLE:
            pass
        try:
            about = _line.decode(line)
            if about.dataset == "lab.alert" and about.kind is None:
                return _upgraded(line)
        except _UNREADABLE:
            self.broken += 1
            return None
        if about.dataset not in DATASETS or (about.kind is not None and about.kind not in KINDS):
            self.unknown += 1
        else:
            self.broken += 1
        return None


def read(folder: Path, since: datetime | None = None, until: datetime | None = None) -> Reader:
    """The events of `folder` in a period; `Reader` describes the order and the counts of skipped lines."""
    return Reader(folder, since, until)


def start(path: Path) -> datetime | None:
    """The start time in the file's name; None when no writer gives such a name."""
    parts = path.name.removesuffix(SUFFIX).rsplit("-", 2)
    try:
        return datetime.strptime(parts[1], STARTED).replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return None


def _upgraded(line: bytes) -> Recorded:
    """An alert that earlier code wrote without `kind`, in the present form.

    `lab.refused_version` marks a refused model. Without it, `labels.model_version` is the version of a failing model.
    """
    fields = _fields.decode(line)
    refusal = _old_alert.decode(line).refused
    if refusal is not None:
        fields |= {"lab.kind": "model_refused", "labels.model_version": str(refusal)}
    else:
        fields["lab.kind"] = "model_failing"
    return msgspec.convert(fields, Alert)
