"""`make collect`: the live records that become rows of the dataset, and the files that change."""

from __future__ import annotations

import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import events, problem
from lab.collection import Proposal
from lab.errors import LabError
from lab.problem import Collected, DateColumn, Feature
from lab.record import from_text
from lab.settings import ROOT, Settings
from launcher import collect as command
from launcher import params_edit
from tests.lab.conftest import BENIGN
from trainer import collect, collected, ingest, validate

PARAMS = (ROOT / "params.yaml").read_text()
CANCER = problem.parse(PARAMS)
NOVEMBER = datetime(2026, 11, 3, 12, tzinfo=UTC)


def prediction(number: int, **fields) -> events.Prediction:
    fields = {"model_name": CANCER.name, "source": "client", "features": BENIGN, "timestamp": NOVEMBER} | fields
    return events.Prediction(
        id=name(number),
        service="api",
        duration=1,
        model_version="1",
        label="benign",
        probability=0.1,
        threshold=0.5,
        **fields,
    )


def feedback(number: int, label: str = "benign", source: str = "client") -> events.Feedback:
    return events.Feedback(
        timestamp=NOVEMBER, id="f", service="api", prediction_id=name(number), source=source, label=label
    )


def name(number: int) -> str:
    return str(UUID(int=number))


def propose(folder: Path, written: list[events.Event], definition=CANCER, until: str = "") -> Proposal:
    """The proposal on a folder with these events, in a file of their own."""
    with events.Writer(folder, "api") as writer:
        writer.write(written)
    return collect.propose(definition, folder, until)


def with_records(folder: Path, text: str, definition=CANCER, until: str = "2026-12"):
    """The problem with this file of collected records."""
    path = folder / "collected.csv"
    path.write_bytes(text.encode())
    records = Collected(str(path), ingest.md5(path))
    source = msgspec.structs.replace(definition.source, collected=records)
    return msgspec.structs.replace(definition, source=source, data=problem.Data(until=until))


def test_each_rule_leaves_out_and_counts(tmp_path):
    """A record needs a client's prediction of this problem's model, one class from clients, and valid features."""
    written = [
        *(prediction(1), feedback(1), feedback(1), feedback(1, "malignant", "demo")),
        *(prediction(2), feedback(2), feedback(2, "malignant")),
        prediction(3),
        *(event for n, source in enumerate(("demo", "loadtest", "dashboard", "unknown"), 10) for event in (
            prediction(n, source=source), feedback(n))),
        *(prediction(20, model_name="another"), feedback(20)),
        feedback(30),
        *(prediction(40, features={**BENIGN, "mitoses": 11}), feedback(40)),
        *(prediction(41, features={k: v for k, v in BENIGN.items() if k != "mitoses"}), feedback(41)),
        *(prediction(42), feedback(42, "harmless")),
        *(prediction(50, timestamp=NOVEMBER + timedelta(days=30)), feedback(50)),
        *(prediction(60, features={**BENIGN, "bare_nuclei": None}), feedback(60, "malignant")),
    ]  # fmt: skip
    proposal = propose(tmp_path, written, until="2026-11")
    assert proposal.months == {"2026-11": {"benign": 1, "malignant": 1}}
    assert proposal.dataset == {"benign": 458, "malignant": 241}
    assert proposal.left_out == {
        collect.OTHER_SOURCE: 4,
        collect.OTHER_MODEL: 1,
        collect.LATER: 1,
        collect.UNLABELLED: 1,
        collect.CONFLICT: 1,
        collect.UNFIT: 3,
        collect.REPEATED: 1,
        collect.FEEDBACK_SOURCE: 1,
        collect.UNKNOWN: 1,
    }
    assert [note.split(": ", 1)[1] for note in proposal.notes] == [
        "mitoses 11 is out of bounds: 1 to 10",
        "mitoses is missing",
        "its class 'harmless' is neither class of target",
    ]
    assert proposal.text.splitlines() == [
        f"prediction_id,reported,{','.join(CANCER.features)},class",
        f"{name(1)},2026-11,1,1,1,1,1,1,2,2,2,2",
        f"{name(60)},2026-11,1,1,1,1,1,,2,2,2,4",
    ]


