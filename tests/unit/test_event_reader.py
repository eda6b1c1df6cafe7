"""The reader of event files gives typed events of a period and counts broken lines."""

from __future__ import annotations

import io
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import events
from lab.event_reader import Reader, read

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
OLD = {"@timestamp": "2026-10-01T00:00:00Z", "event.id": "1", "service.name": "api", "ecs.version": "9.1.0"}
NAME = "api-20261126T120000.000000-1.ndjson"


def feedback(number: int, time: datetime = NOON) -> events.Feedback:
    return events.Feedback(
        timestamp=time, id=str(number), service="api", environment="laptop", prediction_id="p", source="demo", label="y"
    )


def garbage(line: bytes) -> bool:
    return b"\n" not in line


LINES = st.lists(
    st.one_of(
        st.just("valid"),
        st.integers(1, 60),
        st.binary(max_size=30).filter(garbage),
        st.sampled_from([b"{}", b"[]", b"1", b"[" * 5000, b'{"event.dataset": "lab.feedback"}', b"\xff"]),
    ),
    max_size=20,
)


@given(lines=LINES, cut=st.integers(0, 60))
def test_any_mix_gives_the_valid_lines_in_order_and_counts_the_others(lines, cut):
    """The reader gives valid lines, counts cut and garbage lines, and ignores a last line without a newline."""
    content, valid = b"", []
    for number, line in enumerate(lines):
        event = feedback(number)
        if line == "valid":
            valid.append(event)
            content += msgspec.json.encode(event) + b"\n"
        else:
            content += (msgspec.json.encode(event)[:line] if isinstance(line, int) else line) + b"\n"
    content += msgspec.json.encode(feedback(99))[:cut]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(content)
        reader = Reader(Path(folder))
        assert list(reader) == valid
        assert (reader.broken, reader.unknown) == (len(lines) - len(valid), 0)


def test_a_dataset_or_kind_of_newer_code_is_counted_apart_and_its_fields_are_ignored(tmp_path):
    """A newer writer beside an older reader is no damage."""
    lines = [
        OLD | {"event.dataset": "lab.later"},
        OLD | {"event.dataset": "lab.alert", "lab.kind": "later", "message": "m"},
        OLD | {"event.dataset": "lab.feedback", "lab.prediction_id": "p", "lab.label": "y", "lab.later": 1},
    ]
    (tmp_path / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = read(tmp_path)
    (event,) = reader
    assert (reader.broken, reader.unknown) == (0, 2)
    assert isinstance(event, events.Feedback)
    assert (event.source, event.environment) == ("unknown", ""), "an old event is no patient's for sure"


def test_alerts_of_earlier_code_are_read(tmp_path):
    """Alerts with `lab.refused_version`, or with the version of a failing model, are read."""
    alert = OLD | {"event.dataset": "lab.alert", "message": "m", "labels.model_name": "small"}
    lines = [alert | {"lab.refused_version": 5}, alert | {"labels.model_version": "6"}]
    (tmp_path / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    kinds = [(event.kind, event.model_version) for event in read(tmp_path) if isinstance(event, events.Alert)]
    assert kinds == [("model_refused", "5"), ("model_failing", "6")]


def test_a_period_includes_its_start_and_not_its_end(tmp_path):
    """[since, until): two periods that meet share no event."""
    (tmp_path / NAME).write_bytes(
        b"".join(msgspec.json.encode(feedback(hour, NOON + timedelta(hours=hour))) + b"\n" for hour in range(4))
    )
    hour = timedelta(hours=1)
    assert [event.id for event in read(tmp_path, NOON + hour, NOON + 3 * hour)] == ["1", "2"]
    assert [event.id for event in read(tmp_path, until=NOON + hour)] == ["0"]


@pytest.mark.parametrize(("days", "is_opened"), [(-2, False), (-0.9, True), (0.5, True), (2, False)])
def test_a_file_of_another_time_is_not_opened(tmp_path, days, is_opened):
    """A file of another time is not opened, so its broken line is not counted."""
    start = NOON + timedelta(days=days)
    (tmp_path / f"api-{start:{events.STARTED}}-1.ndjson").write_bytes(b"broken\n")
    reader = read(tmp_path, NOON, NOON + timedelta(days=1))
    assert list(reader) == []
    assert reader.broken == int(is_opened)


def test_files_come_in_the_order_of_their_start(tmp_path):
    """Files come in the order of their start, from all services."""
    for number, service in enumerate(("trainer", "api")):
        path = tmp_path / f"{service}-{NOON + timedelta(hours=number):{events.STARTED}}-1.ndjson"
        path.write_bytes(msgspec.json.encode(feedback(number)) + b"\n")
    assert [event.id for event in read(tmp_path)] == ["0", "1"]


def test_a_short_process_writes_a_decision(tmp_path):
    """The gate's decision is written and read back, and its file is closed."""
    decision = events.Decision(
        timestamp=NOON, id="d", service="trainer", environment="staging", decision="promoted", number=3,
        model_name="small", from_version=1, to_version=2, reason="better", figures={"gain": 0.02},
    )  # fmt: skip
    with events.Writer(tmp_path, "trainer") as writer:
        writer.write([decision])
    (path,) = tmp_path.iterdir()
    assert not events.is_open(path)
    assert list(read(tmp_path)) == [decision]


class GrowingFile(io.FileIO):
    """A file to which a writer appends `rest` at the moment when a reader has reached its end."""

    rest = b""

    def readinto(self, buffer) -> int:
        size = super().readinto(buffer)
        if not size and GrowingFile.rest:
            with open(self.name, "ab") as file:  # noqa: PTH123
                file.write(GrowingFile.rest)
            GrowingFile.rest = b""
        return size


def test_a_line_that_is_written_while_it_is_read_is_not_counted_as_broken(tmp_path, monkeypatch):
    """The reader stops at half a line, also when the writer adds the rest before the next read."""
    lines = [msgspec.json.encode(feedback(number)) + b"\n" for number in range(2)]
    (tmp_path / NAME).write_bytes(lines[0] + lines[1][:50])
    monkeypatch.setattr(GrowingFile, "rest", lines[1][50:])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, _mode: io.BufferedReader(GrowingFile(path)))
        reader = Reader(tmp_path)
        assert [event.id for event in reader] == ["0"]
        assert (reader.broken, reader.unknown) == (0, 0)
    assert GrowingFile.rest == b"", "the file has grown"
    assert [event.id for event in Reader(tmp_path)] == ["0", "1"]


def test_the_figures_of_the_monitor_are_read_as_they_were_written(tmp_path):
    """The reader gives each metric and each drift test with its values, and a metric without a promise has none."""
    about = {"timestamp": NOON, "service": "monitor", "model_name": "small", "model_version": "2"}
    written = [
        events.Quality(id="1", metric="recall", value=0.96, low=0.91, high=0.99, count=200, promise=0.95, **about),
        events.Quality(id="2", metric="brier", value=0.04, low=0.02, high=0.07, count=200, **about),
        events.Drift(
            id="3",
            feature="score",
            statistic="score",
            psi=0.2,
            limit=0.1,
            p_value=0.001,
            count=200,
            drifted=True,
            **about,
        ),
    ]
    with events.Writer(tmp_path, "monitor") as writer:
        writer.write(written)
    reader = read(tmp_path)
    assert list(reader) == written
    assert (reader.broken, reader.unknown) == (0, 0)
    assert [event.promise for event in written[:2]] == [0.95, None]
