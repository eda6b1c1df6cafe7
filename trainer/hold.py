"""Reasons to hold a promotion on changed data for a person: the new rows or the new labels may be wrong.

Wrong labels change the threshold and the figures that are compared with the floors, so a bad model can reach the
floors. The champion was trained before the change, so the candidate is compared with the champion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc, betaincinv

from lab.card import Card, Promise
from trainer.export import predict
from trainer.metrics import Counts, Floats, Ints, counts_at

# A promotion is held when a champion that keeps its promise makes so many errors with a smaller chance than this.
LEAST_CHANCE = 0.01
# The largest allowed fall of recall and of specificity on the rows that both models know.
MOST_FALL = 0.03
Key = tuple[str, int]


@dataclass(frozen=True)
class Scored:
    """The rows of a training: their ids, in order, and the mean out-of-fold probability of each, shape (rows,).

    The probability is NaN for a row that no test of an evaluation forward in time had.
    """

    ids: Sequence[str]
    probability: Floats
    threshold: float


@dataclass(frozen=True)
class Rows:
    """Rows of the present data: `x` (rows, features) in the order of the champion's card, and the class of each."""

    x: Floats
    y: Ints


def reasons(card: Card, model: bytes, champion: Scored, present: Rows, candidate: Scored) -> list[str]:
    """The reasons to hold a candidate that was trained on other rows than the champion; if empty, promote.

    `card` and `model` are the champion's package. `present` are the rows of the candidate's training, in its order.
    """
    keys, row_of = _keys(candidate.ids), {key: row for row, key in enumerate(_keys(champion.ids))}
    old_ids = set(champion.ids)
    unseen = np.array([name not in old_ids for name in candidate.ids], dtype=bool)
    shared = np.array([key in row_of for key in keys], dtype=bool)
    texts = []
    if unseen.any():
        texts += _broken_promise(card, model, present.x[unseen], present.y[unseen])
    if not shared.any():
        return [*texts, "it shares no row with the data of the champion, so that the two cannot be compared"]
    before = champion.probability[[row_of[key] for key, both in zip(keys, shared, strict=True) if both]]
    after, truth = candidate.probability[shared], present.y[shared]
    scored = ~(np.isnan(before) | np.isnan(after))
    return texts + _falls(
        counts_at(truth[scored], before[scored], champion.threshold),
        counts_at(truth[scored], after[scored], candidate.threshold),
    )


def upper_limit(promise: Promise) -> float:
    """The one-sided 95 % upper limit of the share of failures; C. Clopper and E. Pearson, Biometrika 26 (1934)."""
    failures, rows = promise.failures or 0, promise.rows
    return float(betaincinv(failures + 1, rows - failures, 0.95)) if failures < rows else 1.0


def chance(errors: int, rows: int, share: float) -> float:
    """The chance of at least `errors` errors among `rows` rows when each row fails with chance `share`."""
    return float(bdtrc(errors - 1, rows, share)) if errors else 1.0


def _broken_promise(card: Card, model: bytes, x: Floats, y: Ints) -> list[str]:
    """The reason to hold if the champion makes more errors on new rows than its own promise allows."""
    if "accuracy" not in card.promises:
        return ["the champion's card states no promise, so that its errors on new rows cannot be judged"]
    promise = card.promises["accuracy"]
    errors = int(((predict(model, x) >= card.threshold) != (y == 1)).sum())
    limit = upper_limit(promise)
    likely = chance(errors, len(y), limit)
    if likely >= LEAST_CHANCE:
        return []
    return [
        f"the champion errs on {errors} of {len(y)} new rows, and promises at most {limit:.1%} (chance {likely:.2g}): "
        "the new rows differ, or their labels are wrong"
    ]


def _falls(before: Counts, after: Counts) -> list[str]:
    return [
        f"{metric} on the rows that both know falls from {before.rates[metric]:.4f} to {after.rates[metric]:.4f}"
        for metric in ("recall", "specificity")
        if before.rates[metric] - after.rates[metric] > MOST_FALL
    ]


def _keys(ids: Sequence[str]) -> list[Key]:
    """Each row's id with the number of rows before it that have the same id."""
    count: Counter[str] = Counter()
    keys = []
    for name in ids:
        keys.append((name, count[name]))
        count[name] += 1
    return keys
