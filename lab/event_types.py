"""The types of events, and their names on disk: ECS names where there are any, else names under lab.*."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

ECS_VERSION = "9.1.0"
# All datasets. Logstash, Elasticsearch's templates and Kibana's data views list the same ones.
DATASETS = (
    "lab.prediction",
    "lab.feedback",
    "lab.request",
    "lab.decision",
    "lab.alert",
    "lab.quality",
    "lab.drift",
)
DATASET = "event.dataset"
# Values of `source`. A request without X-Client comes from a client; only clients count as patients. The header
# holds one of CLIENTS. The source is UNKNOWN for a request whose X-Client was refused, and in an event that earlier
# code wrote without a source.
CLIENT, UNKNOWN = "client", "unknown"
CLIENTS = ("dashboard", "loadtest", "demo")
Kind = Literal[
    "model_refused",
    "model_failing",
    "below_floor",
    "drift",
    "promise_broken",
    "previous_better",
    "no_predecessor",
    "rolled_back",
    "rollback_failed",
    "webhook_failed",
    "monitor_fault",
]
Metric = Literal["recall", "specificity", "precision", "accuracy", "brier", "roc_auc", "prevalence"]

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
    "metric": "lab.metric",
    "value": "lab.value",
    "low": "lab.low",
    "high": "lab.high",
    "count": "lab.count",
    "promise": "lab.promise",
    "feature": "lab.feature",
    "statistic": "lab.statistic",
    "psi": "lab.psi",
    "limit": "lab.limit",
    "p_value": "lab.p_value",
    "drifted": "lab.drifted",
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


class Quality(Event, frozen=True, kw_only=True, tag="lab.quality"):
    """One metric of one version over its labelled records, as the monitor knows it at `timestamp`.

    The interval `low` to `high` stays valid however often it is looked at, and `count` is the number of records (of
    pairs for roc_auc) behind it. `promise` is the limit that the card gives for this metric; None without one.
    """

    model_name: str
    model_version: str
    metric: Metric
    value: float
    low: float
    high: float
    count: int
    promise: float | None = None


class Drift(Event, frozen=True, kw_only=True, tag="lab.drift"):
    """The test of one window of `count` records for one feature, one feature's missing values, or the score.

    `feature` is "score" for the score. `psi` is the population stability index against the card's counts, `limit` the
    index above which the test warns, and `drifted` whether the test warned.
    """

    model_name: str
    model_version: str
    feature: str
    statistic: Literal["feature", "score", "missing"]
    psi: float
    limit: float
    p_value: float
    count: int
    drifted: bool
