"""What a request must hold: the bodies that a card allows, and every fault of one that it does not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from lab.card import BATCH_ROWS, Card, Feature

MAX_INSTANCES = BATCH_ROWS
# More faults than this are counted, not listed.
MAX_LISTED = 100
# Where in a body a fault is, as keys and positions, and what it is.
Path = tuple[str | int, ...]
Faults = dict[Path, str]
_as_tuple = msgspec.structs.astuple


class InvalidError(Exception):
    """A body that is refused. `errors` are RFC 9457's: a detail and a JSON pointer for each fault."""

    def __init__(self, detail: str, faults: Faults | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults or {}

    @property
    def errors(self) -> list[dict[str, str]]:
        listed = list(self.faults.items())[:MAX_LISTED]
        return [{"detail": fault, "pointer": "#" + "".join(map(_token, path))} for path, fault in listed]


@dataclass(frozen=True)
class Records:
    """Rows as the model takes them, shape (n, features), NaN for missing, and as they are recorded."""

    rows: NDArray[np.float32]
    features: list[Any]


class Codec:
    """Reads the bodies of one model.

    A valid body is decoded into a type that msgspec makes from the card's bounds. Only one that does not fit is
    gone through in Python, for msgspec stops at the first fault, and takes 5.0 for no whole number.
    """

    def __init__(self, card: Card) -> None:
        self._features = card.features
        self._names = {feature.name for feature in card.features}
        self._nullable = any(feature.nullable for feature in card.features)
        record = _record_type(card.features)
        instances = Annotated[list[record], Meta(min_length=1, max_length=MAX_INSTANCES)]  # type: ignore[valid-type]
        batch = msgspec.defstruct("Batch", [("instances", instances)], forbid_unknown_fields=True)
        self._one = msgspec.json.Decoder(record)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(batch)

    def one(self, body: bytes) -> Records:
        """Read one record; raise InvalidError that names every fault."""
        try:
            record = self._one.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = _parse(body)
            self._refuse(dict(self._faults(value)))
            return self._records([value])
        values = _as_tuple(record)
        # A valid record has no text but its keys; more quotes than for one of each mean a key given twice.
        if body.count(b'"') != 2 * (len(values) - values.count(UNSET)):
            _parse(body)
        return Records(self._rows([values]), [record])

    def many(self, body: bytes) -> Records:
        """Read `{"instances": [record, …]}`; raise InvalidError that names every fault."""
        try:
            records = self._many.decode(body).instances
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._records(self._checked_instances(_parse(body)))
        values = [_as_tuple(record) for record in records]
        unset = sum(row.count(UNSET) for row in values) if self._nullable else 0
        if body.count(b'"') != 2 * (1 + len(values) * len(self._features) - unset):
            _parse(body)
        return Records(self._rows(values), records)

    def _rows(self, values: list[tuple[Any, ...]]) -> NDArray[np.float32]:
        if self._nullable:
            values = [tuple(None if v is UNSET else v for v in row) if UNSET in row else row for row in values]
        return np.array(values, dtype=np.float32)  # numpy makes NaN of None

    def _records(self, values: list[dict[str, Any]]) -> Records:
        rows = [tuple(value.get(feature.name) for feature in self._features) for value in values]
        return Records(np.array(rows, dtype=np.float32), values)

    def _checked_instances(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, dict) or not isinstance(value.get("instances"), list):
            raise InvalidError('the body must be a JSON object {"instances": [record, …]}')
        self._refuse({(name,): "is unknown" for name in value.keys() - {"instances"}})
        instances: list[dict[str, Any]] = value["instances"]
        if not 1 <= len(instances) <= MAX_INSTANCES:
            raise InvalidError(
                f"a batch has 1 to {MAX_INSTANCES} instances, this one {len(instances)}",
                {("instances",): f"must have 1 to {MAX_INSTANCES} records"},
            )
        faults: Faults = {}
        for place, record in enumerate(instances):
            faults |= {("instances", place, *path): fault for path, fault in self._faults(record)}
        self._refuse(faults)
        return instances

    def _faults(self, record: Any) -> Iterable[tuple[Path, str]]:
        if not isinstance(record, dict):
            yield (), "must be a JSON object with one value a feature"
            return
        for feature in self._features:
            if fault := _fault(feature, record):
                yield (feature.name,), fault
        for name in record.keys() - self._names:
            yield (name,), "is not a feature of this model"

    def _refuse(self, faults: Faults) -> None:
        if faults:
            raise InvalidError(f"{len(faults)} field(s) are wrong", faults)


def feedback(card: Card, body: bytes) -> tuple[str, str]:
    """Read `{"prediction_id": …, "label": …}` and give both; raise InvalidError that names every fault."""
    value, wanted = _parse(body), {"prediction_id", "label"}
    if not isinstance(value, dict):
        raise InvalidError('the body must be a JSON object {"prediction_id": …, "label": …}')
    faults: Faults = {(name,): "is missing" for name in sorted(wanted - value.keys())}
    faults |= {(name,): "is unknown" for name in value.keys() - wanted}
    if "prediction_id" in value and not _is_id(value["prediction_id"]):
        faults["prediction_id",] = "is not the id of a prediction, a UUID"
    classes = (card.classes.negative, card.classes.positive)
    if "label" in value and value["label"] not in classes:
        faults["label",] = f"is neither {classes[0]} nor {classes[1]}"
    if faults:
        raise InvalidError(f"{len(faults)} field(s) are wrong", faults)
    return value["prediction_id"].lower(), value["label"]


def _record_type(features: list[Feature]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for place, feature in enumerate(features):
        kind: Any = Annotated[float, Meta(ge=feature.min, le=feature.max)]
        if feature.type == "integer":  # msgspec wants whole bounds for whole numbers
            kind = Annotated[int, Meta(ge=math.ceil(feature.min), le=math.floor(feature.max))]
        # The attributes have names of their own: a feature may be called anything.
        name = f"x{place}"
        fields.append((name, kind | None | UnsetType, UNSET) if feature.nullable else (name, kind))
    names = {f"x{place}": feature.name for place, feature in enumerate(features)}
    return msgspec.defstruct("Record", fields, forbid_unknown_fields=True, kw_only=True, rename=names, gc=False)


def _fault(feature: Feature, record: dict[str, Any]) -> str:
    value = record.get(feature.name)
    if value is None:
        return "" if feature.nullable else "is missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if not feature.min <= value <= feature.max:
        return f"is out of bounds: {feature.min:g} to {feature.max:g}"
    if feature.type == "integer" and value != int(value):
        return "is not a whole number"
    return ""


def _parse(body: bytes) -> Any:
    """JSON by its letter (RFC 8259: UTF-8, no NaN), and no key twice in an object; raise InvalidError."""
    try:
        msgspec.json.decode(body)  # stricter than the standard library
        return json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise InvalidError(f"the body is not JSON: {error}"[:300]) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidError(
            "a key is given twice",
            {(name,): "is given more than once" for name in found if names.count(name) > 1},
        )
    return found


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False


def _token(part: str | int) -> str:
    return "/" + str(part)[:100].replace("~", "~0").replace("/", "~1")
