"""Simulate how often the gate decides correctly, on the example table with fixed seeds. No service is needed.

    python -m trainer.simulate [--runs 100] [--seeds 40] [--repeats 10]

The simulation answers four questions. Is each real revision of the table promoted over the champion of the revision
before? Is a training held when benign rows are labelled malignant? Is a training held when labels of the newest group
are flipped? How much does the comparison of the candidates depend on the seed of the folds? A run for one of the first
three trains the champion's recipe, with cross-validation, threshold and export, and calls `trainer.hold`. A run for the
last trains every candidate.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from dataclasses import dataclass

import joblib
import msgspec
import numpy as np

from lab import problem, settings
from lab.card import Card
from lab.ledger import Comparison
from lab.problem import Problem
from trainer import hold, ingest, report
from trainer.evaluate import evaluate
from trainer.metrics import Ints
from trainer.model_card import make_card
from trainer.table import Table, table
from trainer.train import finish
from trainer.validate import frame_of, validate

WRONG_ROWS, FLIPPED_SHARE = 5, 0.2


@dataclass(frozen=True)
class Trained:
    """The rows and the result of a training, as the comparison of champion and candidate needs them."""

    data: Table
    card: Card
    model: bytes
    scored: hold.Scored


def revision(definition: Problem, until: str) -> tuple[Table, list[str]]:
    """The arrays of the table as it was in the month `until`, and the ids of its rows."""
    earlier = msgspec.structs.replace(definition, data=problem.Data(until=until))
    frame = validate(earlier, frame_of(*ingest.ingest(earlier)))
    return table(earlier, frame), [str(each) for each in frame[definition.id]]


def train(definition: Problem, data: Table, ids: list[str]) -> Trained:
    """Train the first candidate of the problem, as `make train` does."""
    name, candidate = next(iter(definition.candidates.items()))
    with joblib.parallel_config("sequential"):
        scores = evaluate(definition, {name: candidate}, data)[name]
    result, model = finish(definition, name, candidate, scores, data, "")
    card = make_card(definition, result, "", "", False)
    return Trained(data, card, model, hold.Scored(ids, scores.oof.mean(axis=0), result.threshold))


def reasons(champion: Trained, candidate: Trained) -> list[str]:
    present = hold.Rows(candidate.data.x, candidate.data.y)
    return hold.reasons(champion.card, champion.model, champion.scored, present, candidate.scored)


def relabelled(data: Table, rows: Ints) -> Table:
    """The table with the other class in these rows."""
    y = data.y.copy()
    y[rows] = 1 - y[rows]
    return Table(data.x, y, data.groups)


def real_revisions(definition: Problem) -> list[tuple[str, list[str]]]:
    """For each revision after the first, its month and the reasons to hold it against the one before."""
    months = [group.month for group in definition.source.counted_groups]
    trained = joblib.Parallel(n_jobs=-1)(joblib.delayed(_train_revision)(definition, month) for month in months)
    pairs = itertools.pairwise(trained)
    return [(month, reasons(*pair)) for month, pair in zip(months[1:], pairs, strict=True)]


def wrong_rows(definition: Problem, champion: Trained, seed: int) -> list[str]:
    """The reasons to hold a training on the same rows when a few random benign rows are labelled malignant."""
    benign = np.flatnonzero(champion.data.y == 0)
    rows = np.random.default_rng(seed).choice(benign, WRONG_ROWS, replace=False)
    return reasons(champion, train(definition, relabelled(champion.data, rows), list(champion.scored.ids)))


def flipped_group(definition: Problem, champion: Trained, seed: int) -> list[str]:
    """The reasons to hold a training with one more group than the champion's, when some of its labels are flipped."""
    data, ids = revision(definition, definition.source.counted_groups[-1].month)
    new = np.arange(len(champion.data.y), len(data.y))
    rows = np.random.default_rng(seed).choice(new, round(FLIPPED_SHARE * len(new)), replace=False)
    return reasons(champion, train(definition, relabelled(data, rows), ids))


def other_seed(definition: Problem, seed: int) -> Comparison:
    """The comparison of all candidates by the metric of the choice, with folds from another seed."""
    problem = msgspec.structs.replace(definition, evaluation=msgspec.structs.replace(definition.evaluation, seed=seed))
    data, _ = revision(problem, problem.source.counted_groups[-1].month)
    outcomes = evaluate(problem, problem.candidates, data)
    results = {n: finish(problem, n, c, outcomes[n], data, "")[0] for n, c in problem.candidates.items()}
    rows = report.compare_all(results, problem.evaluation.folds, problem.choice)
    return next(row for row in rows if row.metric == problem.choice.metric)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--repeats", type=int, help="instead of evaluation.repeats")
    arguments = parser.parse_args()
    definition = with_repeats(problem.load(settings.ROOT / "params.yaml"), arguments.repeats)
    for month, holds in real_revisions(definition):
        print(f"revision {month}: {'held: ' + '; '.join(holds) if holds else 'promoted'}", flush=True)
    last, before = definition.source.counted_groups[-1].month, definition.source.counted_groups[-2].month
    for title, question, champion in (
        (f"{WRONG_ROWS} benign rows labelled malignant", wrong_rows, _train_revision(definition, last)),
        (f"{FLIPPED_SHARE:.0%} of the newest group flipped", flipped_group, _train_revision(definition, before)),
    ):
        answers = joblib.Parallel(n_jobs=-1)(
            joblib.delayed(question)(definition, champion, seed) for seed in range(arguments.runs)
        )
        print(f"{title}: held in {sum(map(bool, answers))} of {len(answers)} runs", flush=True)
    rows = [other_seed(definition, seed) for seed in range(arguments.seeds)]
    if rows:
        best, count = Counter(row.best for row in rows).most_common(1)[0]
        p_value, verdicts = float(np.median([row.p_value for row in rows])), sum(row.tells_apart for row in rows)
        print(f"{definition.choice.metric} with other seeds: {best} is best in {count} of {len(rows)} trainings,")
        print(f"and told apart from the runner-up in {verdicts}; the median of the two-sided p is {p_value:.3f}")


def with_repeats(definition: Problem, repeats: int | None) -> Problem:
    """The problem with another number of repeats, if a number is given."""
    if repeats is None:
        return definition
    return msgspec.structs.replace(
        definition, evaluation=msgspec.structs.replace(definition.evaluation, repeats=repeats)
    )


def _train_revision(definition: Problem, month: str) -> Trained:
    return train(definition, *revision(definition, month))


if __name__ == "__main__":
    main()
