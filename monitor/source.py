"""The monitor's events and the interface of their sources."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec

from lab.events import DATASET, UNKNOWN

# A JSON value that says where a source stands; {} is the beginning. Only the source that gave a position reads it.
Position = dict[str, Any]

NAMES = {
    "at": "@timestamp",
    "id": "event.id",
    "environment": "service.environment",
    "duration": "event.duration",
    "model_name": "labels.model_name",
    "model_version": "labels.model_version",
    "source": "labels.source",
    "prediction_id": "lab.prediction_id",
    "label": "lab.label",
    "probability": "lab.probability",
    "features": "lab.features",
    "status": "http.response.status_code",
}


class Event(msgspec.Struct, frozen=True, kw_only=True, rename=NAMES, tag_field=DATASET):
    """The fields that the monitor needs of each event; `lab.events` describes them."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    id: str
    environment: str = ""


class Prediction(Event, frozen=True, kw_only=True, tag="lab.prediction"):
    """The answer to one record; `duration` is in ns."""

    duration: int = 0
    model_name: str
    model_version: str
    source: str = UNKNOWN
    label: str
    probability: float
    features: dict[str, Any] = {}


class Feedback(Event, frozen=True, kw_only=True, tag="lab.feedback"):
    """The true class of an earlier prediction, as somebody reported it."""

    prediction_id: str
    source: str = UNKNOWN
    label: str


class Request(Event, frozen=True, kw_only=True, tag="lab.request"):
    """A request that failed."""

    status: int
    source: str = UNKNOWN


class Batch(msgspec.Struct):
    """Events in the order of their timestamps, and the position after them.

    `broken` counts what was no event, `unknown` what had an unknown dataset. `more` says that there may be further
    events now.
    """

    events: list[Prediction | Feedback | Request]
    position: Position
    broken: int = 0
    unknown: int = 0
    more: bool = False


class Source(Protocol):
    """A source of events."""

    def read(self, position: Position, limit: int) -> Batch:
        """At most about `limit` events after `position`; raises LabError, UnreachableError where nothing answers."""
        ...
