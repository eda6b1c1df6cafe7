"""The join of predictions with feedback, and the store: monitor.join and monitor.store, on a real SQLite file."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import source
from monitor.join import DAY, WAIT_SECONDS, Counts, Join, Subject
from monitor.source import Batch, Read
from monitor.store import Prediction, Store

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SUBJECT = Subject("m", "laptop", "no", "yes")
DEMO_VERSION = 9


class Record:
    """A judge that notes what it gets."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str, bool]] = []

    def predicted(self, prediction: Prediction) -> None:
        self.notes.append(("predicted", prediction.id, prediction.predicted))

    def labelled(self, prediction: Prediction, positive: bool) -> None:
        self.notes.append(("labelled", prediction.id, positive))

    def corrected(self, prediction: Prediction, positive: bool) -> None:
        self.notes.append(("corrected", prediction.id, positive))

    def of(self, kind: str) -> list[tuple[str, bool]]:
        return [(name, positive) for what, name, positive in self.notes if what == kind]


def prediction(name: str, seconds: float = 0, **fields: object) -> source.Prediction:
    given_fields = {"model_name": "m", "model_version": "1", "source": "client", "label": "no", **fields}
    at = NOW + timedelta(seconds=seconds)
    return msgspec.structs.replace(
        source.Prediction(at=at, id=name, model_name="", model_version="", label="", probability=0.25), **given_fields
    )


def feedback(name: str, label: str = "yes", seconds: float = 1, **fields: str) -> source.Feedback:
    at = NOW + timedelta(seconds=seconds)
    event = source.Feedback(at=at, id=f"f{name}", prediction_id=name, source="client", label=label)
    return msgspec.structs.replace(event, **fields)


def join(store: Store, judge: Record, counts: Counts | None = None) -> Join:
    return Join(store, SUBJECT, lambda version: version == DEMO_VERSION, judge, counts or Counts(), days=90)


def run(tmp_path: Path, *batches: Sequence[Read]) -> tuple[Record, dict[str, int]]:
    """Join the batches; give the record and the counts that are not zero."""
    judge, store = Record(), Store(tmp_path / "monitor.db")
    joined = join(store, judge)
    for events in batches:
        with store.transaction():
            joined.add(Batch(list(events), {}))
    store.close()
    return judge, {name: n for name, n in msgspec.structs.asdict(joined.counts).items() if n}


def test_a_label_joins_its_prediction(tmp_path: Path) -> None:
    """A label joins its prediction, in the same batch or in a later one."""
    for batches in ([[prediction("a"), feedback("a")]], [[prediction("a")], [feedback("a")]]):
        judge, counts = run(tmp_path / str(len(batches)), *batches)
        assert judge.of("labelled") == [("a", True)]
        assert counts == {"predictions": 1, "joined": 1}


def test_a_repeated_label_changes_nothing_and_a_contradicting_one_the_display(tmp_path: Path) -> None:
    """The first label is the evidence; the next ones are repetitions or corrections."""
    labels = [feedback("a", label) for label in ("yes", "yes", "no", "no", "yes")]
    judge, counts = run(tmp_path, [prediction("a"), labels[0]], labels[1:3], labels[3:])
    assert judge.of("labelled") == [("a", True)]
    assert judge.of("corrected") == [("a", False), ("a", True)]
    assert counts == {"predictions": 1, "joined": 1, "repeated": 2, "contradicting": 2}


def test_feedback_waits_for_its_prediction_and_is_unknown_in_the_end(tmp_path: Path) -> None:
    """Early feedback is joined when the prediction comes; feedback without one is unknown after the wait."""
    judge, counts = run(tmp_path, [feedback("a"), feedback("b")], [prediction("a", 5)])
    assert judge.of("labelled") == [("a", True)]
    assert counts == {"predictions": 1, "joined": 1, "early": 2}
    later = prediction("z", WAIT_SECONDS + 2)
    _, counts = run(tmp_path / "late", [feedback("a")], [later], [prediction("a", WAIT_SECONDS + 3)])
    assert counts == {"predictions": 2, "early": 1, "unknown": 1}


@pytest.mark.parametrize(("days", "count"), [(89.0, "joined"), (91.0, "late"), (200.0, "early")])
def test_a_label_may_come_for_ninety_days(tmp_path: Path, days: float, count: str) -> None:
    """A label is late after 90 days; after twice as long, the prediction is no longer stored."""
    label = feedback("a", seconds=days * DAY)
    between = prediction("b", days * DAY - 1)
    clock = NOW.timestamp() + 400 * DAY
    judge, store = Record(), Store(tmp_path / "monitor.db")
    joined = Join(store, SUBJECT, lambda _: False, judge, Counts(), days=90, clock=lambda: clock)
    for events in ([prediction("a")], [between], [label]):
        joined.add(Batch(list(events), {}))
    store.close()
    assert getattr(joined.counts, count) == 1


