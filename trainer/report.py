"""Compare the candidates by every metric, and report which metrics can tell them apart."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lab.card import Spread
from lab.ledger import Comparison
from lab.problem import LOSSES, METRICS, Choice
from trainer.results import Result
from trainer.significance import lead_of


def ranked(results: Mapping[str, Result], metric: str) -> list[str]:
    """The candidates' names, the best in this metric first."""
    return sorted(results, key=lambda name: results[name].mean(metric), reverse=metric not in LOSSES)


def compare_all(results: dict[str, Result], folds: int, choice: Choice) -> list[Comparison]:
    """For every metric, mean and SD of each candidate over the outer folds, and the best against the runner-up.

    The p-value is two-sided here, for which of the two is the best is seen from the same scores.
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
            row = msgspec.structs.replace(
                row,
                runner_up=others[0],
                lead=lead.gain,
                p_value=min(2 * lead.p_value, 1.0),
                tells_apart=lead.is_shown(choice.alpha / 2, choice.delta),
            )
        rows.append(row)
    return rows


def render(rows: list[Comparison], metric: str) -> str:
    """The comparison as text, the metric of the choice marked."""
    names = list(rows[0].scores)
    widths = [max(len(name), 17) for name in names]
    head = ["metric".ljust(18), *(n.ljust(w) for n, w in zip(names, widths, strict=True)), "lead     p        verdict"]
    lines = ["  " + "  ".join(head)]
    for row in rows:
        mark = "* " if row.metric == metric else "  "
        scores = [f"{row.scores[n].mean:.4f} ± {row.scores[n].sd:.4f}" for n in names]
        cells = [row.metric.ljust(18), *(s.ljust(w) for s, w in zip(scores, widths, strict=True))]
        if row.runner_up and row.lead is not None:
            verdict = f"{row.best} is better" if row.tells_apart else "cannot tell them apart"
            cells.append(f"{row.lead:.4f}   {row.p_value:.4f}   {verdict}")
        lines.append(mark + "  ".join(cells))
    lines.append(
        "  * the metric of the choice. Mean ± SD of the outer folds; best against runner-up by the corrected"
        "\n    resampled t-test, two-sided. recall, specificity, precision, f1 and accuracy are at a threshold that"
        "\n    was chosen without the fold. p is for one metric by itself; it is not corrected for there being several."
    )
    return "\n".join(lines)
