"""The event files as a source of the monitor: monitor.files, with real writers and real files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import events
from lab.events import Writer
from lab.retention import Retention, prune
from monitor.files import FileSource, finished
from monitor.source import Position, Prediction, Read

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW.timestamp() + 3_600


def feedback(number: int, at: datetime = NOW) -> events.Feedback:
    return events.Feedback(timestamp=at, id=str(number), service="api", prediction_id=f"p{number}", label="yes")


def line(number: int, at: datetime) -> str:
    fields = {
        "event.dataset": "lab.feedback",
        "@timestamp": at.isoformat(),
        "event.id": str(number),
        "lab.prediction_id": "p",
        "lab.label": "yes",
    }
    return json.dumps(fields) + "\n"


def write(folder: Path, name: str, lines: Sequence[str]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ndjson"
    path.write_text("".join(lines))
    return path


def read_all(source: FileSource, limit: int = 1_000, position: Position | None = None) -> tuple[list[Read], Position]:
    """Everything that the source gives now, in batches of `limit`, each position as JSON."""
    found, position = list[Read](), position or {}
    while True:
        batch = source.read(position, limit)
        found += batch.events
        position = json.loads(json.dumps(batch.position))
        if not batch.more:
            return found, position


def ids(found: Sequence[Read]) -> list[str]:
    return [event.id for event in found]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=4),
    limits=st.lists(st.integers(1, 7), min_size=1, max_size=8),
)
def test_the_order_does_not_depend_on_the_batches(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], limits: list[int]
) -> None:
    """Whatever the sizes of the batches, the events come once each, in one order, which is that of their times."""
    folder = tmp_path_factory.mktemp("events")
    number = 0
    for place, seconds in enumerate(files):
        lines = []
        for second in sorted(seconds):
            number += 1
            lines.append(line(number, NOW + timedelta(seconds=second)))
        write(folder, f"api-20261127T120000.00000{place}-{place}", lines)
    whole, _ = read_all(FileSource(folder, clock=lambda: LATER))
    assert sorted(ids(whole), key=int) == [str(each + 1) for each in range(number)]
    assert [event.at for event in whole] == sorted(event.at for event in whole)
    parts, position, turn = list[Read](), Position(), 0
    while True:
        batch = FileSource(folder, clock=lambda: LATER).read(position, limits[turn % len(limits)])
        parts, position, turn = parts + batch.events, json.loads(json.dumps(batch.position)), turn + 1
        if not batch.more:
            break
    assert ids(parts) == ids(whole)


def test_events_of_a_real_writer_arrive_while_it_writes(tmp_path: Path) -> None:
    """The source follows an open file, and a closed file is done only when it was read to its end."""
    source, position = FileSource(tmp_path, clock=lambda: LATER), Position()
    writer = Writer(tmp_path, "api")
    for number in range(3):
        writer.write([feedback(number)])
        batch = source.read(position, 10)
        assert ids(batch.events) == [str(number)]
        position = batch.position
        assert finished(position) == []
    writer.write([feedback(3)])
    writer.close()
    batch = source.read(position, 10)
    assert ids(batch.events) == ["3"]
    assert finished(batch.position) == [path.name for path in tmp_path.glob("*.ndjson")]
    assert source.read(batch.position, 10).events == []


def test_the_checkpoint_lets_only_read_files_be_deleted(tmp_path: Path) -> None:
    """With the checkpoint of the finished files, the retention deletes a file that was read, and no other."""
    source = FileSource(tmp_path, clock=lambda: LATER)
    names = []
    for number in range(2):
        with Writer(tmp_path, "api") as writer:
            writer.write([feedback(number)])
        names.append(max(tmp_path.glob("*.ndjson")).name)
        if not number:
            position = source.read({}, 10).position
    (tmp_path / "monitor.checkpoint").write_text("\n".join(finished(position)))
    prune(tmp_path, Retention(days=90, megabytes=0))
    assert [path.name for path in tmp_path.glob("*.ndjson")] == names[1:]


def test_a_line_without_its_end_waits(tmp_path: Path) -> None:
    """A line that is written in two parts is read once, when it is whole."""
    text = line(1, NOW)
    path = write(tmp_path, "api-20261127T120000.000000-1", [text[:20]])
    file = os.open(path, os.O_RDONLY)
    events.hold(file)  # the file counts as open
    source = FileSource(tmp_path, clock=lambda: LATER)
    position = source.read({}, 10).position
    with path.open("a") as more:
        more.write(text[20:])
    batch = source.read(position, 10)
    os.close(file)
    assert ids(batch.events) == ["1"]


@pytest.mark.parametrize("rubbish", ["{", "\x00\x01", '{"event.dataset": "lab.feedback"}', "[" * 10_000, "null", ""])
def test_rubbish_is_counted_and_skipped(tmp_path: Path, rubbish: str) -> None:
    """A line that is no event is counted once, and the events around it are read."""
    write(tmp_path, "api-20261127T120000.000000-1", [line(1, NOW), f"{rubbish}\n", line(2, NOW)])
    source = FileSource(tmp_path, clock=lambda: LATER)
    first = source.read({}, 1)
    second = source.read(first.position, 10)
    assert ids(first.events + second.events) == ["1", "2"]
    assert first.broken + second.broken == 1


def test_events_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    """An alert is not for the monitor and no fault; a dataset that nobody knows is counted."""
    alert = events.Alert(
        timestamp=NOW, id="a", service="api", kind="drift", message="m", model_name="m", model_version="1"
    )
    with Writer(tmp_path, "api") as writer:
        writer.write([alert, feedback(1)])
    write(tmp_path, "api-20261127T120000.000000-1", ['{"event.dataset": "lab.other"}\n'])
    batch = FileSource(tmp_path, clock=lambda: LATER).read({}, 10)
    assert (ids(batch.events), batch.broken, batch.unknown) == (["1"], 0, 1)


def test_a_file_that_is_cut_is_read_from_its_new_end(tmp_path: Path) -> None:
    """After a file was cut, later events of the file are read, and the source does not fail."""
    name = "api-20261127T120000.000000-1"
    path = write(tmp_path, name, [line(number, NOW) for number in range(5)])
    file = os.open(path, os.O_RDONLY)
    events.hold(file)
    source = FileSource(tmp_path, clock=lambda: LATER)
    position = source.read({}, 10).position
    path.write_text(line(0, NOW))
    position = source.read(position, 10).position
    with path.open("a") as more:
        more.write(line(9, NOW))
    found = ids(source.read(position, 10).events)
    os.close(file)
    assert found == ["9"]


def test_a_new_event_waits_and_a_future_one_does_not(tmp_path: Path) -> None:
    """An event waits for the hold time; an event from before a clock was set back is given at once."""
    now = NOW.timestamp()
    write(tmp_path, "api-20261127T120000.000000-1", [line(1, NOW)])
    write(tmp_path, "api-20261127T120000.000000-2", [line(2, NOW + timedelta(days=1)), line(3, NOW)])
    early = FileSource(tmp_path, hold=0.5, clock=lambda: now + 0.4).read({}, 10)
    assert ids(early.events) == ["2"]
    late = FileSource(tmp_path, hold=0.5, clock=lambda: now + 0.6).read(early.position, 10)
    assert ids(late.events) == ["1", "3"]


def test_the_features_and_the_probability_are_read(tmp_path: Path) -> None:
    """A prediction of the API is read with all that the monitor needs of it."""
    event = events.Prediction(
        timestamp=NOW,
        id="p1",
        service="api",
        environment="laptop",
        duration=5,
        model_name="m",
        model_version="3",
        source="client",
        label="yes",
        probability=0.75,
        threshold=0.5,
        features={"a": 1, "b": None, "c": "word"},
    )
    with Writer(tmp_path, "api") as writer:
        writer.write([event])
    (found,) = FileSource(tmp_path, clock=lambda: LATER).read({}, 10).events
    assert isinstance(found, Prediction)
    assert (found.id, found.model_version, found.source, found.probability) == ("p1", "3", "client", 0.75)
    assert found.features == {"a": 1, "b": None, "c": "word"}
