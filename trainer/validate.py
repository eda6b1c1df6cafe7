"""Check the dataset against the problem (columns, bounds, classes, missing values), and count repeated rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from lab import record
from lab.errors import LabError
from lab.problem import GROUP_COLUMN, ROW_COLUMN, Feature, Problem
from lab.record import description, from_text, value_fault
from lab.settings import ROOT
from trainer.encoding import LEAST_ROWS
from trainer.source import listing


def read(path: Path) -> pd.DataFrame:
    """Read an ingested dataset: every value as text, None for missing."""
    if not path.is_file():
        raise LabError(f"there is no dataset at {path}", f"run `make train`, or `dvc pull {_pipeline(path)}`")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:  # errors of pandas are ValueErrors
        raise LabError(f"{path} is not what ingest wrote: {error}", "run `make train`") from error
    return frame.astype(object).mask(frame == "", None)


def frame_of(columns: list[str], rows: list[list[str]]) -> pd.DataFrame:
    """The frame that `read` gives for a dataset with these columns and rows."""
    frame = pd.DataFrame(rows, columns=columns, dtype=str)
    return frame.astype(object).mask(frame == "", None)


def validate(problem: Problem, frame: pd.DataFrame) -> pd.DataFrame:
    """The dataset with typed columns: features as float64 (missing as NaN), target as 0 or 1.

    Raises LabError with a list of the first wrong rows and values.
    """
    columns = {*problem.columns, ROW_COLUMN, *([GROUP_COLUMN] if problem.source.groups else [])}
    if difference := sorted(columns ^ set(frame.columns)):
        raise LabError(
            f"the dataset and params.yaml do not agree on the columns {listing(difference)}", "run `make train`"
        )
    try:
        schema(problem).validate(frame, lazy=True)
    except SchemaErrors as errors:
        raise _value_error(frame, errors) from errors
    table = frame.copy()
    for name, feature in problem.features.items():
        table[name] = inputs_of(feature, frame[name])
    table[problem.target.column] = frame[problem.target.column].isin(problem.target.positive.values).astype(int)
    if empty := [name for name in problem.features if table[name].isna().all()]:
        raise LabError(
            f"the dataset has no value in the columns {listing(empty)}",
            "a model learns nothing from them: remove them from features and from the file",
        )
    if table[problem.target.column].nunique() < 2:
        raise LabError(
            f"the dataset has rows of one class only: {problem.target.column} is "
            f"{' or '.join(map(repr, frame[problem.target.column].unique()))} in each",
            "use more data, or a later data.until",
        )
    return table


def inputs_of(feature: record.Feature, texts: pd.Series) -> pd.Series:
    """The model's inputs for valid cells of the dataset: float64, NaN for missing."""
    if record.is_number(feature):
        return pd.to_numeric(texts).astype("float64")
    number = {text: record.to_input(feature, record.from_text(feature, text)) for text in texts.dropna().unique()}
    return texts.map(number).astype("float64")


def schema(problem: Problem) -> pa.DataFrameSchema:
    """The problem as a pandera schema over text."""
    classes = [*problem.target.negative.values, *problem.target.positive.values]
    columns: dict[str, pa.Column] = {
        name: pa.Column(nullable=feature.nullable, checks=_checks(feature))
        for name, feature in problem.features.items()
    }
    columns[problem.target.column] = pa.Column(checks=pa.Check.isin(classes, error=f"one of {classes}"))
    columns[ROW_COLUMN] = pa.Column()
    if problem.id:
        columns[problem.id] = pa.Column()
    if problem.source.groups:
        columns[GROUP_COLUMN] = pa.Column()
    return pa.DataFrameSchema(columns, strict=True)


def report(problem: Problem, frame: pd.DataFrame) -> dict[str, Any]:
    """Figures about a valid dataset, such as the number of duplicates, which are reported and not refused."""
    target = problem.target
    rare = {
        name: {str(level): count for level, count in _counts(feature, frame[name]).items() if count < LEAST_ROWS}
        for name, feature in problem.features.items()
        if not record.is_number(feature)
    }
    figures: dict[str, Any] = {
        "rows": len(frame),
        "classes": {
            label.label: int((frame[target.column] == value).sum())
            for value, label in enumerate((target.negative, target.positive))
        },
        **({"rare_levels": rare} if any(rare.values()) else {}),
        "missing": {name: int(frame[name].isna().sum()) for name in problem.features},
        "duplicate_rows": int(frame.duplicated(problem.columns).sum()),
    }
    if problem.id:
        figures["distinct_ids"] = int(frame[problem.id].nunique())
        figures["ids_with_both_classes"] = int((frame.groupby(problem.id)[target.column].nunique() > 1).sum())
    return figures


def _counts(feature: Feature, inputs: pd.Series) -> dict[record.Level | bool, int]:
    """The number of rows of each level."""
    return {level: int((inputs == place).sum()) for place, level in enumerate(record.levels(feature))}


def _checks(feature: Feature) -> list[pa.Check]:
    def fits(texts: pd.Series) -> pd.Series:
        # Each text is checked once, because most occur in many rows.
        valid = {text: not value_fault(feature, from_text(feature, text)) for text in texts.unique()}
        return texts.map(valid).astype(bool)

    return [pa.Check(fits, error=description(feature))]


def _value_error(frame: pd.DataFrame, errors: SchemaErrors) -> LabError:
    lines = []
    for case in errors.failure_cases.itertuples():
        expectation = "a value (this column may not be empty)" if case.check == "not_nullable" else case.check
        row = frame.loc[case.index, ROW_COLUMN]
        lines.append(f"  row {row}, {case.column}: {_brief(case.failure_case)} is not {expectation}")
    lines = list(dict.fromkeys(lines))
    return LabError(
        f"the dataset is not valid, {len(lines)} fault(s):\n{listing(lines, chr(10))}",
        "correct the source, or the bounds and classes in params.yaml; row 1 is the first row of data",
    )


def _pipeline(dataset: Path) -> str:
    """The path of the dvc.yaml that makes the dataset, relative to the root of the clone."""
    return os.path.relpath(dataset.parents[1] / "dvc.yaml", ROOT)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
