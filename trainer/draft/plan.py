"""Decide about every column: target, id, date, feature or unused, each with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from lab.errors import LabError
from lab.problem import GREATEST, GROUP_COLUMN, ROW_COLUMN, Feature
from lab.record import CONTROL, MOST_LEVEL_CHARACTERS, MOST_LEVELS
from trainer.draft.columns import Column

# A column is nearly unique when at least this share of its cells are different.
NEARLY = 0.95
# The share of the range that is added to the bounds on either side.
MARGIN = 0.1
# Whole numbers with at most this many values are a scale, and its ends are the bounds.
SCALE = 20
FEWEST_OF_A_CLASS, FEW_OF_A_CLASS = 10, 50
# The words for a positive class among two.
POSITIVES = ("1", "1.0", "yes", "y", "true", "t", "positive")
_ID = re.compile(r"(^|_)(id|ids|key|uuid|guid|number|no|nr|code)$", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """`values` has the rows of each value; `positive` is one of them, and all others are negative."""

    column: Column
    values: Mapping[str, int]
    positive: str

    @property
    def negatives(self) -> list[str]:
        return [value for value in self.values if value != self.positive]

    @property
    def positives(self) -> int:
        return self.values[self.positive]

    @property
    def rows(self) -> int:
        return sum(self.values.values())


@dataclass
class Plan:
    """`names` are the names of the file's columns in params.yaml; `unused` has the reason for each column left out."""

    names: list[str]
    target: Target
    features: dict[str, Feature] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    id: str = ""
    repeated_id: bool = False
    date: str = ""
    warnings: list[str] = field(default_factory=list)


def make(columns: list[Column], chosen: Column, values: Mapping[str, int], positive: str) -> Plan:
    """The plan for a table with the target `chosen`, given the rows of each value of it.

    Raises LabError when the target is no class, or when there is nothing to learn from.
    """
    names = rename([column.name for column in columns])
    plan = Plan(names, _target(chosen, values, positive))
    rows = plan.target.rows
    for column, name in zip(columns, names, strict=True):
        if column is not chosen:
            plan.columns[name] = column
            _place(plan, name, column, rows)
    drop_marks(plan)
    if not plan.features:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in plan.unused.items())
        raise LabError(f"no column is left to learn from ({reasons[:500]})", "give a file with features")
    plan.warnings += _class_warnings(plan.target)
    return plan


def rename(originals: list[str]) -> list[str]:
    """Names that params.yaml allows, in the order of the file."""
    names: list[str] = []
    for original in originals:
        name = re.sub(r"[^A-Za-z0-9_.]+", "_", original).strip("_")[:60] or "column"
        name = name if re.match(r"[A-Za-z_]", name) else f"c_{name}"
        taken, number = {*names, ROW_COLUMN, GROUP_COLUMN}, 2
        base = name
        while name in taken:
            name, number = f"{base[:57]}_{number}", number + 1
        names.append(name)
    return names


def find(columns: list[Column], target: str) -> Column:
    """The column with this name, in the file or in params.yaml; raises LabError when there is none."""
    for column, name in zip(columns, rename([each.name for each in columns]), strict=True):
        if target in (column.name, name):
            return column
    shown = ", ".join(column.name[:60] for column in columns[:20])
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    raise LabError(f"the file has no column {target!r}; it has {shown}{more}", "TARGET= is the column to predict")


def _target(column: Column, values: Mapping[str, int], positive: str) -> Target:
    listed = ", ".join(f"{value} ({count:,} rows)" for value, count in list(values.items())[:10])
    if not 2 <= len(values) <= MOST_LEVELS:
        raise LabError(
            f"the column {column.name} has {column.distinct:,} different values, so it is no class",
            "TARGET= is a column with two values, or with a few of which POSITIVE= names one",
        )
    if positive and positive not in values:
        raise LabError(f"{column.name} is never {positive!r}; it is {listed}", "POSITIVE= is one of these values")
    if not positive and len(values) > 2:
        raise LabError(
            f"the column {column.name} has {len(values)} values: {listed}",
            "POSITIVE=value makes one of them the positive class, and the others the negative one",
        )
    if not positive:
        known = [value for value in values if value.lower() in POSITIVES]
        positive = known[0] if len(known) == 1 else min(values, key=lambda value: values[value])
    target = Target(column, values, positive)
    fewest = min(target.positives, target.rows - target.positives)
    if fewest < FEWEST_OF_A_CLASS:
        raise LabError(
            f"one class of {column.name} has {fewest} rows, and folds of a cross-validation need "
            f"{FEWEST_OF_A_CLASS} of each: {listed}",
            "give more rows, or name another POSITIVE=",
        )
    return target


