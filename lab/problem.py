"""The problem in `params.yaml`: the table, its columns and bounds, the candidates, and the rules of the choice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from lab.errors import LabError

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Column = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,62}\Z")]
Month = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z")]
# The patterns end in \Z because $ also matches before a final line end. The next two allow the empty text, which means
# that there is no value: msgspec cannot combine a pattern with Literal[""].
SomeColumn = Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_.]{0,62})?\Z")]
SomeMonth = Annotated[str, Meta(pattern=r"^([0-9]{4}-(0[1-9]|1[0-2]))?\Z")]
Share = Annotated[float, Meta(ge=0, le=1)]
Metric = Literal[
    "roc_auc", "average_precision", "recall", "specificity", "precision", "f1", "accuracy", "brier", "log_loss"
]
METRICS: tuple[str, ...] = get_args(Metric)
# Metrics with lower values for better models.
LOSSES = frozenset({"brier", "log_loss"})
# Columns that ingest adds to those of the source: the row number in the source, and the month of a dated group.
ROW_COLUMN = "source_row"
GROUP_COLUMN = "reported"
# The greatest float32: ONNX computes in float32.
GREATEST = 3.4028234e38


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next `rows` consecutive rows of the source, which were reported in `month`."""

    month: Month
    rows: Annotated[int, Meta(ge=0)]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The comma-separated file, unchanged from its publisher."""

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
    """An estimator by its import path, its fixed arguments, and the grid to search."""

    estimator: str
    settings: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Repeated stratified cross-validation; rows of one `group` are never split.

    The grid search has `inner_folds` folds, which are made of the outer folds that are not held out.
    """

    folds: Annotated[int, Meta(ge=2, le=50)] = 10
    repeats: Annotated[int, Meta(ge=1, le=50)] = 3
    inner_folds: Annotated[int, Meta(ge=2, le=50)] = 3
    group: SomeColumn = ""
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    tune_on: Metric = "log_loss"


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of the gate. `floors` are lower limits (upper for brier and log_loss); `delta` is the least lead."""

    metric: Metric = "roc_auc"
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    delta: Annotated[float, Meta(ge=0)] = 0.002
    floors: dict[Metric, float] = {}


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The decision threshold is the highest one that promises this recall (see `trainer.threshold`)."""

    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of params.yaml. All but `choice` must be stated, even when empty, because dvc.yaml tracks each.

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
    from lab import strict_yaml  # here, because the API's image has no YAML and needs the types of this module only

    tree = strict_yaml.decode(text, name)
    if not isinstance(tree, dict):
        raise LabError(f"{name}: the file does not define a problem", "start from a params.yaml in examples/")
    try:
        _check_entries(tree)
        problem = msgspec.convert(tree, Problem)
    except msgspec.ValidationError as error:
        raise LabError(f"{name}: {error}", _remedy(str(error))) from error
    for fault in _faults(problem):
        raise LabError(f"{name}: {fault}", "correct it there")
    return problem


def _check_entries(tree: dict[str, Any]) -> None:
    """Check each entry of a mapping by itself, because msgspec's error does not name the wrong entry."""
    grids = [(f"candidates.{name}.grid", str, list[Any]) for name in _mapping(tree, "candidates")]
    kinds = [*grids, ("features", Column, Feature), ("candidates", Name, Candidate), ("choice.floors", Metric, float)]
    for place, key_type, value_type in kinds:
        for key, value in _mapping(tree, *place.split(".")).items():
            _check_entry(key, key_type, f"{place}.{key}")
            _check_entry(value, value_type, f"{place}.{key}")


def _check_entry(value: Any, kind: Any, place: str) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        message = message.replace("`$", f"`$.{place}") if "`$" in message else f"{message} - at `$.{place}`"
        raise msgspec.ValidationError(message) from error


def _mapping(tree: Any, *path: str) -> dict[str, Any]:
    """The mapping at `path`, or an empty mapping when there is none at that place."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def _remedy(message: str) -> str:
    remedy = "correct it in the file; $ is the top of the file"
    if "Expected `str`, got" in message:
        return f"{remedy}; put quotes around a number, true or false that is meant as text"
    return f"{remedy}; write a number without quotes" if "got `str`" in message else remedy


def to_builtins(problem: Problem) -> dict[str, Any]:
    return dict(msgspec.to_builtins(problem))


def _faults(p: Problem) -> list[str]:
    faults = [*_column_faults(p), *_target_faults(p)]
    for name, feature in p.features.items():
        if not feature.min < feature.max:
            faults.append(f"features.{name}: min is not below max")
        if max(abs(feature.min), abs(feature.max)) > GREATEST:
            faults.append(
                f"features.{name}: a bound is beyond ±{GREATEST:.2g}, the greatest number that a model can compute "
                "with; state the least and the greatest value that can really occur"
            )
    faults += _group_faults(p)
    return faults


def _column_faults(p: Problem) -> list[str]:
    faults = []
    repeated = _repeated(p.columns)
    if repeated:
        faults.append(f"id, features and target must be different columns; {', '.join(repeated)} is given twice")
    for column in {ROW_COLUMN, *([GROUP_COLUMN] if p.source.groups else [])} & set(p.columns):
        faults.append(
            f"no column may be called {column}: ingest adds one of that name; rename yours, in the file as well"
        )
    if not p.source.header and not p.source.columns:
        faults.append("source.columns must name the columns of a file without a header")
    if p.source.columns and sorted(p.source.columns) != sorted(p.columns):
        names = sorted(set(p.source.columns) ^ set(p.columns))
        faults.append(
            f"source.columns and id, features, target do not agree on {', '.join(names or _repeated(p.source.columns))}"
        )
    return faults


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _target_faults(p: Problem) -> list[str]:
    faults = []
    for name, label in (("negative", p.target.negative), ("positive", p.target.positive)):
        if label.value != label.value.strip():
            faults.append(f"target.{name}.value has a space before or after it, which ingest removes from every cell")
        if label.value in ("", p.source.missing):
            faults.append(f"target.{name}.value is also source.missing; a class needs a value of its own")
        if not label.label:
            faults.append(f"target.{name}.label is empty")
    if p.target.negative.value == p.target.positive.value:
        faults.append("target.negative and target.positive are the same value")
    if p.target.negative.label == p.target.positive.label:
        faults.append("target.negative and target.positive have the same label")
    if p.source.missing != p.source.missing.strip():
        faults.append("source.missing has a space before or after it, which ingest removes from every cell")
    return faults


def _group_faults(p: Problem) -> list[str]:
    months = [g.month for g in p.source.groups]
    faults = [f"source.groups: the group {g.month} is empty" for g in p.source.groups if g.rows == 0]
    if months != sorted(months):
        faults.append("source.groups must stand in the order of their months")
    if p.data.until and not months:
        faults.append("data.until selects from the dated groups in source.groups, which is empty")
    if p.data.until and months and p.data.until < months[0]:
        faults.append(f"data.until {p.data.until} leaves no row: the first group is {months[0]}")
    if p.evaluation.inner_folds >= p.evaluation.folds:
        faults.append("evaluation.inner_folds must be below evaluation.folds")
    if p.evaluation.group not in ("", p.id):
        faults.append("evaluation.group must be the id column or empty")
    return faults
