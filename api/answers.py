"""The bodies of the API's answers. api/openapi.py makes their schemas from these types."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.follower import Refused

Identifier = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Share = Annotated[float, Meta(ge=0, le=1)]


class _Answer(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An answer. It has no fields other than those of its type."""


class Served(_Answer):
    """The model that answered."""

    name: str
    version: int


class Classified(_Answer):
    """The answer to one record of a batch."""

    id: Identifier
    label: str
    probability: Share


class Prediction(_Answer):
    id: Identifier
    label: str
    probability: Share
    threshold: Share
    model: Served


class Predictions(_Answer):
    predictions: list[Classified]
    threshold: Share
    model: Served


class Accepted(_Answer):
    """Feedback was recorded."""

    id: Identifier
    prediction_id: Identifier


class Model(_Answer):
    name: str
    version: int
    card: dict[str, Any]


class Status(_Answer):
    status: str


class Ready(_Answer):
    """A verified model is served."""

    status: str
    name: str
    version: int
    registry: Annotated[str, Meta(description="`followed`, or the reason why the registry cannot be followed.")]
    refused: Annotated[Refused | None, Meta(description="The version that was not sound.")]
    look_age_seconds: Annotated[
        float | None, Meta(description="Seconds since the last look at the registry ended; null before the first one.")
    ]


class FieldError(_Answer):
    detail: str
    pointer: Annotated[str, Meta(description="A JSON pointer to the field (RFC 6901).")]


class Problem(_Answer):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: list[FieldError] | UnsetType = UNSET


# The answers of the API, by the name of their schema.
TYPES = (Prediction, Predictions, Accepted, Model, Status, Ready, Problem)
