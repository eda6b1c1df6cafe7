"""The watch from event files to the verdict: monitor.watch and monitor.history, with real files and a real store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lab import card as cards
from lab import events, ledger
from lab.card import Card
from lab.errors import LabError
from lab.events import Writer
from monitor import history
from monitor.files import FileSource
from monitor.join import Subject
from monitor.store import Store
from monitor.watch import Models, Rule, Watch
from tests.unit.conftest import Package

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW.timestamp() + 3_600
SUBJECT = Subject("small", "laptop", "no", "yes")
NOBODY = ledger.Subject(candidate="c", fingerprint="f")


class Registry:
    """Versions 1 and 2: both have the card, and version 1 answers with the record's value of `a`."""

    def __init__(self, card: Card | None, away: int = 0) -> None:
        self._card, self.away = card, away

    def is_demo(self, _version: int) -> bool:
        return False

    def card(self, _version: int) -> Card | None:
        return self._card

    def previous(self, version: int) -> int | None:
        return 1 if version == 2 else None

    def answers(self, _version: int, records: list[dict[str, Any]]) -> list[bool | None]:
        if self.away:
            self.away -= 1
            raise LabError("the registry is away", "wait")
        return [bool(record["a"]) if "a" in record else None for record in records]


@pytest.fixture(scope="module")
def card(package: Package) -> Card:
    values = package[0]
    promises = dict.fromkeys(("recall", "specificity"), values["promises"]["accuracy"])
    return cards.decode(msgspec.json.encode({**values, "promises": promises}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with 800 labelled predictions of version 2, which misses 40 % of the positives; version 1 is right."""
    path, generator = tmp_path_factory.mktemp("events"), np.random.default_rng(4)
    writers, made = [Writer(path, "api") for _ in range(2)], list[events.Prediction | events.Feedback]()
    for number in range(800):
        positive = bool(generator.random() < 0.4)
        answer = positive and bool(generator.random() < 0.6)
        at = NOW + timedelta(seconds=number)
        event = events.Prediction(
            timestamp=at,
            id=f"p{number}",
            service="api",
            environment="laptop",
            duration=1,
            model_name="small",
            model_version="2",
            source="client",
            label="yes" if answer else "no",
            probability=0.9 if answer else 0.1,
            threshold=0.5,
            features={"a": int(positive)} if number % 10 else {},
        )
        label = events.Feedback(
            timestamp=at + timedelta(seconds=30),
            id=f"f{number}",
            service="api",
            environment="laptop",
            prediction_id=event.id,
            source="client",
            label="yes" if positive else "no",
        )
        made += [event, label]
    for place, one in enumerate(sorted(made, key=lambda each: each.timestamp)):
        writers[place // 3 % 2].write([one])
    for writer in writers:
        writer.close()
    for number, file in enumerate(sorted(path.glob("*.ndjson"))):  # a file's name has the time of its first event
        file.rename(path / f"api-20261127T120000.000000-{number}.ndjson")
    return path


def watch(path: Path, folder: Path, models: Models) -> tuple[Watch, Store]:
    store = Store(path)
    return Watch(store, FileSource(folder, clock=lambda: LATER), models, SUBJECT, Rule()), store


def run(path: Path, folder: Path, models: Models) -> Watch:
    whole, store = watch(path, folder, models)
    while whole.step():
        pass
    store.close()
    return whole


def test_a_bad_champion_is_found_from_its_events(tmp_path: Path, folder: Path, card: Card) -> None:
    """From event files alone, the watch finds that version 2 breaks its promise and that version 1 does better."""
    version = run(tmp_path / "monitor.db", folder, Registry(card)).state.versions["2"]
    assert (version.predictions, version.quality.labels, version.unscored) == (800, 800, 80)
    assert (version.verdict.kind, version.verdict.side) == ("roll_back", "positives")
    assert version.quality.figures()["recall"].high < 0.75


def test_without_an_earlier_champion_the_broken_promise_is_told(tmp_path: Path, folder: Path, card: Card) -> None:
    """When there is no version to go back to, the verdict is the broken promise alone."""
    models = Registry(card)
    models.previous = lambda _: None  # type: ignore[method-assign]
    version = run(tmp_path / "monitor.db", folder, models).state.versions["2"]
    assert version.shadow is None
    assert version.verdict.kind == "promise_broken"


def test_a_card_without_counts_is_watched_only(tmp_path: Path, folder: Path, package: Package) -> None:
    """A version whose card states no promise by counts has live quality, and no verdict."""
    version = run(tmp_path / "monitor.db", folder, Registry(cards.decode(msgspec.json.encode(package[0])))).state
    assert version.versions["2"].quality.labels == 800
    assert version.versions["2"].verdict.kind == "unknown"


@pytest.mark.parametrize("limit", [7, 100])
def test_interruptions_and_absences_do_not_change_the_state(
    tmp_path: Path, folder: Path, card: Card, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small batches, many restarts, and a registry that is away at times, the state is the same."""
    plain = run(tmp_path / "plain.db", folder, Registry(card))
    monkeypatch.setattr("monitor.watch.LIMIT", limit)
    path, more, faults = tmp_path / "monitor.db", True, 0
    while more:
        part, store = watch(path, folder, Registry(card, away=1))
        for _ in range(5):
            try:
                more = part.step()
            except LabError:
                faults += 1
        store.close()
    assert faults
    assert msgspec.json.encode(part.state.versions) == msgspec.json.encode(plain.state.versions)
    assert part.state.counts == plain.state.counts
    assert part.state.position == plain.state.position


def entries(*moves: tuple[type[ledger.Entry], int]) -> list[ledger.Entry]:
    """Entries of the ledger, each with the version that is champion after it."""
    made: list[ledger.Entry] = []
    before = None
    for number, (kind, to) in enumerate(moves, 1):
        entry = kind(by="b", model="m", reason="r", subject=NOBODY, number=number, from_version=before, to_version=to)
        made.append(entry)
        before = to
    return made


P, R = ledger.Promoted, ledger.RolledBack


@pytest.mark.parametrize(
    ("moves", "version", "demo", "expectation"),
    [
        ([], 1, (), None),
        ([(P, 1)], 1, (), None),
        ([(P, 1), (P, 2)], 2, (), 1),
        ([(P, 1), (ledger.Held, 1), (P, 2), (ledger.Rejected, 2)], 2, (), 1),
        ([(P, 1), (P, 2), (P, 3), (R, 2)], 2, (), 1),
        ([(P, 1), (P, 2), (R, 1), (P, 3)], 3, (), 1),
        ([(P, 1), (P, 2), (R, 1), (P, 2), (P, 3)], 3, (), 1),
        ([(P, 1), (P, 2), (R, 1)], 1, (), None),
        ([(P, 1), (P, 2), (P, 1)], 1, (), 2),
        ([(P, 1), (P, 8), (P, 9), (R, 8), (P, 1)], 1, (8, 9), None),
        ([(P, 1), (P, 8), (P, 9)], 9, (8, 9), 8),
        ([(P, 1), (P, 8), (P, 1), (P, 2)], 2, (8,), 1),
    ],
)
def test_the_version_to_go_back_to(
    moves: Sequence[tuple[type[ledger.Entry], int]], version: int, demo: tuple[int, ...], expectation: int | None
) -> None:
    """It was champion before, was never rolled back, and is no demo version, unless the present one is."""
    assert history.previous(entries(*moves), version, demo) == expectation
