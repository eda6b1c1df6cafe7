"""The scenarios of `make simulate`, and the tables with their figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.promise import limit
from monitor.simulate.baselines import BASELINES
from monitor.simulate.evidence import DELTA
from monitor.simulate.rollback import LIMITS, SHARE, Times, World, healthy, posterior, simulate

RULES = ("promise", "previous better", "rollback")


def _rates(recall: float, accuracy: float) -> tuple[float, float]:
    """The shares of failures of both classes that give this recall and accuracy."""
    return 1 - recall, 1 - (accuracy - SHARE * recall) / (1 - SHARE)


# Recall falls to .80 and accuracy to .85. Before, both versions fail at one of these rates; the previous version keeps
# them.
WORSE = _rates(0.80, 0.85)
BEFORE = {"those of the card": healthy(), "recall .98, accuracy .965": _rates(0.98, 0.965)}
QUIET = (0, 1_000, 5_000)
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
    """Times by scenario: healthy champions by rates and labels, falls by rates and healthy labels, trades by name."""

    runs: int
    quiet: dict[tuple[str, int], Times]
    falls: dict[tuple[str, int], Times]
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
            quiet[name, labels] = simulate(world, world, 0, labels, runs, generator, others=True)
    falls = {
        (name, before // part): simulate(
            World(pair, pair), World(WORSE, pair), before // part, 2_000, runs, generator, others=True
        )
        for name, pair in BEFORE.items()
        for before in QUIET
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
        cells = [f"{times.share(name):.1%}" for name in names]
        lines.append(f"| {rates} | {labels:,} | {' | '.join(cells)} |")
    return lines


def _falls(results: Results) -> list[str]:
    names = (*RULES, *BASELINES)
    lines = [
        "**Labels until a decision.** Recall falls to .80, and accuracy to .85; median / 95th percentile over the runs "
        "without a decision before, and the share of runs with one.",
        "",
        f"| rates before | healthy labels | {' | '.join(names)} |",
        f"|---|---:|{'---:|' * len(names)}",
    ]
    for (rates, quiet), times in results.falls.items():
        lines.append(f"| {rates} | {quiet:,} | {' | '.join(_delay(times, name) for name in names)} |")
    return lines


def _delay(times: Times, rule: str) -> str:
    early = times.early(rule)
    if early == 1:
        return "all before"
    text = f"{times.quantile(rule, 0.5):.0f} / {times.quantile(rule, 0.95):.0f}"
    return f"{text} ({early:.1%} before)" if early else text


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
