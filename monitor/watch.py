"""Watch the versions: read events, join them, and bring quality and evidence up to date, one batch after another.

Position, counts, quality and evidence are saved with the joined predictions in one transaction for each batch, so that
a killed monitor continues to the state that it would have had. The shadow classifies the labelled records of a batch at
once, and each result is added in the order of the labels.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from lab.card import Card
from monitor import promise, shadow
from monitor.join import Counts, Join, Subject
from monitor.promise import Promise
from monitor.quality import Quality
from monitor.shadow import Shadow
from monitor.source import Position, Source
from monitor.store import Prediction, Store
from monitor.verdict import Verdict, verdict

STATE = "state"
# The most events of one transaction.
LIMIT = 5_000


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of the rollback; docs/watching.md explains them. Blocks are numbers of labels."""

    alpha: float = 0.005
    delta: float = 0.0025
    shadow: float = 100.0
    blocks: tuple[int, int] = (25, 50)
    shadow_block: int = 10
    label_days: float = 90.0


class Models(Protocol):
    """What the watch must know of the registered versions."""

    def is_demo(self, version: int, /) -> bool:
        """Whether the version has the tag `demo`."""

    def card(self, version: int, /) -> Card | None:
        """The card of a version; None when its package is not sound. Raises LabError when the registry is away."""

    def previous(self, version: int, /) -> int | None:
        """The version to go back to from `version`, if any."""

    def answers(self, version: int, records: list[dict[str, Any]], /) -> list[bool | None]:
        """Whether the version calls each record positive; None for a record that it cannot classify."""


class Version(msgspec.Struct):
    """What is known of a version from its events. `predicted` of its `predictions` were positive."""

    predictions: int = 0
    predicted: int = 0
    quality: Quality = msgspec.field(default_factory=Quality)
    promise: Promise | None = None
    shadow: Shadow | None = None
    unscored: int = 0

    @property
    def verdict(self) -> Verdict:
        return verdict(self.promise, self.shadow)


class State(msgspec.Struct):
    """All that is saved beside the predictions; `versions` are by the version's number."""

    position: Position = {}
    counts: Counts = msgspec.field(default_factory=Counts)
    versions: dict[str, Version] = {}


class Watch:
    """The events of `source`, joined in `store`. `state` is that after the last batch."""

    def __init__(self, store: Store, source: Source, models: Models, subject: Subject, rule: Rule) -> None:
        self._store, self._source, self._models, self._subject, self._rule = store, source, models, subject, rule
        self._load()

    def step(self) -> bool:
        """Read and judge one batch; say whether there may be more events now.

        Raises LabError when events or a model cannot be read now. Nothing has changed then, and the same batch comes
        again.
        """
        batch = self._source.read(self.state.position, LIMIT)
        if batch.position == self.state.position and not batch.events:
            return batch.more
        try:
            with self._store.transaction():
                self._labelled.clear()
                self._join.add(batch)
                self._judge()
                self.state.position = batch.position
                self._store.set(STATE, msgspec.json.encode(self.state))
        except BaseException:
            self._load()
            raise
        return batch.more

    def predicted(self, prediction: Prediction) -> None:
        version = self._version(prediction.version)
        version.predictions += 1
        version.predicted += prediction.predicted

    def labelled(self, prediction: Prediction, positive: bool) -> None:
        self._labelled.append((prediction, positive))

    def corrected(self, prediction: Prediction, positive: bool) -> None:
        self._judge()  # the first label may be in the same batch
        self._version(prediction.version).quality.correct(positive, prediction.predicted, prediction.probability)

    def _load(self) -> None:
        saved = self._store.get(STATE)
        self.state = msgspec.json.decode(saved, type=State) if saved else State()
        self._labelled: list[tuple[Prediction, bool]] = []
        rule, models = self._rule, self._models
        self._join = Join(self._store, self._subject, models.is_demo, self, self.state.counts, rule.label_days)

    def _version(self, number: int) -> Version:
        version = self.state.versions.get(str(number))
        if version is None:
            version = self.state.versions[str(number)] = self._start(number)
        return version

    def _start(self, number: int) -> Version:
        card, rule = self._models.card(number), self._rule
        promised = promise.start(card, rule.alpha, rule.delta, rule.blocks) if card else None
        before = self._models.previous(number) if promised else None
        if promised is None or before is None:
            return Version(promise=promised)
        return Version(promise=promised, shadow=shadow.start(promised, before, rule.shadow, rule.shadow_block))

    def _judge(self) -> None:
        """Add the labels of the batch to quality and evidence, in their order."""
        answers = self._shadow_answers()
        for (prediction, positive), answer in zip(self._labelled, answers, strict=True):
            version = self._version(prediction.version)
            right = prediction.predicted == positive
            version.quality.add(positive, prediction.predicted, prediction.probability)
            if version.promise:
                version.promise.add(positive, not right)
            if version.shadow and answer is not None:
                version.shadow.add(positive, right, answer == positive)
            elif version.shadow:
                version.unscored += 1
        self._labelled.clear()

    def _shadow_answers(self) -> list[bool | None]:
        """The answers of the previous versions to the labelled records; None where there is none."""
        answers: list[bool | None] = [None] * len(self._labelled)
        places: dict[int, list[int]] = {}
        for place, (prediction, _) in enumerate(self._labelled):
            if duel := self._version(prediction.version).shadow:
                places.setdefault(duel.previous, []).append(place)
        for previous, those in places.items():
            records = [msgspec.json.decode(self._labelled[place][0].features) for place in those]
            for place, answer in zip(those, self._models.answers(previous, records), strict=True):
                answers[place] = answer
        return answers
