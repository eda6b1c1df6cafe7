"""The problem, as `params.yaml` states it: the table, its columns and bounds, and how to choose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from lab.errors import LabError

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Column = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,62}$")]
Month = Annotated[str, Meta(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
# An empty text where there is none: a pattern and Literal[""] do not go together in msgspec.
SomeColumn = Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_.]{0,62})?$")]
SomeMonth = Annotated[str, Meta(pattern=r"^(\d{4}-(0[1-9]|1[0-2]))?$")]
Share = Annotated[float, Meta(ge=0, le=1)]
Metric = Literal["roc_auc", "average_precision", "recall", "precision", "f1", "accuracy", "brier", "log_loss"]
METRICS: tuple[str, ...] = get_args(Metric)
# The better value of these is the lower one.
LOSSES = frozenset({"brier", "log_loss"})


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rows` rows in a row that were reported in `month`."""

    month: Month
    rows: Annotated[int, Meta(ge=0)]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as its makers distribute it: comma separated."""

    path: str
    sha256: str = ""
    header: bool = True
    missing: str = ""
    columns: list[Column] = []
    groups: list[Group] = []


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until`: the last month whose dated groups are in the dataset; empty means all."""

    until: SomeMonth = ""


class ClassLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class: `value` as it stands in the source, `label` as people read it."""

    value: str
    label: str


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    column: Column
    negative: ClassLabel
    positive: ClassLabel


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds are inclusive."""

    type: Literal["integer", "real"]
    min: float
    max: float
    nullable: bool = False
    label: str = ""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An estimator by its import path, what it is always given, and the grid to search."""

    estimator: str
    settings: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Repeated stratified cross-validation; rows of one `group` are never split.

    The grid search has `inner_folds`, put together from the outer folds that are not held out.
    """

    folds: Annotated[int, Meta(ge=2, le=50)] = 10
    repeats: Annotated[int, Meta(ge=1, le=50)] = 3
    inner_folds: Annotated[int, Meta(ge=2, le=50)] = 3
    group: SomeColumn = ""
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    tune_on: Metric = "log_loss"


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gate. `floors` are least values (for brier and log_loss: greatest)."""

    metric: Metric = "roc_auc"
    direction: Literal["", "maximise", "minimise"] = ""
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    floors: dict[Metric, float] = {}


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The decision threshold is the highest one that reaches this recall out of fold."""

    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All but `choice` must be stated, even when empty: dvc.yaml tracks each, and DVC takes no defaults.

    The order of the features has no meaning.
    """

    name: Name
    title: str
    source: Source
    target: Target
    features: Annotated[dict[Column, Feature], Meta(min_length=1)]
    candidates: Annotated[dict[Name, Candidate], Meta(min_length=1)]
    id: SomeColumn
    data: Data
    evaluation: Evaluation
    threshold: Threshold
    choice: Choice = Choice()

    @property
    def columns(self) -> list[str]:
        """The columns that the source must have."""
        return [*([self.id] if self.id else []), *self.features, self.target.column]


def load(path: Path) -> Problem:
    """Read and check a problem; raise LabError that names the place in the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LabError(
            f"cannot read the problem {path}: {error.strerror}",
            "PARAMS must name a params.yaml; examples/ has one to start from",
        ) from error
    return parse(text, str(path))


def parse(text: bytes | str, name: str = "params.yaml") -> Problem:
    """Check the text of a params.yaml; raise LabError that names the place in it."""
    try:
        problem = msgspec.yaml.decode(text, type=Problem)
    except msgspec.DecodeError as error:
        raise LabError(
            f"{name}: {error}",
            "correct it there; $ is the top of the file, and words that YAML takes for numbers or yes/no need quotes",
        ) from error
    for fault in _faults(problem):
        raise LabError(f"{name}: {fault}", "correct it there")
    return problem


def better_is_lower(choice: Choice) -> bool:
    return choice.direction == "minimise" if choice.direction else choice.metric in LOSSES


def to_builtins(problem: Problem) -> dict[str, Any]:
    return dict(msgspec.to_builtins(problem))


def _faults(p: Problem) -> list[str]:
    faults = []
    if len(set(p.columns)) != len(p.columns):
        faults.append("id, features and target must be different columns")
    if not p.source.header and not p.source.columns:
        faults.append("source.columns must name the columns of a file without a header")
    if p.source.columns and sorted(p.source.columns) != sorted(p.columns):
        odd = sorted(set(p.source.columns) ^ set(p.columns))
        faults.append(f"source.columns and id, features, target do not agree on {', '.join(odd)}")
    if p.target.negative.value == p.target.positive.value:
        faults.append("target.negative and target.positive are the same value")
    if p.target.negative.label == p.target.positive.label:
        faults.append("target.negative and target.positive have the same label")
    faults += [f"features.{n}: min is not below max" for n, f in p.features.items() if not f.min < f.max]
    faults += _group_faults(p)
    if p.choice.direction and (p.choice.direction == "minimise") != (p.choice.metric in LOSSES):
        faults.append(f"choice.direction {p.choice.direction} does not fit choice.metric {p.choice.metric}")
    return faults


def _group_faults(p: Problem) -> list[str]:
    months = [g.month for g in p.source.groups]
    faults = [f"source.groups: the group {g.month} is empty" for g in p.source.groups if g.rows == 0]
    if months != sorted(months):
        faults.append("source.groups must stand in the order of their months")
    if p.data.until and not months:
        faults.append("data.until needs source.groups, the dated groups it chooses from")
    if p.data.until and months and p.data.until < months[0]:
        faults.append(f"data.until {p.data.until} leaves no row: the first group is {months[0]}")
    if p.evaluation.inner_folds >= p.evaluation.folds:
        faults.append("evaluation.inner_folds must be below evaluation.folds")
    if p.evaluation.group not in ("", p.id):
        faults.append("evaluation.group must be the id column or empty")
    return faults
