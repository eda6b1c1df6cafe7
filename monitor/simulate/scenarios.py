"""The scenarios of `make simulate`, and the tables with their figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.promise import limit
from monitor.simulate.baselines import BASELINES
from monitor.simulate.evidence import DELTA
from monitor.simulate.rollback import LIMITS, SHARE, Times, World, healthy, posterior, simulate

RULES = ("promise", "previous better", "rollback")
# Recall falls to .80 and accuracy to .85.
RECALL, ACCURACY = 0.80, 0.85
WORSE = (1 - RECALL, 1 - (ACCURACY - SHARE * RECALL) / (1 - SHARE))
# The champion has recall .95 and specificity .90, the previous version .70 and .99, and positives are 10 %.
_CHAMPION, _PREVIOUS = (0.05, 0.10), (0.30, 0.01)
TRADES = {
    "only the promised recall is broken": World(
        _CHAMPION, _PREVIOUS, 0.1, (limit(10, 1_000, DELTA), limit(46, 458, DELTA))
    ),
    "both promises are broken": World(_CHAMPION, _PREVIOUS, 0.1, LIMITS),
}


@dataclass(frozen=True)
class Results:
    """Times by scenario: healthy champions by rates and labels, falls by quiet labels, trades by name."""

    runs: int
    quiet: dict[tuple[str, int], Times]
    falls: dict[int, Times]
    trades: dict[str, Times]


def run(runs: int, seed: int, short: bool = False) -> Results:
    """Run all scenarios; `short` takes a tenth of the labels."""
    part = 10 if short else 1
    generator = np.random.default_rng(seed)
    rates = {"drawn from Beta(f+1, n−f)": posterior(runs, generator), "at the limit": LIMITS}
    quiet = {}
    for name, pair in rates.items():
        world = World(pair, pair)
        for labels in (10_000 // part, 100_000 // part):
            quiet[name, labels] = simulate(world, world, 0, labels, runs, generator, others=labels < 100_000 // part)
    well, ill = World(healthy(), healthy()), World(WORSE, healthy())
    falls = {
        before // part: simulate(well, ill, before // part, 2_000, runs, generator, others=not before)
        for before in (0, 1_000, 5_000)
    }
    trades = {name: simulate(world, world, 0, 10_000 // part, runs, generator) for name, world in TRADES.items()}
    return Results(runs, quiet, falls, trades)


def page(results: Results) -> str:
    """The tables in Markdown."""
    return "\n".join([*_quiet(results), "", *_falls(results), "", *_trades(results)]) + "\n"


def _quiet(results: Results) -> list[str]:
    names = (*RULES, *BASELINES)
    lines = [
        f"**False rollbacks.** A healthy champion, {results.runs:,} runs: the share of runs with a decision.",
        "",
        f"| true rates of errors | labels | {' | '.join(names)} |",
        f"|---|---:|{'---:|' * len(names)}",
    ]
    for (rates, labels), times in results.quiet.items():
        cells = [f"{times.share(name):.1%}" if name in times.first else "" for name in names]
        lines.append(f"| {rates} | {labels:,} | {' | '.join(cells)} |")
    return lines


def _falls(results: Results) -> list[str]:
    names = (*RULES, *BASELINES)
    lines = [
        "**Labels until a decision.** Recall falls from .988 to .80, and accuracy to .85; median / 95th percentile.",
        "",
        f"| healthy labels before | {' | '.join(names)} |",
        f"|---:|{'---:|' * len(names)}",
    ]
    for quiet, times in results.falls.items():
        cells = [
            f"{times.quantile(name, 0.5):.0f} / {times.quantile(name, 0.95):.0f}" if name in times.first else ""
            for name in names
        ]
        lines.append(f"| {quiet:,} | {' | '.join(cells)} |")
    return lines


def _trades(results: Results) -> list[str]:
    lines = [
        "**A previous version that is no better.** Champion: recall .95, specificity .90. Previous version: "
        "recall .70, specificity .99. Positives: 10 %. The share of runs with a decision:",
        "",
        f"| | {' | '.join(RULES)} |",
        f"|---|{'---:|' * len(RULES)}",
    ]
    for name, times in results.trades.items():
        lines.append(f"| {name} | {' | '.join(f'{times.share(rule):.1%}' for rule in RULES)} |")
    return lines
