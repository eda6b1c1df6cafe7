"""The checks of a problem between its fields, which the types of `lab.problem` do not express."""

from __future__ import annotations

import math
from collections import Counter

from lab.problem import GREATEST, GROUP_COLUMN, ROW_COLUMN, DateColumn, Feature, Problem
from lab.record import level_faults


def faults(p: Problem) -> list[str]:
    """Each contradiction in a problem, as a sentence that begins with its place; empty when there is none."""
    return [
        *_column_faults(p),
        *_target_faults(p),
        *(f"features.{name}: {fault}" for name, feature in p.features.items() for fault in _feature_faults(feature, p)),
        *_group_faults(p),
        *_evaluation_faults(p),
    ]


def _feature_faults(feature: Feature, p: Problem) -> list[str]:
    if feature.type in ("integer", "real"):
        return _bound_faults(feature)
    last = len(feature.levels) - 1 if feature.type == "category" else 1
    faults = []
    if (feature.min, feature.max) != (0, last):
        faults.append(f"a {feature.type} has no bounds: remove min and max")
    if feature.type == "boolean":
        return [*faults, "a boolean has no levels: remove them, or write type: category"] if feature.levels else faults
    faults += level_faults(feature.levels)
    if marks := [level for level in feature.levels if str(level) in p.source.missing_marks]:
        faults.append(f"the level {marks[0]!r} is also source.missing; remove it from one of the two")
    return faults


def _bound_faults(feature: Feature) -> list[str]:
    faults = []
    if math.isnan(feature.min) or math.isnan(feature.max):
        faults.append("min and max are missing; a number needs both, or write type: category with levels")
    elif not feature.min < feature.max:
        faults.append("min is not below max")
    if max(abs(feature.min), abs(feature.max)) > GREATEST:
        faults.append(
            f"a bound is beyond ±{GREATEST:.2g}, the greatest number that a model can compute with; state the least "
            "and the greatest value that can really occur"
        )
    if feature.levels:
        faults.append("a number has no levels; write type: category, or remove them")
    return faults


def _column_faults(p: Problem) -> list[str]:
    faults = []
    repeated = _repeated(p.source_columns)
    if repeated:
        faults.append(
            f"id, features, target, date and unused must be different columns; {', '.join(repeated)} is given twice"
        )
    for column in {ROW_COLUMN, *([GROUP_COLUMN] if p.source.groups else [])} & set(p.columns):
        faults.append(
            f"no column may be called {column}: ingest adds one of that name; rename yours, in the file as well"
        )
    if not p.source.header and not p.source.columns:
        faults.append("source.columns must name the columns of a file without a header")
    if p.source.separator in '"\r\n':
        faults.append("source.separator must not be a quote or a line end")
    if p.source.separator == p.source.decimal:
        faults.append("source.separator and source.decimal are the same mark")
    if p.source.columns and sorted(p.source.columns) != sorted(p.source_columns):
        names = sorted(set(p.source.columns) ^ set(p.source_columns))
        faults.append(
            "source.columns and id, features, target, date, unused do not agree on "
            f"{', '.join(names or _repeated(p.source.columns))}"
        )
    return faults


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _target_faults(p: Problem) -> list[str]:
    faults = []
    for name, label in (("negative", p.target.negative), ("positive", p.target.positive)):
        if label.value != label.value.strip():
            faults.append(f"target.{name}.value has a space before or after it, which ingest removes from every cell")
        if label.value in ("", *p.source.missing_marks):
            faults.append(f"target.{name}.value is also source.missing; a class needs a value of its own")
        if not label.label:
            faults.append(f"target.{name}.label is empty")
    if p.target.negative.value == p.target.positive.value:
        faults.append("target.negative and target.positive are the same value")
    if p.target.negative.label == p.target.positive.label:
        faults.append("target.negative and target.positive have the same label")
    if any(mark != mark.strip() for mark in p.source.missing_marks):
        faults.append("source.missing has a space before or after it, which ingest removes from every cell")
    return faults


def _group_faults(p: Problem) -> list[str]:
    groups = p.source.groups
    if p.data.until and not groups:
        return ["data.until selects from the dated groups in source.groups, which is empty"]
    if isinstance(groups, DateColumn):
        return []
    months = [g.month for g in groups]
    faults = [f"source.groups: the group {g.month} is empty" for g in groups if g.rows == 0]
    if months != sorted(months):
        faults.append("source.groups must stand in the order of their months")
    if p.data.until and p.data.until < months[0]:
        faults.append(f"data.until {p.data.until} leaves no row: the first group is {months[0]}")
    return faults


def _evaluation_faults(p: Problem) -> list[str]:
    faults = []
    if p.evaluation.split == "time":
        if not p.source.groups:
            faults.append("evaluation.split: time needs the dated groups of source.groups, which is empty")
        if p.evaluation.folds < 3:
            faults.append("evaluation.folds must be 3 or more with split: time: the first test has no threshold")
        if p.evaluation.repeats != 1:
            faults.append("evaluation.repeats must be 1 with split: time, because there is one order of time only")
    elif p.evaluation.inner_folds >= p.evaluation.folds:
        faults.append("evaluation.inner_folds must be below evaluation.folds")
    if p.evaluation.group not in ("", p.id):
        faults.append("evaluation.group must be the id column or empty")
    return faults
