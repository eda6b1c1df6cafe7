"""The monitor on the lab's S3 and MLflow: from event files to the rollback of a registered version, once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab import champion, events, ledger, trial
from lab.card import CARD_FILE
from lab.errors import LabError
from lab.events import Writer
from lab.ledger import Ledger
from lab.registry import PACKAGE, Registry
from lab.settings import ROOT, Settings, parse
from monitor import decide
from monitor.decide import Decisions
from monitor.files import FileSource
from monitor.join import Subject
from monitor.models import RegisteredModels
from monitor.store import Store
from monitor.watch import Rule, Watch
from tests.lab.conftest import BENIGN

# The name of the registered model is that in the card of its package, which the trial compares.
NAME = "breast-cancer-wisconsin"
MALIGNANT = dict.fromkeys(BENIGN, 10)
Book = tuple[Ledger, Registry]


@pytest.fixture(scope="module")
def values(lab) -> Settings:
    return parse(dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines() if "=" in line))


@pytest.fixture
def book(lab, values, request) -> Book:
    """A registered model of its own with versions 1 and 2, of which 2 is champion after 1."""
    name = f"monitor-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    first = Registry(lab.url("MLFLOW_PORT"), NAME).champion()
    registry = Registry(lab.url("MLFLOW_PORT"), name)
    pages = Ledger(values, name)
    for number in (1, 2):
        registry.register(first.run_id, f"{registry.run_artifacts(first.run_id)}/{PACKAGE}", {})
        entry = ledger.Promoted(
            by="a test", model=name, reason="none", subject=ledger.Subject(candidate="c", fingerprint=str(number))
        )
        champion.move(pages, registry, number, number - 1 or None, entry)
    return pages, registry


@pytest.fixture
def models(lab, book, tmp_path, monkeypatch) -> RegisteredModels:
    """The versions of `book`; the trial gets the name in the card, because the package is that of another model."""
    verify = trial.verify
    monkeypatch.setattr(trial, "verify", lambda _name, text, model: verify(NAME, text, model))
    models = RegisteredModels(book[1], book[0], tmp_path / "packages")
    models.refresh()
    return models


def record(folder: Path, model: str, rows: int) -> None:
    """Write events of version 2, which calls each third malignant record benign; all are labelled."""
    now = datetime.now(UTC) - timedelta(minutes=30)
    with Writer(folder, "api") as writer:
        for number in range(rows):
            positive = number % 3 == 0
            answer = positive and number % 9 != 0
            prediction = events.Prediction(
                timestamp=now + timedelta(seconds=number),
                id=f"p{number}",
                service="api",
                environment="laptop",
                duration=1,
                model_name=model,
                model_version="2",
                source="client",
                label="malignant" if answer else "benign",
                probability=0.9 if answer else 0.1,
                threshold=0.5,
                features=MALIGNANT if positive else BENIGN,
            )
            label = events.Feedback(
                timestamp=prediction.timestamp,
                id=f"f{number}",
                service="api",
                environment="laptop",
                prediction_id=prediction.id,
                source="client",
                label="malignant" if positive else "benign",
            )
            writer.write([prediction, label])


def test_a_bad_version_is_rolled_back_from_its_events(book: Book, models: RegisteredModels, tmp_path: Path) -> None:
    """From event files and real packages, the monitor finds the bad version and restores the one before."""
    pages, registry = book
    record(tmp_path / "events", registry.model, 900)
    store = Store(tmp_path / "monitor.db")
    subject = Subject(registry.model, "laptop", "benign", "malignant")
    watch = Watch(store, FileSource(tmp_path / "events"), models, subject, Rule())
    while watch.step():
        pass
    version = watch.state.versions["2"]
    assert version.unscored == 0
    assert (version.verdict.kind, version.verdict.side) == ("roll_back", "positives")
    before = models.previous(2)
    assert before == 1
    assert not decide.obstacle(models.entries, 2, before, time.time(), 3_600, 0)
    decisions, card = Decisions(store, pages, registry), models.card(2)
    assert card
    ended, entry = decisions.finish(decisions.begin(2, before, version.verdict.reason), card)
    assert (ended.outcome, ended.to) == ("rolled back", 1)
    assert isinstance(entry, ledger.RolledBack)
    assert (entry.by, entry.from_version, entry.to_version) == ("monitor", 2, 1)
    current = registry.champion()
    assert current
    assert current.number == 1
    models.refresh()
    assert models.previous(1) is None
    assert "minutes ago" in decide.obstacle(models.entries, 1, 1, time.time(), 3_600, decisions.last)
    assert "was rolled back" in decide.obstacle(models.entries, 1, 2, time.time(), 0, 0)
    store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from lab import settings
from lab.card import decode
from lab.ledger import Ledger
from lab.registry import Registry
from monitor.decide import Decisions
from monitor.store import Store

class Fateful(Ledger):
    def put(self, entry):
        if fate == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        written = super().put(entry)
        if fate == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return written

path, model, card, fate = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
values = settings.load()
decisions = Decisions(Store(path), Fateful(values, model), Registry(values.tracking_url, model))
decisions.finish(decisions.open or decisions.begin(2, 1, "a test"), decode(card.read_bytes()))
"""


