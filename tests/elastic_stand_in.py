"""A stand-in for Elasticsearch: a real HTTP server that holds documents and answers the monitor's searches.

It is no Elasticsearch. It knows the requests that `monitor.elastic_client` sends, refuses every key that it does not
know, and follows Elasticsearch's documentation for these: a point in time is a snapshot that expires, a document
becomes visible at a refresh, timestamps sort in ms, `_source` is filtered by path.
"""

from __future__ import annotations

import base64
import bisect
import fnmatch
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

USER, PASSWORD = "monitor_reader", "right"
SEARCH = {"size", "query", "sort", "_source", "track_total_hits", "search_after", "aggs", "pit"}


@dataclass(order=True)
class Stored:
    """A document, in the order of a search: its timestamp in ms, its number, its index, id and source."""

    time: int
    number: int
    index: str = field(compare=False)
    id: str = field(compare=False)
    source: Any = field(compare=False)


class StandIn:
    """The server's state. A test may set every attribute at any time.

    `status` and `body` replace the next answers, as many as `faults`, -1 for all. `clock` gives the time in s.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.keep_seconds = 60.0
        self.indices: set[str] = set()
        self.status, self.body, self.faults = 503, b'{"error": {"reason": "not now"}}', 0
        self.product = "Elasticsearch"
        self.asked: list[tuple[str, str, Any]] = []
        self.points: dict[str, tuple[list[Stored], float]] = {}
        self._visible: list[Stored] = []
        self._waiting: list[tuple[float, Stored]] = []
        self._lock = threading.Lock()
        self._number = 0
        self.url = ""

    def add(self, source: Any, *, time: int, index: str, id: str, visible: float = 0.0) -> None:  # noqa: A002
        """Store a document with the timestamp `time` in ms, which a search finds from `visible` (clock) on."""
        with self._lock:
            self._number += 1
            self.indices.add(index)
            self._waiting.append((visible, Stored(time, self._number, index, id, source)))

    def refresh(self) -> None:
        """Show the documents that are due."""
        now = self.clock()
        with self._lock:
            due = [stored for visible, stored in self._waiting if visible <= now]
            if due:
                self._waiting = [each for each in self._waiting if each[0] > now]
                self._visible = sorted(self._visible + due)

    def open(self, index: str) -> tuple[int, Any]:
        patterns = index.split(",")
        if not any(fnmatch.fnmatch(name, pattern) for name in self.indices for pattern in patterns):
            return fault(404, "index_not_found_exception", f"no such index [{index}]")
        self.refresh()
        found = [each for each in self._visible if any(fnmatch.fnmatch(each.index, pattern) for pattern in patterns)]
        name = f"point-{len(self.asked)}"
        self.points[name] = found, self.clock() + self.keep_seconds
        return 200, {"id": name, "_shards": {"total": 3, "successful": 3, "skipped": 0, "failed": 0}}

    def drop(self, body: Any) -> tuple[int, Any]:
        found = self.points.pop(body["id"], None)
        return (200 if found else 404), {"succeeded": bool(found), "num_freed": int(bool(found))}

    def search(self, body: Any) -> tuple[int, Any]:
        if unknown := body.keys() - SEARCH:
            return fault(400, "parsing_exception", f"unknown key {sorted(unknown)}")
        name = body["pit"]["id"]
        documents, end = self.points.get(name, ([], 0.0))
        if self.clock() > end:
            return fault(404, "search_context_missing_exception", f"No search context found for id [{name}]")
        self.points[name] = documents, self.clock() + self.keep_seconds
        found = [part for period in periods(body["query"]) for part in within(documents, period)]
        answer: dict[str, Any] = {"pit_id": name, "timed_out": False, "hits": {"hits": hits(body, found)}}
        if "aggs" in body:
            answer["aggregations"] = {title: composite(each, found) for title, each in body["aggs"].items()}
        return 200, answer


def fault(status: int, kind: str, reason: str) -> tuple[int, Any]:
    error = {"type": kind, "reason": reason, "root_cause": [{"type": kind, "reason": reason}]}
    return status, {"error": error, "status": status}


def periods(query: Any) -> list[dict[str, int]]:
    """The ranges of the timestamp in a query of one filter, or of several of which one must hold."""
    rules = query["bool"]
    assert rules.keys() in ({"filter"}, {"should", "minimum_should_match"}), rules
    parts = rules.get("filter") or rules["should"]
    assert "should" in rules or len(parts) == 1
    result = [dict(part["range"]["@timestamp"]) for part in parts]
    for period in result:
        assert period.pop("format") == "epoch_millis"
        assert period.keys() <= {"gte", "lt"}
    return result


def within(documents: list[Stored], period: dict[str, int]) -> list[Stored]:
    def place(bound: int) -> int:
        return bisect.bisect_left(documents, bound, key=lambda each: each.time)

    first = place(period["gte"]) if "gte" in period else 0
    return documents[first : place(period["lt"]) if "lt" in period else len(documents)]


def hits(body: Any, found: list[Stored]) -> list[Any]:
    if not body["size"]:
        return []
    assert body["sort"] == [{"@timestamp": {"order": "asc"}}, {"_shard_doc": {"order": "asc"}}]
    if after := body.get("search_after"):
        found = found[bisect.bisect_right(found, tuple(after), key=lambda each: (each.time, each.number)) :]
    return [
        {
            "_index": f".ds-{each.index}-2026.11.27-000001",
            "_id": each.id,
            "_score": None,
            "_source": chosen(each.source, body["_source"]),
            "sort": [each.time, each.number],
        }
        for each in found[: min(body["size"], 10_000)]
    ]


def chosen(source: Any, names: list[str], prefix: str = "") -> Any:
    """The part of a source whose paths, nested or dotted, are in `names` or below one of them."""
    result = {}
    for key, value in source.items():
        path = prefix + key
        if path in names or any(path.startswith(f"{name}.") for name in names):
            result[key] = value
        elif isinstance(value, dict) and (part := chosen(value, names, f"{path}.")):
            result[key] = part
    return result


def composite(aggregation: Any, found: list[Stored]) -> Any:
    """The buckets of a composite aggregation of one histogram in seconds."""
    rules = aggregation["composite"]
    ((source,),) = (list(each.items()) for each in rules["sources"])
    title, histogram = source
    assert histogram["date_histogram"].keys() == {"field", "fixed_interval"}
    width = int(histogram["date_histogram"]["fixed_interval"].removesuffix("s")) * 1000
    counts: dict[int, int] = {}
    for each in found:
        counts[each.time // width * width] = counts.get(each.time // width * width, 0) + 1
    after = rules.get("after", {}).get(title)
    keys = [key for key in sorted(counts) if after is None or key > after][: rules["size"]]
    buckets = [{"key": {title: key}, "doc_count": counts[key]} for key in keys]
    return {"buckets": buckets} | ({"after_key": buckets[-1]["key"]} if buckets else {})


def application(state: StandIn) -> Flask:
    app = Flask("elastic_stand_in")

    @app.before_request
    def guard() -> Response | None:
        body = request.get_json(force=True, silent=True)
        state.asked.append((request.method, request.full_path.rstrip("?"), body))
        if state.faults:
            state.faults -= 1
            return answer((state.status, state.body))
        words = request.headers.get("Authorization", "").removeprefix("Basic ")
        if base64.b64decode(words).decode() != f"{USER}:{PASSWORD}":
            return answer(fault(401, "security_exception", f"unable to authenticate user [{USER}]"))
        return None

    def answer(result: tuple[int, Any]) -> Response:
        status, value = result
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return Response(text, status, {"X-Elastic-Product": state.product} if state.product else {}, "application/json")

    @app.post("/<index>/_pit")
    def open_point(index: str) -> Response:
        assert request.args.keys() <= {"keep_alive", "ignore_unavailable", "allow_partial_search_results"}
        return answer(state.open(index))

    @app.delete("/_pit")
    def close_point() -> Response:
        return answer(state.drop(request.get_json(force=True)))

    @app.post("/_search")
    def search() -> Response:
        assert request.args.keys() <= {"allow_partial_search_results"}
        return answer(state.search(request.get_json(force=True)))

    return app


class _Handler(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


def milliseconds(text: str) -> int:
    """The time of an ISO 8601 text as Elasticsearch keeps it: in whole ms since 1970."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1_000_000 + 0.5) // 1000


@contextmanager
def stand_in(clock: Callable[[], float] = time.time, port: int = 0, state: StandIn | None = None) -> Iterator[StandIn]:
    """A stand-in that listens at `url`; with the `state` of an earlier one it is that one started again."""
    state = state or StandIn(clock)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server: BaseWSGIServer = make_server("127.0.0.1", port, application(state), threaded=True, request_handler=_Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
