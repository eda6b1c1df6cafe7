"""Check the dataset against the problem (columns, bounds, classes, missing values), and count repeated rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from lab.errors import LabError
from lab.problem import GROUP_COLUMN, ROW_COLUMN, Feature, Problem
from lab.record import description, value_fault
from lab.settings import ROOT
from trainer.ingest import listing


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
    for name in problem.features:
        table[name] = pd.to_numeric(frame[name]).astype("float64")
    table[problem.target.column] = (frame[problem.target.column] == problem.target.positive.value).astype(int)
    if empty := [name for name in problem.features if table[name].isna().all()]:
        raise LabError(
            f"the dataset has no value in the columns {listing(empty)}",
            "a model learns nothing from them: remove them from features and from the file",
        )
    if len(classes := frame[problem.target.column].unique()) < 2:
        raise LabError(
            f"the dataset has rows of one class only: {problem.target.column} is {classes[0]!r} in each",
            "use more data, or a later data.until",
        )
    return table


def schema(problem: Problem) -> pa.DataFrameSchema:
    """The problem as a pandera schema over text."""
    classes = [problem.target.negative.value, problem.target.positive.value]
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
    figures: dict[str, Any] = {
        "rows": len(frame),
        "classes": {
            label.label: int((frame[target.column] == value).sum())
            for value, label in enumerate((target.negative, target.positive))
        },
        "missing": {name: int(frame[name].isna().sum()) for name in problem.features},
        "duplicate_rows": int(frame.duplicated(problem.columns).sum()),
    }
    if problem.id:
        figures["distinct_ids"] = int(frame[problem.id].nunique())
        figures["ids_with_both_classes"] = int((frame.groupby(problem.id)[target.column].nunique() > 1).sum())
    return figures


def _checks(feature: Feature) -> list[pa.Check]:
    def fits(value: Any) -> bool:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return False
        if "_" in value or not value.isascii():  # text that float() reads and pandas does not
            return False
        return not value_fault(feature, number)

    return [pa.Check(fits, element_wise=True, error=description(feature))]


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