@given(st.data())
def test_the_order_of_the_events_has_no_meaning(tmp_path_factory, data):
    """Any interleaving of predictions and feedback, with repeats, in any number of files, gives the same records."""
    classes = data.draw(st.lists(st.sets(st.sampled_from(["benign", "malignant"])), min_size=1, max_size=6))
    days = data.draw(st.lists(st.integers(0, 90), min_size=len(classes), max_size=len(classes)))
    written: list[events.Event] = [prediction(n, timestamp=NOVEMBER + timedelta(days=d)) for n, d in enumerate(days)]
    labels = [feedback(n, label) for n, each in enumerate(classes) for label in sorted(each)]
    repeats = data.draw(st.lists(st.sampled_from(labels), max_size=5)) if labels else []
    order = data.draw(st.permutations([*written, *labels, *repeats]))
    cut = data.draw(st.integers(0, len(order)))
    folder = tmp_path_factory.mktemp("events")
    with events.Writer(folder, "other") as writer:
        writer.write(order[:cut])
    proposal = propose(folder, order[cut:])
    lines = [line.split(",") for line in proposal.text.splitlines()[1:]]
    expected = sorted((days[n], name(n)) for n, each in enumerate(classes) if len(each) == 1)
    assert [line[0] for line in lines] == [each for _, each in expected]
    assert [line[1] for line in lines] == sorted(line[1] for line in lines)
    assert proposal.left_out.get(collect.REPEATED, 0) == len(repeats)
    assert proposal.left_out.get(collect.CONFLICT, 0) == sum(len(each) == 2 for each in classes)
    assert proposal.left_out.get(collect.UNLABELLED, 0) == sum(not each for each in classes)


def test_a_second_collection_takes_only_new_records(tmp_path):
    """Records of the first collection keep their rows, also when an earlier month gets another record."""
    december = NOVEMBER + timedelta(days=30)
    first = propose(tmp_path, [prediction(1, timestamp=december), feedback(1)])
    definition = with_records(tmp_path, first.text)
    again = collect.propose(definition, tmp_path)
    assert (again.records, again.text, again.left_out) == (0, first.text, {collect.EARLIER: 1})
    second = propose(tmp_path, [prediction(2), feedback(2, "malignant"), feedback(1, "malignant")], definition)
    assert (second.records, second.total) == (1, 2)
    assert second.text.startswith(first.text)
    assert second.notes == [f"later feedback contradicts records that were collected (1): {name(1)}"]

    columns, rows = ingest.ingest(with_records(tmp_path, second.text))
    values = [str(value) for value in BENIGN.values()]
    assert columns[:3] == ["source_row", "reported", "sample_code_number"]
    assert rows[-2:] == [
        ["700", "2026-12", name(1), *values, "2"],
        ["701", "2026-11", name(2), *values, "4"],
    ]
    _, until = ingest.ingest(with_records(tmp_path, second.text, until="2026-11"))
    assert [row[0] for row in until[-2:]] == ["699", "701"]
    assert len(ingest.ingest(with_records(tmp_path, second.text, until="1991-11"))[1]) == 699
    frame = validate.frame_of(columns, rows)
    assert len(validate.validate(definition, frame)) == 701


