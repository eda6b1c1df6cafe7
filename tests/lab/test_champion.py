"""Tests on the lab's S3 and MLflow that the champion stays consistent when many processes move it and some die."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import psutil
import pytest

from lab import champion, ledger
from lab.errors import LabError
from lab.ledger import Ledger
from lab.registry import PACKAGE, Registry
from lab.settings import ROOT, Settings, parse
from tests.lab.moves import VERSIONS, entry
from tests.lab.test_store import store

NAME = "breast-cancer-wisconsin"


@pytest.fixture(scope="module")
def values(lab) -> Settings:
    variables = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines() if "=" in line)
    return parse(variables)


@pytest.fixture
def model(lab, values, request) -> tuple[Ledger, Registry]:
    """Register a separate model with five versions and no champion, and give its ledger and registry."""
    name = f"moves-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    first = Registry(lab.url("MLFLOW_PORT"), NAME).champion()
    registry = Registry(lab.url("MLFLOW_PORT"), name)
    for _ in range(VERSIONS):
        registry.register(first.run_id, f"{registry.run_artifacts(first.run_id)}/{PACKAGE}", {})
    return Ledger(values, name), registry


@pytest.fixture
def start(lab) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give a function that starts a process of `tests.lab.moves`, and kill every process at the end."""
    variables = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines() if "=" in line)
    values = {**variables, **lab.env}
    environment = {**os.environ, **values, "LAB_SETTINGS": " ".join(values), "PYTHONPATH": str(ROOT)}
    started = []

    def start(name: str, seed: int, count: int, fate: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.lab.moves", name, str(seed), str(count), fate]
        pipe, out = subprocess.PIPE, subprocess.STDOUT
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=out))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=60)


def check(book: Ledger, registry: Registry) -> list[ledger.AnyEntry]:
    """Check that numbers are consecutive, each entry continues the last one, and the alias follows the newest."""
    listing = book.read()
    assert listing.damaged == []
    entries = listing.entries
    assert [each.number for each in entries] == list(range(1, len(entries) + 1))
    assert [each.from_version for each in entries] == [None, *(each.to_version for each in entries[:-1])]
    assert registry.champion().number == entries[-1].to_version
    return entries


def test_two_hundred_moves_by_eight_processes(start, model):
    """Of 200 moves by eight processes none is lost, and none starts from a champion that was already replaced."""
    book, registry = model
    processes = [start(book.model, seed, 25, "none") for seed in range(8)]
    outputs = [process.communicate(timeout=300)[0].decode() for process in processes]
    assert [output.split()[-1] for output in outputs] == ["25"] * 8, outputs
    assert len(check(book, registry)) == 200


