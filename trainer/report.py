"""What the candidates' scores say, metric by metric: which metrics can tell them apart at all."""

from __future__ import annotations

from typing import Any

from lab.problem import LOSSES
from trainer.metrics import SCORERS, gain_of
from trainer.store import Result


def ranked(results: dict[str, Result], metric: str) -> list[str]:
    """The candidates' names, the best in this metric first."""
    return sorted(results, key=lambda name: results[name].mean(metric), reverse=metric not in LOSSES)


def compare_all(results: dict[str, Result], folds: int, alpha: float) -> list[dict[str, Any]]:
    """A row a metric: mean and SD of each candidate, and the best against the runner-up."""
    rows = []
    for metric in SCORERS:
        best, *others = ranked(results, metric)
        row: dict[str, Any] = {
            "metric": metric,
            "scores": {n: {"mean": r.mean(metric), "sd": r.sd(metric)} for n, r in results.items()},
            "best": best,
        }
        if others:
            lead = gain_of(metric, results[best].folds[metric], results[others[0]].folds[metric], folds)
            row |= {
                "runner_up": others[0],
                "lead": lead.gain,
                "p_value": lead.p_value,
                "tells_apart": lead.tells_apart(alpha),
            }
        rows.append(row)
    return rows


def render(rows: list[dict[str, Any]], metric: str) -> str:
    """The comparison as text, the metric of the choice marked."""
    names = list(rows[0]["scores"])
    widths = [max(len(name), 17) for name in names]
    head = ["metric".ljust(18), *(n.ljust(w) for n, w in zip(names, widths, strict=True)), "lead     p        verdict"]
    lines = ["  " + "  ".join(head)]
    for row in rows:
        mark = "* " if row["metric"] == metric else "  "
        scores = [f"{row['scores'][n]['mean']:.4f} ± {row['scores'][n]['sd']:.4f}" for n in names]
        cells = [row["metric"].ljust(18), *(s.ljust(w) for s, w in zip(scores, widths, strict=True))]
        if "runner_up" in row:
            verdict = f"{row['best']} is better" if row["tells_apart"] else "cannot tell them apart"
            cells.append(f"{row['lead']:.4f}   {row['p_value']:.4f}   {verdict}")
        lines.append(mark + "  ".join(cells))
    lines.append(
        "  * the metric of the choice. Mean ± SD of the outer folds; best against runner-up by the corrected"
        "\n    resampled t-test. recall, precision, f1 and accuracy call a row positive from 0.5 on.\n    p is for"
        " one metric by itself, best against second on the grids declared; it is not corrected for there being several."
    )
    return "\n".join(lines)
