"""The rows of the problem's own table, as a client of the API sends them."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from lab import problem
from lab.errors import LabError
from lab.problem import Problem
from lab.record import Value, from_text
from lab.settings import Settings


@dataclass(frozen=True)
class Row:
    """A record, None for missing, and the label of its true class."""

    record: dict[str, Value | None]
    label: str


def load(settings: Settings) -> tuple[Problem, list[Row]]:
    """The problem that the setting PARAMS names, and its dataset; raise LabError when there is none yet."""
    definition = problem.load(settings.params_path)
    path = settings.params_path.parent / "data" / "dataset.csv"
    try:
        with path.open(newline="") as file:
            rows = [_row(definition, line) for line in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise LabError(f"there is no dataset at {path}", "`make up` or `make train` makes it") from error
    except (KeyError, ValueError) as error:
        raise LabError(f"{path} does not fit {settings.params}: {error}", "make it anew with `make train`") from error
    if not rows:
        raise LabError(f"{path} has no rows", "make it anew with `make train`")
    return definition, rows


def _row(definition: Problem, line: dict[str, str]) -> Row:
    record = {name: from_text(feature, line[name]) for name, feature in definition.features.items()}
    target = definition.target
    labels = {value: each.label for each in (target.negative, target.positive) for value in each.values}
    return Row(record, labels[line[target.column]])
