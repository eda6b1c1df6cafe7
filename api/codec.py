"""Read the bodies of requests by the card of a model, and list every fault of a body that is not valid."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any
from uuid import UUID

import msgspec
import numpy as np
from msgspec import UNSET, Meta
from numpy.typing import NDArray

from lab.card import BATCH_ROWS, Card, Feature
from lab.record import inputs, is_number, value_fault, value_field

MAX_INSTANCES = BATCH_ROWS
# Reading stops after this number of faults, because a search for all of them could take seconds.
MAX_LISTED = 100
# The size limit of one record, alone or in a batch, in bytes.
MAX_RECORD = 64 * 1024
# A batch with unknown fields is parsed up to this average number per record, so that the error can name them.
UNKNOWN_READ = 10
# In bodies larger than this, records are counted before they are parsed: 16 MiB of `{}` would become half a gigabyte.
MEASURED = 2**20
Body = bytes | bytearray
# The place of a fault in a body, as keys and positions; and the text of each fault.
Path = tuple[str | int, ...]
Faults = dict[Path, str]
_as_tuple = msgspec.structs.astuple


class InvalidError(Exception):
    """A body that is refused. `errors` follows RFC 9457: a detail and a JSON pointer for each fault."""

    def __init__(self, detail: str, faults: Faults | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults or {}

    @property
    def errors(self) -> list[dict[str, str]]:
        return [{"detail": fault, "pointer": "#" + "".join(map(_token, path))} for path, fault in self.faults.items()]


@dataclass(frozen=True)
class Records:
    """Rows in two forms: for the model, of shape (n, features) with NaN for missing; and for the events."""

    rows: NDArray[np.float32]
    features: list[Any]


class _Whole(msgspec.Struct):
    """A batch. Other keys of the body are not parsed."""

    instances: msgspec.Raw = msgspec.Raw()


class Codec:
    """Reads the bodies of one model.

    msgspec decodes a valid body into a type with the card's bounds. Any other body is read once more in Python, because
    msgspec stops at the first fault and does not accept 5.0 as a whole number.
    """

    def __init__(self, card: Card) -> None:
        self._features = card.features
        self._names = {feature.name for feature in card.features}
        self._nullable = any(feature.nullable for feature in card.features)
        # The model's input for each value of a category, by the place of the feature.
        self._inputs = [(place, inputs(f)) for place, f in enumerate(card.features) if not is_number(f)]
        self._words = any(isinstance(level, str) for feature in card.features for level in feature.levels)
        record = _record_type(card.features)
        instances = Annotated[list[record], Meta(min_length=1, max_length=MAX_INSTANCES)]  # type: ignore[valid-type]
        batch = msgspec.defstruct("Batch", [("instances", instances)], forbid_unknown_fields=True)
        self._one = msgspec.json.Decoder(record)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(batch)
        # The count of each character in the largest batch, in the names and the levels of the features included.
        braces, commas = (sum(_count(feature, mark) for feature in card.features) for mark in "{,")
        self._most_braces = 1 + MAX_INSTANCES * (1 + braces)
        self._most_commas = MAX_INSTANCES * (len(self._names) + commas + UNKNOWN_READ)

    def one(self, body: Body) -> Records:
        """Read one record; raise InvalidError that names every fault, up to MAX_LISTED."""
        record = _decoded(self._one, body)
        if record is None:
            return self._records([self._value(body)])
        values = _as_tuple(record)
        if body.count(b'"') != self._quotes(values):
            return self._records([self._value(body)])
        return Records(self._rows([values]), [record])

    def many(self, body: Body) -> Records:
        """Read `{"instances": [record, …]}`; raise InvalidError that names every fault, up to MAX_LISTED."""
        if len(body) > MEASURED:
            self._measure(body)
        batch = _decoded(self._many, body)
        if batch is None:
            return self._records(self._values(body))
        values = [_as_tuple(record) for record in batch.instances]
        if body.count(b'"') != 2 + sum(map(self._quotes, values)):
            return self._records(self._values(body))
        return Records(self._rows(values), batch.instances)

    def _quotes(self, values: tuple[Any, ...]) -> int:
        """The number of quotes in the text of a valid record in which no key is repeated.

        The only texts in it are its keys and its words. A word with a quote of its own has more quotes in JSON; the
        body is then read once more, with the same result.
        """
        quotes = 2 * len(values)
        if self._nullable:
            quotes -= 2 * values.count(UNSET)
        return quotes + 2 * sum(value.__class__ is str for value in values) if self._words else quotes

    def _rows(self, values: list[tuple[Any, ...]]) -> NDArray[np.float32]:
        if self._inputs:
            rows = [list(row) for row in values]
            for row in rows:
                for place, number in self._inputs:
                    row[place] = number[row[place]]
            values = rows  # type: ignore[assignment]
        if self._nullable:
            values = [tuple(None if v is UNSET else v for v in row) if UNSET in row else row for row in values]
        return np.array(values, dtype=np.float32)  # numpy converts None to NaN

    def _records(self, values: list[dict[str, Any]]) -> Records:
        rows = [tuple(value.get(feature.name) for feature in self._features) for value in values]
        return Records(self._rows(rows), values)

    def _measure(self, body: Body) -> None:
        """Raise InvalidError for a body that holds more than the largest batch. The check creates no Python objects."""
        if body.count(b"{") > self._most_braces or body.count(b",") > self._most_commas:
            _raw(msgspec.Raw, body)
            raise _wrong_count(f"with {len(self._names)} features each: this body holds more than that")

    def _values(self, body: Body) -> list[dict[str, Any]]:
        """The instances of a batch, parsed one after another, so that only one record takes memory at a time."""
        inner = _raw(_Whole, body).instances
        if not (inside := memoryview(inner).nbytes):
            raise InvalidError(_NO_BATCH)
        if len(body) - inside > MAX_RECORD:  # a million other keys would take 180 MB
            _refuse({(): f"has more than {MAX_RECORD} bytes beside its instances"})
        whole = _raw(dict[str, msgspec.Raw], body)
        _refuse({(name,): "is unknown" for name in islice(whole.keys() - {"instances"}, MAX_LISTED)})
        begin = body.find(b"[")
        # There must be one key before the list and nothing after the list. Otherwise the key `instances` is given
        # twice, and `inner` is only the last of the two values.
        after = body[begin + inside :]
        if body.count(b'"', 0, max(begin, 0)) > 2 or after.strip(b" \t\r\n") != b"}":
            _raw(list[msgspec.Raw], inner)
            _refuse({("instances",): "is given more than once"})
        records = _raw(list[msgspec.Raw], inner)
        if not 1 <= len(records) <= MAX_INSTANCES:
            raise _wrong_count(f"and this one has {len(records)}")
        values: list[dict[str, Any]] = []
        faults: Faults = {}
        for place, record in enumerate(records):
            try:
                values.append(self._value(bytes(record)))
            except InvalidError as error:
                if not error.faults:
                    raise
                faults |= {("instances", place, *path): fault for path, fault in error.faults.items()}
                if len(faults) >= MAX_LISTED:
                    break
        _refuse(dict(islice(faults.items(), MAX_LISTED)))
        return values

    def _value(self, text: Body) -> dict[str, Any]:
        """Parse one record; raise InvalidError unless its values are what the card allows."""
        if len(text) > MAX_RECORD:
            _refuse({(): f"is larger than the limit for a record: {MAX_RECORD} bytes"})
        value = _parse(text)
        _refuse(dict(islice(self._faults(value), MAX_LISTED)))
        record: dict[str, Any] = value
        return record

    def _faults(self, record: Any) -> Iterator[tuple[Path, str]]:
        if not isinstance(record, dict):
            yield (), "must be a JSON object with one value for each feature"
            return
        for feature in self._features:
            if fault := value_fault(feature, record.get(feature.name)):
                yield (feature.name,), fault
        for name in record:
            if name not in self._names:
                yield (name,), "is not a feature of this model"


_NO_BATCH = 'the body must be a JSON object {"instances": [record, …]}'


def _refuse(faults: Faults) -> None:
    """Raise InvalidError if there is a fault."""
    if len(faults) >= MAX_LISTED:
        raise InvalidError(f"{MAX_LISTED} or more fields are wrong; only this many are listed", faults)
    if faults:
        raise InvalidError(f"{len(faults)} field(s) are wrong", faults)


def _wrong_count(more: str) -> InvalidError:
    return InvalidError(
        f"a batch has 1 to {MAX_INSTANCES} instances, {more}",
        {("instances",): f"must have 1 to {MAX_INSTANCES} records"},
    )


def _decoded(decoder: msgspec.json.Decoder[Any], body: Body) -> Any:
    """The decoded body; None when it does not fit. The exception is dropped, because it may hold the whole body."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _raw(kind: Any, body: Body) -> Any:
    """Decode the outermost level of a batch only; raise InvalidError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidError(_NO_BATCH) from error
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _no_json(error) from error


def feedback(card: Card, body: Body) -> tuple[str, str]:
    """The prediction id and the label of a feedback; raises InvalidError that names every fault."""
    value, fields = _parse(body), {"prediction_id", "label"}
    if not isinstance(value, dict):
        raise InvalidError('the body must be a JSON object {"prediction_id": …, "label": …}')
    faults: Faults = {(name,): "is missing" for name in sorted(fields - value.keys())}
    faults |= {(name,): "is unknown" for name in value.keys() - fields}
    if "prediction_id" in value and not _is_id(value["prediction_id"]):
        faults["prediction_id",] = "is not the id of a prediction, a UUID"
    classes = (card.classes.negative, card.classes.positive)
    if "label" in value and value["label"] not in classes:
        faults["label",] = f"is neither {classes[0]} nor {classes[1]}"
    _refuse(dict(islice(faults.items(), MAX_LISTED)))
    return value["prediction_id"].lower(), value["label"]


def _count(feature: Feature, mark: str) -> int:
    """The greatest number of these characters in the name and the value of a feature."""
    return feature.name.count(mark) + max((str(level).count(mark) for level in feature.levels), default=0)


def _record_type(features: list[Feature]) -> type[msgspec.Struct]:
    # The attributes get generated names, because a feature may have any name.
    fields: list[Any] = [(f"x{place}", *value_field(feature)) for place, feature in enumerate(features)]
    names = {f"x{place}": feature.name for place, feature in enumerate(features)}
    return msgspec.defstruct("Record", fields, forbid_unknown_fields=True, kw_only=True, rename=names, gc=False)


def _parse(body: Body) -> Any:
    """Parse strict JSON (RFC 8259: UTF-8, no NaN) without repeated keys; raise InvalidError."""
    try:
        value = msgspec.json.decode(body)  # stricter than the standard library
        # When there are two quotes per key and no others, no key is given twice.
        if isinstance(value, dict) and body.count(b'"') == 2 * len(value):
            return value
        return json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _no_json(error) from error


def _no_json(error: Exception) -> InvalidError:
    return InvalidError(f"the body is not JSON: {error}"[:300])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = (name for name, count in counts.items() if count > 1)
        raise InvalidError(
            "a key is given twice", {(name,): "is given more than once" for name in islice(twice, MAX_LISTED)}
        )
    return members


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False


def _token(part: str | int) -> str:
    return "/" + str(part)[:100].replace("~", "~0").replace("/", "~1")
