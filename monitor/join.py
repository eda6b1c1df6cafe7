"""Join predictions with feedback, in the order in which the labels arrive.

Each case has one rule and one count (`Counts`):

- The first label of a prediction counts as evidence, once and for ever.
- A repeated label changes nothing. A contradicting one changes the displayed quality only.
- Feedback that comes before its prediction waits for it for `WAIT_SECONDS` in the time of the events, and is unknown
  after that.
- Feedback that comes more than `days` after its prediction is late, and does not count.
- A prediction counts for its version when clients asked for it. A version with the tag `demo` is judged by demo
  records only, and no other version is. The feedback must come from the same kind of source as its prediction.
- Events of another environment and predictions of another model do not count.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from lab.events import CLIENT
from monitor import source
from monitor.source import Batch
from monitor.store import OTHER_MODEL, Early, Prediction, Store

DEMO = "demo"
WAIT_SECONDS = 600.0
DAY = 86_400.0
# The name of the greatest time of an event so far, in the store.
LATEST = "latest"


class Counts(msgspec.Struct):
    """The number of events by what became of them. The module describes the rules."""

    predictions: int = 0
    joined: int = 0
    repeated: int = 0
    contradicting: int = 0
    early: int = 0
    unknown: int = 0
    late: int = 0
    wrong_label: int = 0
    other_source: int = 0
    other_model: int = 0
    other_environment: int = 0
    failed_requests: int = 0
    broken: int = 0
    unknown_datasets: int = 0


class Judge(Protocol):
    """The receiver of what was joined."""

    def predicted(self, prediction: Prediction) -> None:
        """A prediction that counts was read."""

    def labelled(self, prediction: Prediction, positive: bool) -> None:
        """The prediction has its first label."""

    def corrected(self, prediction: Prediction, positive: bool) -> None:
        """The label of the prediction was contradicted, and is now `positive`."""


class Subject(msgspec.Struct, frozen=True):
    """The model and the lab that are watched: the registered model, the environment, and the words of both classes."""

    model: str
    environment: str
    negative: str
    positive: str


class Join:
    """Predictions and feedback of `subject`. `is_demo` says whether a version has the tag `demo`."""

    def __init__(
        self,
        store: Store,
        subject: Subject,
        is_demo: Callable[[int], bool],
        judge: Judge,
        counts: Counts,
        days: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._subject, self._is_demo, self._judge = store, subject, is_demo, judge
        self.counts, self._days, self._clock = counts, days, clock
        self._latest = float(store.get(LATEST) or 0)
        self._queue = deque(store.early())
        self._early: dict[str, list[Early]] = {}
        for each in self._queue:
            self._early.setdefault(each.prediction_id, []).append(each)
        self._number = self._queue[-1].number if self._queue else 0
        # The stored predictions that the batch refers to and its own ones, and those of both that it changes.
        self._known: dict[str, Prediction] = {}
        self._changed: dict[str, Prediction] = {}

    def add(self, batch: Batch) -> None:
        """Add the events of a batch. The caller holds a transaction of the store, which is left when this raises."""
        self.counts.broken += batch.broken
        self.counts.unknown_datasets += batch.unknown
        self._known = self._store.predictions(_names(batch))
        now = self._clock()
        for event in batch.events:
            # The time of an event from a clock that was wrong may lie in the future, and would expire everything.
            self._latest = max(self._latest, min(event.at.timestamp(), now))
            self._expire()
            if (event.environment or self._subject.environment) != self._subject.environment:
                self.counts.other_environment += 1
            elif isinstance(event, source.Prediction):
                self._predict(event)
            elif isinstance(event, source.Feedback):
                feedback = Early(event.prediction_id, 0, event.source, event.label, event.at.timestamp())
                self._feed(feedback, self._known.get(event.prediction_id))
            else:
                self.counts.failed_requests += 1
        self._store.put(self._changed.values())
        self._changed.clear()
        self._store.forget(self._latest - 2 * self._days * DAY)
        self._store.set(LATEST, repr(self._latest).encode())

    def _predict(self, event: source.Prediction) -> None:
        other = event.model_name != self._subject.model
        version = OTHER_MODEL if other or not event.model_version.isdecimal() else int(event.model_version)
        if version and event.source != (DEMO if self._is_demo(version) else CLIENT):
            self.counts.other_source += 1
            return
        if event.id in self._known:  # the event is in the files twice
            self.counts.repeated += 1
            return
        prediction = Prediction(
            event.id,
            version,
            event.source,
            event.label == self._subject.positive,
            event.probability,
            event.at.timestamp(),
            None,
            msgspec.json.encode(event.features),
        )
        self._known[event.id] = self._changed[event.id] = prediction
        if version:
            self.counts.predictions += 1
            self._judge.predicted(prediction)
        else:
            self.counts.other_model += 1
        if waiting := self._early.pop(event.id, None):
            self._store.forget_early(waiting)
            for feedback in waiting:
                self._feed(feedback, prediction)

    def _feed(self, feedback: Early, prediction: Prediction | None) -> None:
        """Settle one feedback, which waits when its prediction has not arrived."""
        counts = self.counts
        if feedback.source not in (CLIENT, DEMO):
            counts.other_source += 1
        elif prediction is None:
            self._wait(feedback)
        elif not prediction.version:
            counts.other_model += 1
        elif feedback.source != prediction.source:
            counts.other_source += 1
        elif feedback.label not in (self._subject.negative, self._subject.positive):
            counts.wrong_label += 1
        elif feedback.at - prediction.at > self._days * DAY:
            counts.late += 1
        else:
            self._label(prediction, feedback.label == self._subject.positive)

    def _label(self, prediction: Prediction, positive: bool) -> None:
        before, prediction.label = prediction.label, positive
        if before == positive:
            self.counts.repeated += 1
            return
        self._changed[prediction.id] = prediction
        if before is None:
            self.counts.joined += 1
            self._judge.labelled(prediction, positive)
        else:
            self.counts.contradicting += 1
            self._judge.corrected(prediction, positive)

    def _wait(self, feedback: Early) -> None:
        self._number += 1
        self.counts.early += 1
        waiting = msgspec.structs.replace(feedback, number=self._number)
        self._queue.append(waiting)
        self._early.setdefault(feedback.prediction_id, []).append(waiting)
        self._store.put_early([waiting])

    def _expire(self) -> None:
        """Give up the oldest feedback when it has waited too long; feedback that was joined has left `_early`."""
        while self._queue and self._queue[0].at < self._latest - WAIT_SECONDS:
            feedback = self._queue.popleft()
            waiting = self._early.get(feedback.prediction_id, [])
            if feedback in waiting:
                waiting.remove(feedback)
                self.counts.unknown += 1
                self._store.forget_early([feedback])
            if not waiting:
                self._early.pop(feedback.prediction_id, None)


def _names(batch: Batch) -> set[str]:
    """The ids of the predictions that the batch has or refers to."""
    names = set()
    for event in batch.events:
        if isinstance(event, source.Prediction):
            names.add(event.id)
        elif isinstance(event, source.Feedback):
            names.add(event.prediction_id)
    return names
