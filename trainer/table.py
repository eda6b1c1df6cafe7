"""The arrays of a dataset, and a fold of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.problem import GROUP_COLUMN, Problem
from trainer.metrics import Floats, Ints

Split = tuple[Ints, Ints]


@dataclass(frozen=True)
class Table:
    """A valid dataset as arrays: `x` (rows, features) with NaN for missing, `y` (rows,) 0 or 1.

    The values in `x` are those that a float32 can hold.

    `groups` and `months`, of shape (rows,), number the values of evaluation.group and the months in their order.
    """

    x: Floats
    y: Ints
    groups: Ints | None
    months: Ints | None = None


@dataclass(frozen=True)
class Fold:
    """An outer fold: the number of its repeat, its rows, and the splits of its grid search.

    The inner splits are indices into `train`.
    """

    repeat: int
    train: Ints
    test: Ints
    inner: list[Split]


def table(problem: Problem, frame: pd.DataFrame) -> Table:
    """The arrays of a typed dataset, such as `trainer.validate.validate` returns."""
    group = problem.evaluation.group
    return Table(
        # The served model gets float32, so that a split of a tree that was trained on more digits could fall between.
        x=frame[list(problem.features)].to_numpy(dtype=np.float32).astype(np.float64),
        y=frame[problem.target.column].to_numpy(dtype=np.int64),
        groups=pd.factorize(frame[group])[0] if group else None,
        months=pd.factorize(frame[GROUP_COLUMN], sort=True)[0] if problem.source.groups else None,
    )
