"""The monitor's events from Elasticsearch, where many API hosts write to one place.

An event becomes visible some seconds after it was written: Filebeat looks for it, Logstash sends it, and Elasticsearch
refreshes its index. The source therefore reads up to `hold` seconds before now. An event that becomes visible still
later is handed out late and once. The position holds, in buckets of BUCKET ms, a short hash of each event of the
last `overlap` seconds before the newest event that was handed out; a bucket is read again only if the index has more
documents in it than the position has hashes. An event that is later than `overlap`, or that is older than the last
MOST events, is not found.

An event with a timestamp more than FUTURE seconds from now comes from a clock that jumped. The source hands it out at
once, and the position holds its hash until other events reach its time. When the position holds MOST such hashes,
further events of the future wait for their time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, Self

import msgspec

from lab.errors import LabError
from monitor.elastic_client import Client, PointGoneError, Range
from monitor.elastic_documents import LENGTH, Document, decode, split
from monitor.source import Batch, Position

HOLD_SECONDS, OVERLAP_SECONDS, FUTURE_SECONDS = 10.0, 300.0, 60.0
BUCKET, WIDTH = 10_000, "10s"
# The most hashes of the past and the most of the future in a position.
MOST = 100_000
# Documents in one answer: at least the first number, at most the second, which is Elasticsearch's own limit.
FEWEST, PAGE = 100, 10_000
Region = Literal["late", "in order", "future"]


class _Place(msgspec.Struct, omit_defaults=True):
    """A position. `at` is the timestamp of the newest event that was handed out in order, in ms; None at first.

    `now` has the hashes of the documents of that millisecond, `past` those before it and `ahead` those of the future,
    by the start of their bucket in ms. Before `floor` nothing is looked for.
    """

    at: int | None = None
    floor: int = 0
    now: str = ""
    past: dict[int, str] = {}
    ahead: dict[int, str] = {}


class _Found(msgspec.Struct):
    """A document that the position does not have; it is not `fresh` when another document has the same id."""

    document: Document
    region: Region
    fresh: bool


class ElasticSource:
    """A `monitor.source.Source` that reads the Elasticsearch at `url`; it is closed as a context manager.

    `hold` and `overlap` are in s; `clock` gives the time in s since 1970. One thread at a time may read.
    """

    def __init__(
        self,
        url: str,
        password: str,
        user: str = "monitor_reader",
        *,
        hold: float = HOLD_SECONDS,
        overlap: float = OVERLAP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hold, self._overlap = hold, overlap
        self._client = Client(url, user, password, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the point in time and the connections."""
        self._client.disconnect()

    def read(self, position: Position, limit: int) -> Batch:
        """The events after `position`; a batch ends early at the end of a page. Raises LabError, UnreachableError.

        Late events come first, then those in order, then those of the future.
        """
        try:
            place = msgspec.convert(position, _Place, str_keys=True)
        except msgspec.ValidationError as error:
            raise LabError(
                f"the position is not one of Elasticsearch: {error}", "give the monitor the source it had before"
            ) from error
        try:
            return self._read(place, limit)
        except PointGoneError:  # it was not used for a minute, or Elasticsearch was started again
            return self._read(place, limit)

    def _read(self, place: _Place, limit: int) -> Batch:
        if not self._client.open():
            return Batch([], msgspec.to_builtins(place, str_keys=True))
        try:
            batch = self._batch(place, limit)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LabError(f"Elasticsearch gave an unusual answer: {error!r}"[:300], "see `make logs`") from error
        if not batch.more:
            self._client.close()
        return batch

    def _batch(self, place: _Place, limit: int) -> Batch:
        batch, taken, keys = Batch([], {}), _Taken(place), set[str]()
        size = min(max(limit + FEWEST // 2, FEWEST), PAGE)
        for found in self._found(place, size):
            if found is None:
                if keys:  # the next page costs a request
                    batch.more = True
                    break
                continue
            document = found.document
            if found.fresh and document.key not in keys:
                if len(keys) >= limit:
                    batch.more = True
                    break
                keys.add(document.key)
                if document.event:
                    batch.events.append(document.event)
                batch.broken += document.broken
                batch.unknown += document.unknown
            taken.add(found)
        batch.position = msgspec.to_builtins(taken.place(int(self._overlap * 1000)), str_keys=True)
        return batch

    def _found(self, place: _Place, size: int) -> Iterator[_Found | None]:
        """The documents that `place` does not have: late ones, those in order, those of the future.

        None stands at the end of each page.
        """
        opened = int(self._client.opened * 1000)
        future = _up(max(opened + int(FUTURE_SECONDS * 1000), (place.at or 0) + 1))
        periods: list[Range] = [] if place.at is None else [{"gte": place.floor, "lt": place.at}]
        if sum(map(len, place.ahead.values())) < MOST * LENGTH:
            periods.append({"gte": future})
        counts = self._client.counts(periods, WIDTH) if periods else {}
        if place.at is not None:
            early = {bucket: counts[bucket] for bucket in counts if bucket < place.at}
            yield from self._bucketed("late", early, place.past, periods[0], size)
        yield from self._in_order(place, opened - int(self._hold * 1000), size)
        later = {bucket: counts[bucket] for bucket in counts if bucket >= future}
        yield from self._bucketed("future", later, place.ahead, {"gte": future}, size)

    def _in_order(self, place: _Place, until: int, size: int) -> Iterator[_Found | None]:
        period: Range = {"lt": until}
        if place.at is not None:
            period["gte"] = place.at
            if until <= place.at:
                return
        ahead = set(split("".join(place.ahead.values())))
        for found in _untaken("in order", self._sorted(period, size), place.now):
            if found and found.document.key in ahead:
                found.fresh = False
            yield found

    def _bucketed(
        self, region: Region, counts: dict[int, int], known: dict[int, str], period: Range, size: int
    ) -> Iterator[_Found | None]:
        """The documents in the buckets of which the index has more documents than `known`, within `period`."""
        for bucket in sorted(counts):
            keys = known.get(bucket, "")
            if counts[bucket] > len(keys) // LENGTH:
                part = {
                    "gte": max(bucket, period["gte"]),
                    "lt": min(bucket + BUCKET, period.get("lt", bucket + BUCKET)),
                }
                yield from _untaken(region, self._sorted(part, size), keys)

    def _sorted(self, period: Range, size: int) -> Iterator[Document | None]:
        """The documents of a period in the order of their exact times and ids; None at the end of a page.

        The index has times in ms and an event in µs, so that the documents of one millisecond are sorted here.
        """
        group: list[Document] = []
        for hit in self._client.hits(period, size):
            if hit is None:
                yield None
                continue
            document = decode(hit)
            if group and group[0].time != document.time:
                yield from sorted(group, key=lambda each: each.order)
                group = []
            group.append(document)
        yield from sorted(group, key=lambda each: each.order)


class _Taken:
    """What a batch has taken after `place`."""

    def __init__(self, place: _Place) -> None:
        self._at, self._floor, self._now = place.at, place.floor, [place.now]
        self._past: dict[int, list[str]] = {bucket: [keys] for bucket, keys in place.past.items()}
        self._ahead: dict[int, list[str]] = {bucket: [keys] for bucket, keys in place.ahead.items()}

    def add(self, found: _Found) -> None:
        """Take a document; those in order come by their time."""
        time, key = found.document.time, found.document.key
        if found.region == "late":
            self._past.setdefault(_down(time), []).append(key)
        elif found.region == "future":
            self._ahead.setdefault(_down(time), []).append(key)
        else:
            if time != self._at:
                if self._at is not None:
                    self._past.setdefault(_down(self._at), []).extend(self._now)
                self._at, self._now = time, []
            self._now.append(key)

    def place(self, overlap: int) -> _Place:
        """The place after what was taken; it looks back `overlap` ms and has at most about MOST hashes."""
        past = {bucket: "".join(keys) for bucket, keys in sorted(self._past.items())}
        ahead = {bucket: "".join(keys) for bucket, keys in sorted(self._ahead.items())}
        floor = self._floor
        if self._at is not None:
            at = self._at
            floor = max(floor, _down(at - overlap))
            ahead = {bucket: keys for bucket, keys in ahead.items() if bucket + BUCKET > at}
        size = sum(map(len, past.values()))
        for bucket in list(past):
            if bucket < floor or (size > MOST * LENGTH and len(past) > 1):
                size -= len(past.pop(bucket))
                floor = max(floor, bucket + BUCKET if bucket >= floor else floor)
        return _Place(self._at, floor, "".join(self._now), past, ahead)


def _untaken(region: Region, documents: Iterator[Document | None], keys: str) -> Iterator[_Found | None]:
    """The documents without those whose hashes are in `keys`.

    A document that is stored twice, before and after a rollover, is counted twice in the index and so in the hashes.
    """
    counts = Counter(split(keys))
    for document in documents:
        if document is None:
            yield None
        elif counts.get(document.key, 0) > 0:
            counts[document.key] -= 1
        else:
            yield _Found(document, region, document.key not in counts)


def _down(time: int) -> int:
    """The start of the bucket that holds `time`, both in ms."""
    return time // BUCKET * BUCKET


def _up(time: int) -> int:
    return -(-time // BUCKET) * BUCKET