def test_groups_by_dates_get_further_months(tmp_path):
    """The collected records follow the rows of a source whose months come from a column of dates."""
    path = tmp_path / "source.csv"
    path.write_text("seen;size;kind;ok;y\n2026-09-30;1,5;low;yes;0\n2026-10-01;2,5;high;no;1\n")
    features = {
        "size": Feature("real", min=0, max=9),
        "kind": Feature("category", levels=["low", "high"]),
        "ok": Feature("boolean", nullable=True),
    }
    source = problem.Source(path=str(path), separator=";", decimal=",", groups=DateColumn("seen"))
    target = problem.Target("y", problem.ClassLabel("0", "no"), problem.ClassLabel("1", "yes"))
    definition = msgspec.structs.replace(
        CANCER, source=source, features=features, target=target, id="", data=problem.Data()
    )
    values = {"size": 3.25, "kind": "high", "ok": True}
    written = [
        *(prediction(1, features=values), feedback(1, "yes")),
        *(prediction(2, features={**values, "size": 3, "ok": None}), feedback(2, "no")),
    ]
    proposal = propose(tmp_path, written, definition)
    _, rows = ingest.ingest(with_records(tmp_path, proposal.text, definition, until=""))
    assert rows == [
        ["1", "2026-09", "1.5", "low", "yes", "0"],
        ["2", "2026-10", "2.5", "high", "no", "1"],
        ["3", "2026-11", "3.25", "high", "true", "1"],
        ["4", "2026-11", "3", "high", "", "0"],
    ]


FEATURES = [
    (Feature("integer", min=-1e9, max=1e9), st.integers(-(10**9), 10**9) | st.integers(-9, 9).map(float)),
    (Feature("real", min=-3e38, max=3e38), st.floats(-3e38, 3e38) | st.integers(-(10**30), 10**30)),
    (Feature("category", levels=["a, b", 'say "no"', "ä"]), st.sampled_from(["a, b", 'say "no"', "ä"])),
    (Feature("category", levels=[1, 2, 30]), st.sampled_from([1, 2.0, 30])),
    (Feature("boolean"), st.booleans()),
]


@given(st.sampled_from(FEATURES).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1] | st.none())))
def test_a_cell_gives_the_sent_value_again(case):
    """The pipeline reads from the file the value that the client sent; a real number is read as a float."""
    feature, value = case
    read = from_text(feature, collect._cell(feature, value))
    assert read == (float(value) if feature.type == "real" and value is not None else value)
    assert isinstance(read, bool) == isinstance(value, bool)


def test_a_table_without_groups_says_what_to_write(tmp_path):
    """The source's rows need a month, and the message has the line with their number."""
    crabs = problem.load(ROOT / "tables" / "crabs" / "params.yaml")
    with pytest.raises(LabError, match="no dated groups") as error:
        collect.propose(crabs, tmp_path)
    assert "rows: 200" in error.value.remedy


