"""The decision threshold: how many positives it may miss, and where it lies."""

from __future__ import annotations

import math

import numpy as np

from lab.errors import LabError
from trainer.metrics import Floats, Ints


def allowed_misses(positives: int, recall: float) -> int:
    """The number of `positives` that a threshold may miss when it must find a further positive with chance `recall`.

    It is floor((n + 1)(1 - recall)) - 1, and negative when there are too few positives to promise `recall`. A threshold
    misses fewer of the rows that chose it than of other rows, and the rule accounts for that: A. Angelopoulos, S.
    Bates, A. Fisch, L. Lei, T. Schuster, "Conformal Risk Control", ICLR 2024. The rule holds for a further row that is
    exchangeable with these rows. Here it is an approximation, because the served model was fitted on all rows, and rows
    of one group resemble each other.
    """
    return math.floor((positives + 1) * (1 - recall) + 1e-9) - 1


def check_recall(positives: int, recall: float) -> None:
    """Raise LabError when `positives` rows are too few for a threshold that promises `recall`."""
    if allowed_misses(positives, recall) < 0:
        least = math.ceil(1 / (1 - recall) - 1e-9) - 1 if recall < 1 else None
        most = math.floor(positives / (positives + 1) * 1000) / 1000
        needed = f"a recall of {recall:g} needs {least} or more" if least else "no number of rows shows a recall of 1"
        raise LabError(
            f"threshold.recall is {recall:g}, and {positives} positive rows cannot promise that: {needed}",
            f"lower threshold.recall in params.yaml; {positives} rows can promise up to {most:g}",
        )


def choose_threshold(truth: Ints, probability: Floats, misses: int) -> float:
    """The highest threshold that misses at most `misses` of the positive rows.

    `truth` and `probability`, of shape (rows,), are the class and the out-of-fold probability of each row. The
    threshold lies halfway to the next lower probability, so that rounding to float32 moves no row across it.
    """
    lowest_hit = float(np.sort(probability[truth == 1])[misses])
    below = probability[probability < lowest_hit]
    return (lowest_hit + (float(below.max()) if len(below) else 0.0)) / 2
