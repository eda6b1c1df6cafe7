"""Collect labelled live records: the predictions for clients, joined with the feedback of clients.

Each prediction gives at most one record, whatever the order of the events. Feedback that repeats the same class counts
once. A prediction with feedback of both classes is left out, because no rule says which of the two is true.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from lab import events
from lab.collection import Classes, Proposal
from lab.errors import LabError
from lab.event_reader import Reader
from lab.events import Feedback, Prediction
from lab.problem import GROUP_COLUMN, PREDICTION_COLUMN, Feature, Problem
from lab.record import Value, value_fault
from trainer import collected, ingest

# The number of unfit records that are named.
SHOWN = 5
# The reasons to leave an event out.
OTHER_SOURCE = "predictions for the dashboard, a load test, the demo or an unknown source"
OTHER_MODEL = "predictions of other models"
LATER = "predictions later than MONTH"
UNLABELLED = "predictions without feedback"
CONFLICT = "predictions with contradicting feedback"
EARLIER = "predictions that were collected before"
UNFIT = "records that do not fit params.yaml"
REPEATED = "feedback that repeats an earlier one"
FEEDBACK_SOURCE = "feedback from the dashboard, a load test, the demo or an unknown source"
UNKNOWN = "feedback for a prediction that is not in the event files"
REASONS = (
    *(OTHER_SOURCE, OTHER_MODEL, LATER, UNLABELLED, CONFLICT, EARLIER, UNFIT),
    *(REPEATED, FEEDBACK_SOURCE, UNKNOWN),
)
Labels = dict[str, set[str]]


def propose(problem: Problem, folder: Path, until: str = "") -> Proposal:
    """The records in the event files of `folder` that are not collected yet, up to the month `until`.

    Raises LabError when the problem has no dated groups, or its table or collected records cannot be read.
    """
    present = _present(problem)
    before = collected.read(problem)
    counts: Counter[str] = Counter()
    reader = Reader(folder)
    labels = _labels(reader, counts)
    unreadable = reader.broken + reader.unknown
    predictions, notes = _select(
        problem, reader, labels, {record[PREDICTION_COLUMN] for record in before}, until, counts
    )
    new = [_record(problem, prediction, labels[prediction.id]) for prediction in predictions]
    notes += _contradicted(before, labels)
    if unreadable:
        notes.append(f"{unreadable} lines of the event files could not be read")
    return Proposal(
        problem=problem.name,
        months=_months(problem, new),
        dataset=_classes(problem, present),
        left_out={reason: counts[reason] for reason in REASONS if counts[reason]},
        notes=notes,
        total=len(before) + len(new),
        text=_text(problem, [*before, *new]),
    )


def _present(problem: Problem) -> list[str]:
    """The classes of the rows of the present dataset, in the words of the source."""
    columns, rows = ingest.ingest(problem)
    if not problem.source.groups:
        raise LabError(
            "the source has no dated groups, so that the collected records could not be told from its rows by month",
            f"write `groups: [{{month: 2026-10, rows: {len(rows)}}}]` under source in params.yaml, with the month in "
            "which the table was made",
        )
    place = columns.index(problem.target.column)
    return [row[place] for row in rows]


def _labels(reader: Reader, counts: Counter[str]) -> Labels:
    """The classes that clients reported for each prediction, by the prediction's id."""
    labels: Labels = defaultdict(set)
    for event in reader:
        if not isinstance(event, Feedback):
            continue
        if event.source != events.CLIENT:
            counts[FEEDBACK_SOURCE] += 1
        elif event.label in labels[event.prediction_id]:
            counts[REPEATED] += 1
        else:
            labels[event.prediction_id].add(event.label)
    return dict(labels)