@pytest.fixture
def decide_apart(lab, book, models, tmp_path) -> Callable[[str], int]:
    """Decide in a process of its own, which ends itself before or after the entry is written; give its exit code."""
    variables = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines() if "=" in line)
    settings = {**variables, **lab.env}
    environment = {**os.environ, **settings, "LAB_SETTINGS": " ".join(settings), "PYTHONPATH": str(ROOT)}
    assert models.card(2)
    card = tmp_path / "packages" / "2" / CARD_FILE

    def run(fate: str) -> int:
        command = [sys.executable, "-c", KILLED, str(tmp_path / "monitor.db"), book[1].model, str(card), fate]
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=120, check=False).returncode

    return run


@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_decision_that_was_begun_is_finished_once(
    book: Book, decide_apart: Callable[[str], int], tmp_path: Path, fate: str
) -> None:
    """Killed before or after its entry in the ledger, the monitor finishes the decision, and there is one entry."""
    pages, registry = book
    assert decide_apart(fate) == -9
    store = Store(tmp_path / "monitor.db")
    assert Decisions(store, pages, registry).open
    store.close()
    assert decide_apart("none") == 0
    kinds = [entry for entry in pages.read().entries if isinstance(entry, ledger.RolledBack)]
    assert [(entry.from_version, entry.to_version) for entry in kinds] == [(2, 1)]
    current = registry.champion()
    assert current
    assert current.number == 1
    store = Store(tmp_path / "monitor.db")
    assert Decisions(store, pages, registry).open is None
    store.close()


def test_a_decision_gives_way_to_another_move(book: Book, models: RegisteredModels, tmp_path: Path) -> None:
    """When a person moved the champion after the decision began, the decision changes nothing."""
    pages, registry = book
    store = Store(tmp_path / "monitor.db")
    decisions, card = Decisions(store, pages, registry), models.card(2)
    assert card
    decision = decisions.begin(2, 1, "a test")
    first = registry.version(1)
    third = registry.register(first.run_id, first.package_path, {})
    entry = ledger.Promoted(
        by="a person", model=registry.model, reason="none", subject=ledger.Subject(candidate="c", fingerprint="3")
    )
    champion.move(pages, registry, third.number, 2, entry)
    ended, written = decisions.finish(decision, card)
    assert (ended.outcome, written) == ("superseded", None)
    current = registry.champion()
    assert current
    assert current.number == third.number
    assert decisions.last == 0
    store.close()


def test_a_decision_waits_while_the_registry_is_away(
    book: Book, models: RegisteredModels, values: Settings, tmp_path: Path
) -> None:
    """While MLflow does not answer, the decision stays open, and it is finished when MLflow is back."""
    pages, registry = book
    store, card = Store(tmp_path / "monitor.db"), models.card(2)
    assert card
    away = Decisions(store, pages, Registry("http://127.0.0.1:9", registry.model))
    decision = away.begin(2, 1, "a test")
    with pytest.raises(LabError):
        away.finish(decision, card)
    assert away.open == decision
    ended, entry = Decisions(store, pages, registry).finish(decision, card)
    assert ended.outcome == "rolled back"
    assert entry
    store.close()