def _class_warnings(target: Target) -> list[str]:
    warnings = []
    share = target.positives / target.rows
    fewest = min(target.positives, target.rows - target.positives)
    if fewest < FEW_OF_A_CLASS:
        warnings.append(f"a class has {fewest} rows only: every figure will have a wide interval")
    if min(share, 1 - share) < 0.1:
        warnings.append(
            f"the classes are out of balance: {share:.1%} of the rows are {target.positive}; the metric of the choice "
            "is average precision, because ROC AUC hides false alarms of a rare class"
        )
    return warnings


def _place(plan: Plan, name: str, column: Column, rows: int) -> None:
    unique = column.distinct >= NEARLY * column.filled and column.distinct > MOST_LEVELS
    if column.distinct <= 1:
        plan.unused[name] = "is empty" if not column.filled else "has one value only"
    elif column.kind == "date":
        _place_date(plan, name, column, rows)
    elif column.kind == "number":
        counts = column.ascending or (_ID.search(name) is not None and column.distinct > rows / 4)
        if column.whole and column.filled == rows and not plan.id and counts:
            plan.id, plan.repeated_id = name, column.distinct < rows
        elif column.ascending:
            plan.unused[name] = "counts the rows"
        elif max(abs(column.low), abs(column.high)) * (1 + MARGIN) > GREATEST:
            plan.unused[name] = "has numbers that are larger than a model can compute with"
        else:
            plan.features[name] = _number(column, rows)
    elif unique and not plan.id and column.filled == rows and _ID.search(name):
        plan.id, plan.repeated_id = name, column.distinct < rows
    elif unique:
        plan.unused[name] = "is nearly unique, so that a model would learn the rows by heart"
    elif column.distinct > MOST_LEVELS:
        plan.unused[name] = (
            f"has {column.distinct:,} levels, and a category {MOST_LEVELS} at most; group them to use it"
        )
    elif any(len(level) > MOST_LEVEL_CHARACTERS or CONTROL.search(level) for level in column.levels):
        plan.unused[name] = "has texts that are too long, or with line ends, for levels"
    else:
        plan.features[name] = _levels(column, rows)


def missing_marks(plan: Plan) -> list[str]:
    """The texts that stand for a missing value in a feature or in the date."""
    columns = [plan.columns[name] for name in [*plan.features, *([plan.date] if plan.date else [])]]
    return sorted({mark for column in columns for mark in column.marks})


def drop_marks(plan: Plan) -> None:
    """Take the marks of other columns out of the levels, because a mark means missing in every column."""
    marks = set(missing_marks(plan))
    for name, feature in list(plan.features.items()):
        levels = [level for level in feature.levels if level not in marks]
        if len(levels) < len(feature.levels):
            if len(levels) < 2:
                del plan.features[name]
                plan.unused[name] = "has one value only"
            else:
                plan.features[name] = msgspec.structs.replace(
                    feature, levels=levels, max=float(len(levels) - 1), nullable=True
                )


def _place_date(plan: Plan, name: str, column: Column, rows: int) -> None:
    if plan.date:
        plan.unused[name] = f"is a date, and {plan.date} gives the groups already"
    elif column.filled < rows:
        plan.unused[name] = f"is a date that is missing in {rows - column.filled:,} rows"
    elif column.months < 2:
        plan.unused[name] = "has dates of one month only"
    else:
        plan.date = name


def _number(column: Column, rows: int) -> Feature:
    low, high = column.low, column.high
    if not (column.whole and column.distinct <= SCALE):
        margin = MARGIN * (high - low)
        low = 0.0 if 0 <= low < margin else _rounded(low - margin, math.floor, high - low)
        high = 0.0 if -margin < high <= 0 else _rounded(high + margin, math.ceil, high - low)
    if column.whole:
        low, high = math.floor(low), math.ceil(high)
    return Feature(
        type="integer" if column.whole else "real",
        min=low,
        max=high,
        nullable=column.filled < rows,
        label=column.name,
    )


def _rounded(value: float, direction: Callable[[float], int], span: float) -> float:
    """The bound with about two digits more than the range has."""
    digits = 2 - math.floor(math.log10(span))
    return round(direction(round(value * 10.0**digits, 6)) / 10.0**digits, max(digits, 0))


def _levels(column: Column, rows: int) -> Feature:
    nullable, words = column.filled < rows, {level.lower() for level in column.levels}
    if words in ({"true", "false"}, {"t", "f"}):
        return Feature(type="boolean", nullable=nullable, label=column.name)
    return Feature(type="category", levels=list(column.levels), nullable=nullable, label=column.name)
