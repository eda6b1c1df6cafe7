"""Compare the candidates by every metric, and report which metrics can tell them apart."""

from __future__ import annotations

import io
from collections.abc import Mapping

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from lab.card import Spread
from lab.ledger import Comparison
from lab.problem import LOSSES, METRICS, Choice
from trainer.results import Result
from trainer.significance import lead_of

# `make train` prints the report through a pipe, so no line is wrapped.
WIDTH = 10_000
NOTES = (
    "* the metric of the choice. Mean ± SD of the outer folds; the best against the runner-up by the corrected",
    "resampled t-test, two-sided. Recall, specificity, precision, F1 and accuracy are at a threshold that was chosen",
    "without the fold. Each p is for one metric; it is not corrected for the number of metrics.",
)


def ranked(results: Mapping[str, Result], metric: str) -> list[str]:
    """The candidates' names, the best in this metric first."""
    return sorted(results, key=lambda name: results[name].mean(metric), reverse=metric not in LOSSES)


def compare_all(results: dict[str, Result], folds: int, choice: Choice, *, forward: bool = False) -> list[Comparison]:
    """For every metric, mean and SD of each candidate over the outer folds, and the best against the runner-up.

    The p-value is two-sided, because the same scores also determine the best of the two. An evaluation `forward` in
    time has too few tests for a p-value.
    """
    rows = []
    for metric in METRICS:
        best, *others = ranked(results, metric)
        row = Comparison(
            metric=metric,
            scores={n: Spread(mean=r.mean(metric), sd=r.sd(metric)) for n, r in results.items()},
            best=best,
        )
        if others:
            lead = lead_of(metric, results[best].folds[metric], results[others[0]].folds[metric], folds)
            row = msgspec.structs.replace(row, runner_up=others[0], lead=lead.gain)
            if not forward:
                row = msgspec.structs.replace(
                    row,
                    p_value=min(2 * lead.p_value, 1.0),
                    tells_apart=lead.is_shown(choice.alpha / 2, choice.delta),
                )
        rows.append(row)
    return rows


def render(rows: list[Comparison], metric: str) -> str:
    """The comparison as text; the metric of the choice is marked."""
    names = list(rows[0].scores)
    table = Table("metric", *names, "lead", "p", "verdict", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        scores = [f"{row.scores[name].mean:.4f} ± {row.scores[name].sd:.4f}" for name in names]
        test = ["", "", ""]
        if row.runner_up and row.lead is not None:
            verdict = f"{row.best} is better" if row.tells_apart else "cannot tell them apart"
            test = [f"{row.lead:.4f}", "", "too few tests"]
            if row.p_value is not None:
                test[1:] = f"{row.p_value:.4f}", verdict
        table.add_row(f"{row.metric} *" if row.metric == metric else row.metric, *scores, *test)
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join([*(line.rstrip() for line in capture.get().splitlines()), *NOTES])