def test_processes_that_are_suspended_or_killed_between_the_two_writes(start, model):
    """The decision of a killed process stands, and a suspended process that resumes late leaves no stale alias."""
    book, registry = model
    asleep, killed = start(book.model, 1, 3, "stop"), start(book.model, 2, 3, "kill")
    assert killed.wait(60) == -signal.SIGKILL
    until = time.monotonic() + 60
    while psutil.Process(asleep.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < until:
        time.sleep(0.05)
    others = [start(book.model, seed, 5, "none") for seed in (3, 4)]
    assert [process.communicate(timeout=120)[0].split()[-1:] for process in others] == [[b"5"]] * 2
    assert len(check(book, registry)) == 16
    asleep.send_signal(signal.SIGCONT)
    assert asleep.communicate(timeout=60)[0].split()[-1:] == [b"3"]
    assert len(check(book, registry)) == 16


def test_an_unexpected_champion_is_a_conflict(model):
    """A move from an unexpected champion writes nothing, and its error names the champion, its mover and the reason."""
    book, registry = model
    champion.move(book, registry, 2, None, entry(book.model))
    with pytest.raises(champion.ConflictError, match=r"it is version 2 \(none, decided by a test"):
        champion.move(book, registry, 3, None, entry(book.model))
    with pytest.raises(LabError, match="has no version 9"):
        champion.move(book, registry, 9, 2, entry(book.model))
    assert len(check(book, registry)) == 1


def test_an_alias_that_was_moved_past_the_ledger_is_put_back(model):
    """An alias that moved without a ledger entry is put back, and a note that changes nothing keeps the champion."""
    book, registry = model
    champion.move(book, registry, 2, None, entry(book.model))
    registry.promote(registry.version(4))
    note = ledger.Rejected(
        by="a test", model=book.model, reason="worse", subject=ledger.Subject(candidate="c", fingerprint="f")
    )
    last_entry = champion.note(book, registry, 2, note)
    assert (last_entry.number, last_entry.from_version, last_entry.to_version) == (2, 2, 2)
    check(book, registry)


def test_the_newest_entries_are_read_and_no_others(model):
    """Reading the newest entries reads a listing of keys and one object for each requested entry."""
    book, registry = model
    for to, before in ((1, None), (2, 1), (3, 2), (4, 3)):
        champion.move(book, registry, to, before, entry(book.model))
    reads = []
    book._client.meta.events.register("before-call.s3.GetObject", lambda **_: reads.append(1))
    assert [each.to_version for each in book.last(2).entries] == [3, 4]
    assert len(reads) == 2


def old_form(model: str, at: str, decision: str, before: int | None, to: int | None) -> bytes:
    return msgspec.json.encode(
        {
            "at": at,
            "decision": decision,
            "by": "somebody",
            "model": model,
            "candidate": "logistic-regression",
            "fingerprint": "f",
            "from_version": before,
            "to_version": to,
            "metric": "roc_auc",
            "figures": {
                "barred": {"x": ["no ONNX"]},
                "gain_over_champion": 0.01,
                "comparison": [{"metric": "roc_auc", "scores": {"x": {"mean": 0.9, "sd": 0.1}}, "best": "x"}],
            },
            "reason": "first champion",
        }
    )


def test_a_ledger_of_the_first_form_is_continued(lab, model):
    """Entries of the first form are read, and the alias decides the champion, because it was written first then."""
    book, registry = model
    for at, decision, before, to in (
        ("20261101T000000.000000Z", "promoted", None, 1),
        ("20261102T000000.000000Z", "rejected", 1, 1),
    ):
        key = f"ledger/{book.model}/{at}-0123abcd.json"
        store(lab).put_object(Bucket="lab", Key=key, Body=old_form(book.model, at, decision, before, to))
    registry.promote(registry.version(2))
    champion.move(book, registry, 3, 2, entry(book.model))
    entries = book.read().entries
    assert [(type(each), each.number, each.to_version) for each in entries] == [
        (ledger.Promoted, 0, 1),
        (ledger.Rejected, 0, 1),
        (ledger.Promoted, 1, 3),
    ]
    assert entries[0].figures.gain == 0.01
    assert entries[0].figures.comparison[0].best == "x"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"decision": "crowned"}', b'{"decision": "promoted", "number": 1}', b"\xff"]
)
def test_a_damaged_entry_stops_a_move_and_not_a_listing(lab, model, body):
    """A damaged entry stops a move with an error that names the object and a remedy, and a listing reports it."""
    book, registry = model
    champion.move(book, registry, 1, None, entry(book.model))
    key = f"ledger/{book.model}/00000002.json"
    store(lab).put_object(Bucket="lab", Key=key, Body=body)
    with pytest.raises(LabError, match=key) as error:
        champion.move(book, registry, 2, 1, entry(book.model))
    assert "restore the object" in error.value.remedy
    listing = book.read()
    assert (len(listing.entries), listing.damaged) == (1, [key])
    store(lab).delete_object(Bucket="lab", Key=key)
    champion.move(book, registry, 2, 1, entry(book.model))
    assert len(check(book, registry)) == 2