def test_an_event_of_a_wrong_clock_expires_nothing(tmp_path: Path) -> None:
    """An event from the year 2200 does not make the monitor forget the predictions of today."""
    far = prediction("far", 170 * 365 * DAY)
    judge, _ = run(tmp_path, [prediction("a")], [far], [feedback("a")])
    assert judge.of("labelled") == [("a", True)]


@pytest.mark.parametrize(
    ("event", "label", "count"),
    [
        ({"source": "loadtest"}, {"source": "loadtest"}, "other_source"),
        ({"source": "dashboard"}, {"source": "dashboard"}, "other_source"),
        ({"source": "demo"}, {"source": "demo"}, "other_source"),
        ({}, {"source": "demo"}, "other_source"),
        ({"model_version": str(DEMO_VERSION)}, {}, "other_source"),
        ({"model_name": "other"}, {}, "other_model"),
        ({"environment": "staging"}, {"environment": "staging"}, "other_environment"),
        ({}, {"label": "perhaps"}, "wrong_label"),
    ],
)
def test_what_does_not_count_is_counted(
    tmp_path: Path, event: dict[str, str], label: dict[str, str], count: str
) -> None:
    """Records of other sources, models and environments, and labels of no class, give no evidence but a count."""
    judge, counts = run(tmp_path, [prediction("a", **event), feedback("a", **label)])
    assert judge.of("labelled") == []
    assert counts[count] >= 1


def test_a_demo_version_is_judged_by_demo_records(tmp_path: Path) -> None:
    """A version with the tag `demo` is judged by the records of the demo."""
    version = str(DEMO_VERSION)
    judge, _ = run(tmp_path, [prediction("a", model_version=version, source="demo"), feedback("a", source="demo")])
    assert judge.of("labelled") == [("a", True)]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_batches_and_interruptions_do_not_change_the_result(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """However the events are cut into batches, and whichever batches are tried twice, the joins are the same."""
    names = st.sampled_from("abcdef")
    events = data.draw(
        st.lists(st.one_of(names.map(prediction), st.builds(feedback, names, st.sampled_from(["yes", "no"]))))
    )
    plain, counts = run(tmp_path_factory.mktemp("plain"), *[[event] for event in events])
    path = tmp_path_factory.mktemp("cut") / "monitor.db"
    judged, kept, place = list[tuple[str, str, bool]](), Counts(), 0
    while place < len(events):
        size = data.draw(st.integers(1, 4))
        fails = data.draw(st.booleans())
        store, judge = Store(path), Record()
        tried = msgspec.json.decode(msgspec.json.encode(kept), type=Counts)
        try:
            with store.transaction():
                join(store, judge, tried).add(Batch(events[place : place + size], {}))
                if fails:
                    raise InterruptedError
        except InterruptedError:
            pass
        else:
            judged, kept, place = judged + judge.notes, tried, place + size
        store.close()
    assert judged == plain.notes
    assert {name: n for name, n in msgspec.structs.asdict(kept).items() if n} == counts


KILLED = """
import sys
from pathlib import Path
from monitor.store import Prediction, Store
store, number = Store(Path(sys.argv[1])), 0
while True:
    with store.transaction():
        for each in range(200):
            number += 1
            store.put([Prediction(f"p{number}", 1, "client", True, 0.5, 0.0, None, b"{}")])
        store.set("number", str(number).encode())
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    """After SIGKILL in the middle, the store has whole batches, and all that was acknowledged."""
    path = tmp_path / "monitor.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(5)][-1]
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    store = Store(path)
    number = int(store.get("number") or 0)
    assert number >= acknowledged
    assert number % 200 == 0
    assert list(store.predictions([f"p{number}", f"p{number + 1}"])) == [f"p{number}"]
    store.close()


@pytest.mark.parametrize("damage", ["rubbish", "middle"])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: str) -> None:
    """The store begins again from nothing, keeps the damaged file, and says so."""
    path = tmp_path / "monitor.db"
    store = Store(path)
    with store.transaction():
        store.set("state", b"x" * 50_000)
        store.put(Prediction(f"p{n}", 1, "client", True, 0.5, float(n), None, b"{}") for n in range(2_000))
    store.close()
    content = bytearray(path.read_bytes())
    if damage == "rubbish":
        content = bytearray(b"no database" * 100)
    else:
        content[4_096:40_960] = b"\xff" * (40_960 - 4_096)
    path.write_bytes(content)
    store = Store(path)
    assert "damaged" in store.restarted
    assert store.get("state") is None
    assert len(list(tmp_path.glob("monitor.db.damaged-*"))) == 1
    store.close()
