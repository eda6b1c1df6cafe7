"""Elasticsearch as a source of the monitor: monitor.elastic, with a stand-in server (tests/elastic_stand_in.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from monitor.elastic import ElasticSource
from monitor.source import Position, Prediction, Read
from tests.elastic_stand_in import PASSWORD, StandIn, stand_in

# 2026-11-27T12:00:00Z in ms.
START = 1_795_780_800_000
INDEX = "logs-lab.{}-default"


class Clock:
    """A clock that a test sets, in s."""

    now = START / 1000 + 3_600

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[StandIn]:
    with stand_in(clock) as state:
        yield state


@pytest.fixture
def source(server: StandIn, clock: Clock) -> Iterator[ElasticSource]:
    with ElasticSource(server.url, PASSWORD, hold=10.0, overlap=300.0, clock=clock) as made:
        yield made


def iso(ms: int) -> str:
    seconds, part = divmod(ms - START, 1000)
    return f"2026-11-27T{12 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{part:03}Z"


def feedback(server: StandIn, name: str, ms: int = 0, visible: float = 0.0, nested: bool = True) -> None:
    """Store feedback as Logstash does, or with dotted names; a search finds it from `visible` on."""
    time = START + ms
    fields: dict[str, Any] = {
        "@timestamp": iso(time),
        "event.dataset": "lab.feedback",
        "event.id": name,
        "lab.prediction_id": f"p-{name}",
        "lab.label": "yes",
        "labels.source": "client",
    }
    document = _nested(fields) if nested else fields
    server.add(document, time=time, index=INDEX.format("feedback"), id=name, visible=visible)


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in fields.items():
        place, parts = result, key.split(".")
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return result


def ids(events: Sequence[Read]) -> list[str]:
    return [event.id for event in events]


def read_all(source: ElasticSource, position: Position | None = None, limit: int = 100) -> tuple[list[Read], Position]:
    """Everything that the source gives now, in batches of `limit`, each position as JSON."""
    events, position = list[Read](), position or {}
    for _ in range(1_000):
        batch = source.read(position, limit)
        events += batch.events
        position = json.loads(json.dumps(batch.position))
        if not batch.more:
            return events, position
    raise AssertionError("the source never ends")


def test_nested_and_dotted_documents_are_read(server: StandIn, source: ElasticSource) -> None:
    """A document is read as Logstash stores it and with dotted names, with all that the monitor needs."""
    fields = {
        "@timestamp": iso(START),
        "event.dataset": "lab.prediction",
        "event.id": "p1",
        "event.duration": 7,
        "service.environment": "laptop",
        "labels.model_name": "m",
        "labels.model_version": "3",
        "labels.source": "client",
        "lab.label": "yes",
        "lab.probability": 0.75,
        "lab.features": {"a": 1, "b.c": None, "d": "word"},
    }
    server.add(_nested(fields), time=START, index=INDEX.format("prediction"), id="p1")
    feedback(server, "f1", 1, nested=False)
    events, _ = read_all(source)
    assert ids(events) == ["p1", "f1"]
    prediction = events[0]
    assert isinstance(prediction, Prediction)
    assert (prediction.model_version, prediction.probability, prediction.duration) == ("3", 0.75, 7)
    assert prediction.features == {"a": 1, "b.c": None, "d": "word"}


def test_without_an_index_there_are_no_events(server: StandIn, source: ElasticSource) -> None:
    """Before the first event there is no index; the events are read as soon as there are some."""
    assert read_all(source)[0] == []
    feedback(server, "a")
    assert ids(read_all(source)[0]) == ["a"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(0, 30_000), max_size=30), limits=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_batches_and_restarts_do_not_change_the_order(clock: Clock, times: list[int], limits: list[int]) -> None:
    """Whatever the sizes of the batches, and with a new client for each, the events come once each, in order."""
    with stand_in(clock) as server:
        for number, ms in enumerate(times):
            feedback(server, f"e{number}", ms)
        with ElasticSource(server.url, PASSWORD, clock=clock) as source:
            whole, _ = read_all(source)
        events, position = list[Read](), Position()
        for turn in range(200):
            with ElasticSource(server.url, PASSWORD, clock=clock) as source:
                batch = source.read(position, limits[turn % len(limits)])
            events, position = events + batch.events, json.loads(json.dumps(batch.position))
            if not batch.more:
                break
    assert sorted(ids(whole)) == sorted(f"e{number}" for number in range(len(times)))
    assert [event.at for event in whole] == sorted(event.at for event in whole)
    assert ids(events) == ids(whole)


def test_a_document_that_becomes_visible_late_is_given_once(
    server: StandIn, source: ElasticSource, clock: Clock
) -> None:
    """An event that is indexed after later ones is not lost, and none is given twice."""
    seconds = (clock.now - START / 1000) * 1000
    for number in range(20):
        feedback(server, f"e{number}", int(seconds) - 100_000 + number * 1_000, visible=clock.now + number % 4 * 20)
    events, position = list[Read](), Position()
    for _ in range(8):
        found, position = read_all(source, position, limit=7)
        events += found
        clock.now += 10
    assert sorted(ids(events)) == sorted(f"e{number}" for number in range(20))


def test_a_new_event_waits_and_one_of_a_wrong_clock_does_not_block(
    server: StandIn, source: ElasticSource, clock: Clock
) -> None:
    """An event waits for the hold time; one from the far future is given once, and later events still come."""
    now = int(clock.now * 1000) - START
    feedback(server, "new", now - 1_000)
    feedback(server, "future", now + 86_400_000 // 4)
    events, position = read_all(source)
    assert ids(events) == ["future"]
    clock.now += 20
    events, position = read_all(source, position)
    assert ids(events) == ["new"]
    feedback(server, "later", now + 1_000)
    clock.now += 20
    assert ids(read_all(source, position)[0]) == ["later"]


@pytest.mark.parametrize("document", [{}, {"event": 3}, {"@timestamp": "x"}, {"event": {"dataset": "lab.feedback"}}])
def test_rubbish_is_counted_and_skipped(server: StandIn, source: ElasticSource, document: dict[str, Any]) -> None:
    """A document that is no event is counted, and the events around it are read."""
    feedback(server, "a", 0)
    server.add(document, time=START + 1, index=INDEX.format("feedback"), id="rubbish")
    feedback(server, "b", 2)
    batch = source.read({}, 10)
    assert (ids(batch.events), batch.broken) == (["a", "b"], 1)


@pytest.mark.parametrize(("status", "word"), [(503, "503"), (429, "too many requests"), (403, "does not let")])
def test_a_server_that_refuses_is_a_fault_and_nothing_is_lost(
    server: StandIn, source: ElasticSource, status: int, word: str
) -> None:
    """While the server refuses, reading raises an error that says what to do; then the events come."""
    feedback(server, "a")
    server.status, server.faults = status, -1
    with pytest.raises(LabError, match=word) as error:
        source.read({}, 10)
    assert error.value.remedy
    server.faults = 0
    assert ids(read_all(source)[0]) == ["a"]


def test_a_wrong_password_is_a_fault_without_the_password(server: StandIn, clock: Clock) -> None:
    """A refused password is told without the password itself."""
    feedback(server, "a")
    with ElasticSource(server.url, "s3cret", clock=clock) as source, pytest.raises(LabError) as error:
        source.read({}, 10)
    assert "MONITOR_PASSWORD" in error.value.remedy
    assert "s3cret" not in f"{error.value.message}{error.value.remedy}"


def test_a_server_that_is_away_comes_back(clock: Clock) -> None:
    """While nothing listens, reading raises an error; the server that is started again is read from the position."""
    with stand_in(clock) as server:
        feedback(server, "a", 0)
        port = int(server.url.rpartition(":")[2])
        source = ElasticSource(server.url, PASSWORD, clock=clock)
        events, position = read_all(source)
    with pytest.raises(LabError):
        source.read(position, 10)
    with stand_in(clock, port, server):
        feedback(server, "b", 60_000)
        found, _ = read_all(source, position)
    source.__exit__(None, None, None)
    assert (ids(events), ids(found)) == (["a"], ["b"])


def test_a_point_in_time_that_expired_is_opened_again(server: StandIn, source: ElasticSource, clock: Clock) -> None:
    """When Elasticsearch has dropped the point in time, the source opens another one and loses nothing."""
    for number in range(30):
        feedback(server, f"e{number}", number)
    batch = source.read({}, 5)
    server.points.clear()
    clock.now += 3_600
    found, _ = read_all(source, batch.position, limit=5)
    assert sorted(ids(batch.events + found)) == sorted(f"e{number}" for number in range(30))
