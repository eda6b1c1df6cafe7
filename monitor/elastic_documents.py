"""A document of Elasticsearch as an event of the monitor.

Logstash stores an event's fields nested, as Filebeat has expanded them ({"event": {"id": …}}); another shipper may keep
the dots ({"event.id": …}). Both are read.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from lab.events import DATASET
from lab.events import DATASETS as KNOWN
from monitor.elastic_client import DATASETS, Hit
from monitor.source import NAMES, Feedback, Prediction, Request

# The length of an id's hash: 64 bits in base64.
LENGTH = 11
FEATURES, ID = NAMES["features"], NAMES["id"]


class Document(msgspec.Struct):
    """A document of the index.

    `time` is its timestamp in ms, `key` the hash of its id, and `order` its place within its millisecond. Without an
    `event` it was `broken`, was of an `unknown` dataset, or is none of the monitor's events.
    """

    time: int
    key: str
    order: tuple[float, str]
    event: Prediction | Feedback | Request | None = None
    broken: bool = False
    unknown: bool = False


def decode(hit: Hit) -> Document:
    """The document of a hit of a search; raises KeyError, TypeError or ValueError where it is no hit."""
    time, name = int(hit["sort"][0]), str(hit["_id"])
    fields = flatten(hit.get("_source"))
    name = str(fields.get(ID) or name)
    try:
        event: Prediction | Feedback | Request = msgspec.convert(fields, Prediction | Feedback | Request)
    except msgspec.ValidationError:
        dataset = fields.get(DATASET)
        broken = dataset in DATASETS or not isinstance(dataset, str)
        unknown = not broken and dataset not in KNOWN
        return Document(time, key(name), (time / 1000, name), broken=broken, unknown=unknown)
    return Document(time, key(name), (event.at.timestamp(), name), event)


def flatten(source: Any) -> dict[str, Any]:
    """The fields of a document by their dotted names; the features stay one field. {} when it is not an object.

    The dots of a feature's name may have been expanded as well, so that the features are flattened by themselves.
    """
    features: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name, value in _leaves(source, "") if isinstance(source, dict) else ():
        if name.startswith(f"{FEATURES}."):
            features[name.removeprefix(f"{FEATURES}.")] = value
        else:
            result[name] = value
    return result | {FEATURES: features} if features else result


def _leaves(source: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    # Elasticsearch refuses objects that are nested deeper than 20.
    for name, value in source.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def key(name: str) -> str:
    """The hash of an id: LENGTH letters, digits, - or _."""
    return urlsafe_b64encode(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest())[:LENGTH].decode()


def split(keys: str) -> list[str]:
    """The hashes that were joined."""
    return [keys[start : start + LENGTH] for start in range(0, len(keys), LENGTH)]
