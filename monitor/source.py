"""The interface through which the monitor reads events, and the part of an event that the monitor needs.

Both implementations, `monitor.files` and `monitor.elastic`, give events in the order of their timestamps. An event
waits until it is some time old, so that the order does not depend on the moment of reading. An event whose time lies in
the future, because a clock was set, does not wait.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec

from lab.events import DATASET, UNKNOWN
from lab.events import NAMES as EVENT_NAMES

# The place up to which a source was read; {} is the beginning. A position consists of JSON values.
Position = dict[str, Any]
# The name on disk of each attribute.
NAMES = {"at": EVENT_NAMES["timestamp"], **EVENT_NAMES}


class Event(msgspec.Struct, frozen=True, kw_only=True, rename=NAMES, tag_field=DATASET):
    """The fields of every event; `at` is its time in UTC."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    id: str
    environment: str = ""


class Prediction(Event, frozen=True, kw_only=True, tag="lab.prediction"):
    """The answer to one record. `duration` is in ns; `features` are the sent values by name."""

    duration: int = 0
    model_name: str
    model_version: str
    source: str = UNKNOWN
    label: str
    probability: float
    features: dict[str, Any] = {}


class Feedback(Event, frozen=True, kw_only=True, tag="lab.feedback"):
    """The true class of an earlier prediction."""

    prediction_id: str
    source: str = UNKNOWN
    label: str


class Request(Event, frozen=True, kw_only=True, tag="lab.request"):
    """A request that failed, with the status of its answer."""

    status: int
    source: str = UNKNOWN


Read = Prediction | Feedback | Request


class Batch(msgspec.Struct):
    """Events in order, and the position after them.

    `broken` counts lines that were no event and `unknown` those of an unknown dataset. `more`: there may be further
    events now.
    """

    events: list[Read]
    position: Position
    broken: int = 0
    unknown: int = 0
    more: bool = False


class Source(Protocol):
    """A place with events."""

    def read(self, position: Position, limit: int) -> Batch:
        """At most about `limit` events after `position`. Raises LabError when the place cannot be read now."""
        ...
