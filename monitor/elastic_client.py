"""A snapshot of the lab's events in Elasticsearch, read with Elastic's own client; each wait has a limit.

The import of the client takes half a second or more and up to 70 MB. A monitor of files must not import
this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from elastic_transport import Serializer
from elasticsearch import ApiError, Elasticsearch, SerializationError, TransportError

from lab.errors import LabError
from lab.http import UnreachableError

Hit = dict[str, Any]
Range = dict[str, int]

TIME = "@timestamp"
DATASETS = ("lab.prediction", "lab.feedback", "lab.request")
INDEX = ",".join(f"logs-{name}-*" for name in DATASETS)
# What `monitor.source` has of an event. A name selects a nested and a dotted field, and what is below it.
FIELDS = [
    TIME,
    "event.dataset",
    "event.id",
    "event.duration",
    "service.environment",
    "http.response.status_code",
    "labels.model_name",
    "labels.model_version",
    "labels.source",
    "lab.prediction_id",
    "lab.label",
    "lab.probability",
    "lab.features",
]
# The wait for a connection and for each part of an answer.
ANSWER_SECONDS = 20.0
# Elasticsearch forgets a point in time that is not used for so long.
KEEP_ALIVE = "1m"
# The most buckets in one answer; Elasticsearch allows 65,536.
BUCKETS = 2_000
# The client sends and expects Elastic's own name for JSON in its place.
JSON = "application/json"


class PointGoneError(LabError):
    """Elasticsearch has forgotten the point in time."""


class _Serializer(Serializer):
    """JSON by msgspec, which is faster than the client's own and which refuses NaN."""

    mimetype = JSON

    def loads(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SerializationError("not JSON", errors=(error,)) from error

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


class Client:
    """Elasticsearch at `url`, as `user`; it holds at most one point in time, whose start is `opened`.

    Every function raises LabError: UnreachableError where nothing usable answers, PointGoneError where the point in
    time is gone, and else an error with a remedy. `clock` gives the time in s since 1970.
    """

    def __init__(self, url: str, user: str, password: str, clock: Callable[[], float]) -> None:
        self._url, self._user, self._clock = url, user, clock
        self._elastic = Elasticsearch(
            url,
            basic_auth=(user, password),
            request_timeout=ANSWER_SECONDS,
            max_retries=0,
            retry_on_timeout=False,
            connections_per_node=1,
            serializers={JSON: _Serializer()},
        )
        self._point = ""
        self.opened = 0.0

    def open(self) -> bool:
        """Open a point in time unless there is one; false when no data stream exists."""
        if self._point:
            return True
        # The clock is read first, so that the snapshot has all that was visible at `opened`.
        opened = self._clock()
        try:
            answer = self._ask(
                "open_point_in_time",
                index=INDEX,
                keep_alive=KEEP_ALIVE,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
        except PointGoneError:
            return False
        self._point, self.opened = str(answer["id"]), opened
        return True

    def close(self) -> None:
        """Close the point in time. A failure is no fault: Elasticsearch closes the point itself after KEEP_ALIVE."""
        point, self._point = self._point, ""
        if point:
            with contextlib.suppress(LabError):
                self._ask("close_point_in_time", id=point)

    def disconnect(self) -> None:
        """Close the point in time and the connections."""
        self.close()
        self._elastic.close()

    def hits(self, period: Range, size: int) -> Iterator[Hit | None]:
        """The documents whose timestamp is in `period`, by timestamp in ms; None after each page that was full.

        `period` holds `gte` and `lt` in ms since 1970, or one of them. A hit has `_id`, `_source` and `sort`, whose
        first entry is the timestamp in ms.
        """
        body: dict[str, Any] = {
            "size": size,
            "query": {"bool": {"filter": [_within(period)]}},
            "sort": [{TIME: {"order": "asc"}}, {"_shard_doc": {"order": "asc"}}],
            "source": FIELDS,
            "track_total_hits": False,
        }
        while True:
            hits = self._search(body).get("hits", {}).get("hits", [])
            yield from hits
            if len(hits) < size:
                return
            yield None
            body["search_after"] = hits[-1]["sort"]

    def counts(self, periods: list[Range], width: str) -> dict[int, int]:
        """The number of documents in each bucket of `width`, such as "10s", by the bucket's start in ms."""
        composite: dict[str, Any] = {
            "size": BUCKETS,
            "sources": [{"time": {"date_histogram": {"field": TIME, "fixed_interval": width}}}],
        }
        body = {
            "size": 0,
            "query": {"bool": {"should": [_within(period) for period in periods], "minimum_should_match": 1}},
            "aggs": {"times": {"composite": composite}},
            "track_total_hits": False,
        }
        result: dict[int, int] = {}
        while True:
            times = self._search(body).get("aggregations", {}).get("times", {})
            result |= {int(bucket["key"]["time"]): bucket["doc_count"] for bucket in times.get("buckets", [])}
            if len(times.get("buckets", [])) < BUCKETS:
                return result
            composite["after"] = times["after_key"]

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._ask("search", pit={"id": self._point, "keep_alive": KEEP_ALIVE}, **body)
        self._point = str(answer.get("pit_id") or self._point)
        return answer

    def _ask(self, function: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = getattr(self._elastic, function)(**arguments).body
        except ApiError as error:
            if error.status_code in (404, 410) and function != "close_point_in_time":
                self._point = ""
            raise self._fault(error.status_code, _reason(error.body)) from error
        except SerializationError as error:
            raise UnreachableError(
                f"{self._url} does not answer in JSON", "see whether another program has that port"
            ) from error
        except TransportError as error:
            raise UnreachableError(
                f"Elasticsearch does not answer at {self._url}: {error.message}"[:300],
                "see `make status`; `make up` starts it",
            ) from error
        if not isinstance(answer, dict):
            raise UnreachableError(f"{self._url} gave no JSON object", "see whether another program has that port")
        return answer

    def _fault(self, status: int, reason: str) -> LabError:
        """The error for an answer with this status."""
        place = f"Elasticsearch at {self._url}"
        if status == 401:
            return LabError(
                f"{place} refuses the password of {self._user}",
                "put MONITOR_PASSWORD of the running Elasticsearch into .env, then run `make up`",
            )
        if status == 403:
            return LabError(
                f"{place} does not let {self._user} read events: {reason}",
                "run `make up`, which gives the role monitor_reader its rights",
            )
        if status in (404, 410):
            return PointGoneError(f"{place} does not know the point in time: {reason}", "see `make logs`")
        if status == 429:
            return LabError(
                f"{place} has too little memory or too many requests now: {reason}",
                "the monitor tries again; if this lasts, give Elasticsearch more memory",
            )
        if status in (502, 503, 504):
            return UnreachableError(f"{place} is not ready ({status}): {reason}", "see `make status` and `make logs`")
        if 200 <= status < 300:
            return UnreachableError(f"{self._url} is not Elasticsearch", "see whether another program has that port")
        return LabError(f"{place} answered {status}: {reason}", "see `make logs`")


def _within(period: Range) -> dict[str, Any]:
    return {"range": {TIME: {**period, "format": "epoch_millis"}}}


def _reason(body: Any) -> str:
    """The reason in an answer, cut to a readable length."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        roots = error.get("root_cause")
        first = roots[0] if isinstance(roots, list) and roots and isinstance(roots[0], dict) else error
        error = first.get("reason", error)
    return (error if isinstance(error, str) else msgspec.json.encode(error).decode())[:300]