def _select(
    problem: Problem, reader: Reader, labels: Labels, earlier: set[str], until: str, counts: Counter[str]
) -> tuple[list[Prediction], list[str]]:
    """The predictions to take, in the order of their time, and sentences about the unfit ones.

    Only predictions with feedback are kept in memory: the event files may hold millions of others.
    """
    predictions: dict[str, Prediction] = {}
    faults: dict[str, str] = {}
    ids: set[str] = set()
    for event in reader:
        if not isinstance(event, Prediction):
            continue
        if event.id in labels:
            if event.id in ids:
                continue
            ids.add(event.id)
        if reason := _reason(problem, event, labels, earlier, until):
            counts[reason] += 1
        elif fault := _fault(problem, event, labels[event.id]):
            counts[UNFIT] += 1
            faults[event.id] = fault
        else:
            predictions[event.id] = event
    counts[UNKNOWN] = sum(len(classes) for name, classes in labels.items() if name not in ids | earlier)
    notes = [f"prediction {name}: {fault}" for name, fault in sorted(faults.items())[:SHOWN]]
    return sorted(predictions.values(), key=lambda event: (event.timestamp, event.id)), notes


def _reason(problem: Problem, event: Prediction, labels: Labels, earlier: set[str], until: str) -> str:
    """The reason to leave a prediction out; empty when it has one label and is new."""
    if event.model_name != problem.name:
        return OTHER_MODEL
    if event.source != events.CLIENT:
        return OTHER_SOURCE
    if event.id in earlier:
        return EARLIER
    if until and _month(event) > until:
        return LATER
    if event.id not in labels:
        return UNLABELLED
    return CONFLICT if len(labels[event.id]) > 1 else ""


def _fault(problem: Problem, event: Prediction, labels: set[str]) -> str:
    """The reason why a record does not fit the present problem; empty when it fits."""
    if not labels <= {problem.target.negative.label, problem.target.positive.label}:
        return f"its class {next(iter(labels))[:60]!r} is neither class of target"
    if not isinstance(event.features, dict):
        return "it has no features"
    for name, feature in problem.features.items():
        value = event.features.get(name)
        if fault := value_fault(feature, value):
            return f"{name} {fault}" if value is None else f"{name} {value!r:.60} {fault}"
    return ""


def _record(problem: Problem, event: Prediction, labels: set[str]) -> dict[str, str]:
    """The row of a prediction in the collected records, in the words of the source."""
    target = problem.target
    positive = labels == {target.positive.label}
    return {
        PREDICTION_COLUMN: event.id,
        GROUP_COLUMN: _month(event),
        **{name: _cell(feature, event.features.get(name)) for name, feature in problem.features.items()},
        # A class of several values gets the first of them, because the feedback names the class only.
        target.column: (target.positive if positive else target.negative).values[0],
    }


def _cell(feature: Feature, value: Value | None) -> str:
    """A valid value as a text that `lab.record.from_text` reads as the same value."""
    if value is None:
        return ""
    if feature.type == "boolean":
        return "true" if value else "false"
    whole = feature.type == "integer" or (feature.type == "category" and not isinstance(value, str))
    return str(int(value)) if whole else str(value)


def _month(event: Prediction) -> str:
    return f"{event.timestamp.astimezone(UTC):%Y-%m}"


def _contradicted(before: Sequence[dict[str, str]], labels: Labels) -> list[str]:
    names = [record[PREDICTION_COLUMN] for record in before if len(labels.get(record[PREDICTION_COLUMN], ())) > 1]
    if not names:
        return []
    return [f"later feedback contradicts records that were collected ({len(names)}): {', '.join(names[:SHOWN])}"]


def _months(problem: Problem, records: Sequence[dict[str, str]]) -> dict[str, Classes]:
    groups: dict[str, list[str]] = defaultdict(list)
    for record in records:
        groups[record[GROUP_COLUMN]].append(record[problem.target.column])
    return {month: _classes(problem, values) for month, values in groups.items()}


def _classes(problem: Problem, values: Sequence[str]) -> Classes:
    classes = (problem.target.negative, problem.target.positive)
    return {each.label: sum(value in each.values for value in values) for each in classes}


def _text(problem: Problem, records: Sequence[dict[str, str]]) -> str:
    """The file of the collected records. It keeps the columns of features that the problem no longer has."""
    present = (PREDICTION_COLUMN, GROUP_COLUMN, *problem.features, problem.target.column)
    columns = dict.fromkeys([*(records[0] if records else ()), *present])
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()