def test_no_event_files_give_no_records(tmp_path):
    """A lab without events has nothing to collect."""
    assert collect.propose(CANCER, tmp_path / "none").records == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("prediction_id,reported\n", "header"),
        ("prediction_id,reported,class\na,2026-11\n", "row 1 should have 3"),
        ("prediction_id,reported,class\na,2026-13,2\n", "row 1 has no month"),
        ("prediction_id,reported,class\na,2026-11,2\na,2026-11,4\n", "'a' is in it twice"),
        ('prediction_id,reported,class\n"a,2026-11,2\n', "not comma separated"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    """A file that the lab did not write is one message."""
    with pytest.raises(LabError, match=message):
        ingest.ingest(with_records(tmp_path, text))


def test_an_altered_file_is_refused_unless_dvc_has_the_right_one(tmp_path, monkeypatch):
    """The hash in params.yaml decides; the file with that hash may be in DVC's cache."""
    text = propose(tmp_path, [prediction(1), feedback(1)]).text
    definition = with_records(tmp_path, text)
    md5 = definition.source.collected.md5
    (tmp_path / "collected.csv").write_text(text.replace(",2\n", ",4\n"))
    with pytest.raises(LabError, match="have another MD5"):
        ingest.ingest(definition)
    (tmp_path / "collected.csv").unlink()
    with pytest.raises(LabError, match="are missing"):
        ingest.ingest(definition)
    monkeypatch.setattr(collected, "STATE", tmp_path)
    cache = tmp_path / "dvc-cache" / "files" / "md5" / md5[:2] / md5[2:]
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert len(ingest.ingest(definition)[1]) == 700


def test_a_problem_with_records_needs_groups_and_a_free_name():
    """Both faults name their place."""
    entry = 'collected: {path: data/collected.csv, md5: "00000000000000000000000000000000"}'
    crabs = (ROOT / "tables" / "crabs" / "params.yaml").read_text()
    with pytest.raises(LabError, match=r"source\.collected needs source\.groups"):
        problem.parse(crabs.replace("source:\n", f"source:\n  {entry}\n"))
    with pytest.raises(LabError, match="called prediction_id"):
        problem.parse(PARAMS.replace("mitoses", "prediction_id").replace("source:\n", f"source:\n  {entry}\n"))
    with pytest.raises(LabError, match=r"\$.source.collected.md5"):
        problem.parse(PARAMS.replace("source:\n", f"source:\n  {entry.replace('0', 'x', 1)}\n"))


FLOW = PARAMS.replace("  until: 1991-11  ", '  until: "1991-11"').replace(
    PARAMS[PARAMS.index("source:") : PARAMS.index("data:\n")],
    "source: {path: data/source/breast-cancer-wisconsin.data, groups: [{month: 1991-11, rows: 699}]}\n",
)


@pytest.mark.parametrize("text", [PARAMS, PARAMS.replace("\n", "\r\n"), "\ufeff" + PARAMS, FLOW])
def test_params_keep_all_other_lines(text):
    """Each collection changes the lines of its hash and of data.until, and no comment is lost."""
    first = Collected("data/collected.csv", "1" * 32)
    once = params_edit.with_collected(text, first, "2026-11")
    definition = problem.parse(once)
    assert (definition.source.collected, definition.data.until) == (first, "2026-11")
    twice = params_edit.with_collected(once, Collected("data/collected.csv", "2" * 32), "2026-12")
    assert twice == once.replace("1" * 32, "2" * 32).replace("2026-11", "2026-12")
    lost = set(text.splitlines()) - set(once.splitlines())
    assert all("until:" in line or line.startswith("source: {") for line in lost)
    assert [line.partition("#")[2] for line in text.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in once.splitlines() if "#" in line
    ]


def test_a_block_of_the_records_is_changed_in_its_place():
    """A person may write source.collected as a block with a comment after it."""
    block = "  collected:\n    path: data/collected.csv\n    md5: '" + "1" * 32 + "'\n  # groups\n"
    text = PARAMS.replace("  groups:", f"{block}  groups:")
    changed = params_edit.with_collected(text, Collected("data/collected.csv", "2" * 32), "1991-11")
    assert "  # groups\n  groups:" in changed
    assert problem.parse(changed).source.collected.md5 == "2" * 32


def test_params_that_cannot_be_changed_are_refused():
    """A date that another value shares by an alias is left as it is."""
    text = PARAMS.replace("month: 1991-11", "month: &last 1991-11").replace("until: 1991-11", "until: *last")
    with pytest.raises(LabError, match="cannot change"):
        params_edit.with_collected(text, Collected("data/collected.csv", "1" * 32), "2026-11")


@pytest.fixture
def small_lab(tmp_path, monkeypatch):
    """A folder in place of the clone, whose engine proposes two records; DVC writes its own file."""
    text = "prediction_id,reported,class\n"
    months = {"2026-11": {"benign": 1, "malignant": 0}, "2026-10": {"benign": 0, "malignant": 1}}
    reasons = {collect.UNLABELLED: 3}
    proposal = Proposal(CANCER.name, months, {"benign": 458, "malignant": 241}, reasons, ["a note"], 2, text)

    class Engine:
        def run_trainer(self, _values, words):
            assert words[:3] == ["-m", "trainer", "collect"]
            command.PROPOSAL.write_bytes(msgspec.json.encode(proposal))
            return 0

    def add(words, **_):
        assert words[:2] == ["dvc", "add"]
        (tmp_path / f"{words[-1]}.dvc").write_text("added")
        return subprocess.CompletedProcess(words, 0, "", "")

    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "PROPOSAL", tmp_path / "proposal.json")
    monkeypatch.setattr(command.pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(command.settings, "load", lambda: Settings(params=str(tmp_path / "params.yaml")))
    monkeypatch.setattr(command.preflight, "check_git", lambda: None)
    monkeypatch.setattr(command.state, "made_by", lambda: "embedded")
    monkeypatch.setattr(command.engines, "present", lambda _: Engine())
    monkeypatch.setattr(command.subprocess, "run", add)
    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    return tmp_path


@pytest.mark.parametrize("answer", ["", "no", "y"])
def test_no_answer_but_yes_writes(small_lab, monkeypatch, capsys, answer):
    """The person sees the records, the counts and the lines of params.yaml, and refuses."""
    monkeypatch.setattr("builtins.input", lambda _: answer)
    command.collect("", sure=False)
    output = capsys.readouterr().out
    for part in ("2026-11   1         1 (100%)", "458 (66%)", "3 predictions without feedback", "note: a note"):
        assert part in output
    assert "+ until: 2026-11" in output
    assert output.endswith("nothing was written\n")
    assert [path.name for path in small_lab.iterdir()] == ["params.yaml"]
    assert (small_lab / "params.yaml").read_text() == PARAMS


def test_yes_writes_and_says_how_to_commit(small_lab, monkeypatch, capsys):
    """After a yes the records, DVC's file and params.yaml agree."""
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    command.collect("", sure=False)
    assert 'git commit -m "Collect 2 live records until 2026-11"' in capsys.readouterr().out
    assert (small_lab / "data" / "collected.csv.dvc").read_text() == "added"
    definition = problem.load(small_lab / "params.yaml")
    assert definition.source.collected.md5 == ingest.md5(small_lab / "data" / "collected.csv")
    assert definition.data.until == "2026-11"
    assert not command.PROPOSAL.exists()


def test_files_of_two_collections_are_refused(small_lab):
    """`make train` names both files when params.yaml and DVC's file come from different commits."""
    values = command.settings.load()
    assert command.pipeline._collected(values) == []
    command.collect("", sure=True)
    (small_lab / "data" / "collected.csv.dvc").write_text(f"outs:\n- md5: {'0' * 32}\n")
    with pytest.raises(LabError, match="are of different collections"):
        command.pipeline._collected(values)


def test_nothing_changes_when_dvc_fails(tmp_path, monkeypatch):
    """The files are put back, and a new one is removed."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text("before")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "collected.csv.dvc").write_text("before")

    def fail(words, **_):
        assert (tmp_path / "data" / "collected.csv").read_text() == "new"
        (tmp_path / "data" / "collected.csv.dvc").write_text("new")
        return subprocess.CompletedProcess(words, 1, "", "no space")

    monkeypatch.setattr(command.subprocess, "run", fail)
    change = command.Change(Collected("data/collected.csv", "1" * 32), b"new", b"new", [])
    with pytest.raises(LabError, match="no space"):
        command._write(Settings(params=str(tmp_path / "params.yaml")), change)
    assert {path.name: path.read_text() for path in tmp_path.rglob("*.*")} == {
        "params.yaml": "before",
        "collected.csv.dvc": "before",
    }


def test_a_wrong_month_is_refused():
    """MONTH is a year and a month."""
    with pytest.raises(LabError, match="MONTH is '2026-13'"):
        command.collect("2026-13", sure=True)


def test_most_predictions_have_no_feedback(tmp_path):
    """Twenty thousand predictions without feedback are counted, and one record is found among them."""
    many = [prediction(n) for n in range(20_000)]
    random.Random(1).shuffle(many)
    proposal = propose(tmp_path, [*many, feedback(7)])
    assert (proposal.records, proposal.left_out) == (1, {collect.UNLABELLED: 19_999})
