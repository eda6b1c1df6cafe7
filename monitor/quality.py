"""The live quality of a version, from its labelled records.

Evidence and intervals use each record's first label, in the order in which the labels arrive. A later label that
contradicts changes the displayed counts only.
"""

from __future__ import annotations

import msgspec

from lab.card import Card
from monitor.interval import Mean, bernoulli

# The most records of one class that wait for a record of the other class, for the ROC AUC.
UNPAIRED = 1_000


class Figure(msgspec.Struct, frozen=True):
    """A figure of `n` records with its interval; `value` is None without records."""

    value: float | None
    low: float
    high: float
    n: int


class Quality(msgspec.Struct):
    """The confusion matrix, the squared errors of the probability (Brier), and pairs of a positive and a negative."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    passes: int = 0
    squared: float = 0.0
    brier: Mean = msgspec.field(default_factory=Mean)
    pairs: Mean = msgspec.field(default_factory=Mean)
    unpaired: list[float] = []
    unpaired_positive: bool = False

    @property
    def labels(self) -> int:
        return self.hits + self.misses + self.false_alarms + self.passes

    def add(self, positive: bool, predicted: bool, probability: float) -> None:
        """Add a record with its first label; `probability` is that of the positive class."""
        self._count(positive, predicted, 1)
        error = (probability - positive) ** 2
        self.squared += error
        self.brier.add(error)
        self._pair(positive, probability)

    def correct(self, positive: bool, predicted: bool, probability: float) -> None:
        """Replace the label of an earlier record, which is now `positive`."""
        self._count(positive, predicted, 1)
        self._count(not positive, predicted, -1)
        self.squared += (probability - positive) ** 2 - (probability - (not positive)) ** 2

    def figures(self, level: float = 0.95) -> dict[str, Figure]:
        """Each metric by its name, with an interval that is valid at all times together (`monitor.interval`)."""
        right = self.hits + self.passes
        rates = {
            "recall": (self.hits, self.hits + self.misses),
            "specificity": (self.passes, self.passes + self.false_alarms),
            "precision": (self.hits, self.hits + self.false_alarms),
            "accuracy": (right, self.labels),
        }
        figures = {name: _rate(successes, n, level) for name, (successes, n) in rates.items()}
        n = self.labels
        figures["brier"] = Figure(self.squared / n if n else None, *self.brier.interval(level), n)
        n = self.pairs.count + len(self.pairs.buffer)
        won = self.pairs.total + sum(self.pairs.buffer)
        return {**figures, "roc_auc": Figure(won / n if n else None, *self.pairs.interval(level), n)}

    def _count(self, positive: bool, predicted: bool, change: int) -> None:
        if positive and predicted:
            self.hits += change
        elif positive:
            self.misses += change
        elif predicted:
            self.false_alarms += change
        else:
            self.passes += change

    def _pair(self, positive: bool, probability: float) -> None:
        """Compare the record with the oldest unpaired one of the other class; each record is in one pair at most."""
        if not self.unpaired or self.unpaired_positive == positive:
            self.unpaired_positive = positive
            if len(self.unpaired) < UNPAIRED:
                self.unpaired.append(probability)
            return
        other = self.unpaired.pop(0)
        lead = probability - other if positive else other - probability
        self.pairs.add(1.0 if lead > 0 else 0.5 if lead == 0 else 0.0)


def _rate(successes: int, n: int, level: float) -> Figure:
    return Figure(successes / n if n else None, *bernoulli(successes, n, level), n)


def prevalence(predicted: int, n: int, card: Card, level: float = 0.95) -> Figure | None:
    """The share of positives among `n` predictions, of which `predicted` are positive; None when it is not estimable.

    The card's recall and specificity correct the share of positive predictions (Z. Lipton, Y.-X. Wang and A. Smola,
    ICML 2018). The estimate needs no labels, and it assumes that each class looks as it did in the training.
    """
    recall, specificity = card.promises.get("recall"), card.promises.get("specificity")
    if not n or recall is None or specificity is None or recall.value + specificity.value <= 1:
        return None
    false, width = 1 - specificity.value, recall.value + specificity.value - 1

    def share(value: float) -> float:
        return min(max((value - false) / width, 0.0), 1.0)

    low, high = bernoulli(predicted, n, level)
    return Figure(share(predicted / n), share(low), share(high), n)
