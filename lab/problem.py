"""The problem in `params.yaml`: the table, its columns and bounds, the candidates, and the rules of the choice."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from lab.errors import LabError
from lab.record import Level

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Column = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,62}\Z")]
MONTH_PATTERN = r"^[0-9]{4}-(0[1-9]|1[0-2])\Z"
Month = Annotated[str, Meta(pattern=MONTH_PATTERN)]
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
# The first column of the collected records.
PREDICTION_COLUMN = "prediction_id"
# The greatest float32: ONNX computes in float32.
GREATEST = 3.4028234e38


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next `rows` consecutive rows of the source, which were reported in `month`."""

    month: Month
    rows: Annotated[int, Meta(ge=0)]


class DateColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The column with the date of each row; the rows of a month are a dated group.

    `format` is that of Python's strptime. When it is empty, the column has ISO dates, such as 2026-11-27, and a time
    after the date is allowed.
    """

    column: Column
    by: Literal["month"] = "month"
    format: str = ""


class Collected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of the labelled live records, which `make collect` writes, and the MD5 by which DVC knows the file."""

    path: str
    md5: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of the table, unchanged from its publisher: Parquet when its name ends in .parquet, else text.

    `missing` is one mark or several; an empty cell is always missing. `columns` names the columns of the file in their
    order, also in place of the names in its header. `unused` are columns of the file that the lab does not read.
    `collected` are further rows, which come after those of the file.
    """

    path: str
    sha256: str = ""
    header: bool = True
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    missing: str | list[str] = ""
    columns: list[Column] = []
    unused: list[Column] = []
    groups: list[Group] | DateColumn = []
    collected: Collected | None = None

    @property
    def missing_marks(self) -> list[str]:
        return [self.missing] if isinstance(self.missing, str) else self.missing

    @property
    def counted_groups(self) -> list[Group]:
        """The dated groups that are given by their numbers of rows."""
        return [] if isinstance(self.groups, DateColumn) else self.groups

    @property
    def date_column(self) -> str:
        """The column with the dates of the groups; empty when there is none."""
        return self.groups.column if isinstance(self.groups, DateColumn) else ""


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until`: the last month whose dated groups are in the dataset; empty means all."""

    until: SomeMonth = ""


class ClassLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class: `value` as it stands in the source, or several values; `label` as people read it."""

    value: str | list[str]
    label: str

    @property
    def values(self) -> list[str]:
        return [self.value] if isinstance(self.value, str) else self.value


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    column: Column
    negative: ClassLabel
    positive: ClassLabel


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column that the model sees. A number has bounds, which are inclusive; a category has its levels.

    The model's input for a category is the index of its level, and for a boolean 0 or 1. `min` and `max` of these two
    are the bounds of that input, and need not be stated.
    """

    type: Literal["integer", "real", "category", "boolean"]
    min: float = math.nan
    max: float = math.nan
    levels: list[Level] = []
    nullable: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        if self.type in ("category", "boolean") and math.isnan(self.min) and math.isnan(self.max):
            msgspec.structs.force_setattr(self, "min", 0.0)
            msgspec.structs.force_setattr(self, "max", float(len(self.levels) - 1 if self.type == "category" else 1))


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An estimator by its import path, its fixed arguments, and the grid to search."""

    estimator: str
    settings: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Repeated stratified cross-validation, or with `split: time` an evaluation forward in time (`trainer.folds`).

    Rows of one `group` are never split. The grid search has `inner_folds` folds, which are made of the outer folds that
    are not held out, or of the months before the test.
    """

    split: Literal["folds", "time"] = "folds"
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
        """The columns of the dataset that come from the source."""
        return [*([self.id] if self.id else []), *self.features, self.target.column]

    @property
    def source_columns(self) -> list[str]:
        """The columns that the source must have."""
        date = self.source.date_column
        return [*self.columns, *([date] if date and date not in self.columns else []), *self.source.unused]


def load(path: Path) -> Problem:
    """Read and check a problem; raise LabError that names the place in the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LabError(
            f"cannot read the problem {path}: {error.strerror}",
            "PARAMS must name a params.yaml; `make new TABLE=file TARGET=column` writes one for a table",
        ) from error
    return parse(text, str(path))


def parse(text: bytes | str, name: str = "params.yaml") -> Problem:
    """Check the text of a params.yaml; raise LabError that names the place in it."""
    # Here, because the API's image has no YAML and needs the types of this module only.
    from lab import problem_faults, strict_yaml

    tree = strict_yaml.decode(text, name)
    if not isinstance(tree, dict):
        raise LabError(f"{name}: the file does not define a problem", "start from a params.yaml in tables/")
    try:
        _check_entries(tree)
        problem = msgspec.convert(tree, Problem)
    except msgspec.ValidationError as error:
        raise LabError(f"{name}: {error}", _remedy(str(error))) from error
    for fault in problem_faults.faults(problem):
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
    if re.search(r"Expected `[a-z |]*str`, got", message):
        return f"{remedy}; put quotes around a number, true or false that is meant as text"
    return f"{remedy}; write a number without quotes" if "got `str`" in message else remedy


def to_builtins(problem: Problem) -> dict[str, Any]:
    return dict(msgspec.to_builtins(problem))
