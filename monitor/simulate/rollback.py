"""The scenarios of the rollback: false ones, the delay to a true one, and a previous version that is no better."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from monitor.promise import limit
from monitor.simulate.baselines import BASELINES, Baseline
from monitor.simulate.evidence import DELTA, Flags, Floats, Rule

# Failures and rows behind the promises of positives and negatives, and the share of positives, of the worked example.
POSITIVES, NEGATIVES, SHARE = (3, 241), (16, 458), 0.345
LIMITS = (limit(*POSITIVES, DELTA), limit(*NEGATIVES, DELTA))
NEVER = -1
Rates = tuple[Floats | float, Floats | float]


@dataclass(frozen=True)
class World:
    """The chances that the champion and the previous version fail on a positive and on a negative record."""

    champion: Rates
    previous: Rates
    share: float = SHARE
    limits: tuple[float, float] = LIMITS


@dataclass
class Times:
    """For each rule, the number of the label at which it decides in each run, or NEVER; shape (runs,)."""

    first: dict[str, Floats] = field(default_factory=dict)

    def share(self, rule: str) -> float:
        """The share of runs in which the rule decides."""
        return float((self.first[rule] != NEVER).mean())

    def early(self, rule: str) -> float:
        """The share of runs in which the rule decides before the change."""
        return float((self.first[rule] == 0).mean())

    def quantile(self, rule: str, q: float) -> float:
        """A quantile of the number of labels in the runs that do not decide before the change.

        It is infinite when so few runs decide, and NaN when all decide before.
        """
        first = self.first[rule][self.first[rule] != 0]
        if not len(first):
            return float("nan")
        times = np.where(first == NEVER, np.inf, first)
        return float(np.quantile(times, q, method="higher"))


def healthy() -> Rates:
    """The rates of failures that the card states."""
    return POSITIVES[0] / POSITIVES[1], NEGATIVES[0] / NEGATIVES[1]


def posterior(runs: int, generator: np.random.Generator) -> Rates:
    """Rates drawn from what the card's counts leave open: Beta(f + 1, n - f), one pair for each run."""
    first, second = (generator.beta(f + 1, n - f, runs) for f, n in (POSITIVES, NEGATIVES))
    return first, second


def simulate(
    before: World,
    after: World,
    quiet: int,
    labels: int,
    runs: int,
    generator: np.random.Generator,
    others: bool = False,
) -> Times:
    """Run `quiet` labels of one world and then `labels` of another; the times count from the change.

    With `others`, the other methods run beside the rules. A run in which a rule decides before the change has the time
    0. All errors are independent.
    """
    rule = Rule(runs, before.limits)
    methods: dict[str, Baseline] = {name: make(runs) for name, make in BASELINES.items()} if others else {}
    names = ("promise", "previous better", "rollback", *methods)
    times = Times({name: np.full(runs, float(NEVER)) for name in names})
    for number in range(quiet + labels):
        world = before if number < quiet else after
        positive = generator.random(runs) < world.share
        failed, previous = (_draw(rates, positive, generator) for rates in (world.champion, world.previous))
        rule.add(positive, failed, previous)
        for method in methods.values():
            method.add(failed)
        decided = (rule.alarmed, rule.ahead, rule.rolled_back, *(method.alarmed for method in methods.values()))
        for name, flags in zip(names, decided, strict=True):
            first = times.first[name]
            first[flags & (first == NEVER)] = max(number + 1 - quiet, 0)
    return times


def _draw(rates: Rates, positive: Flags, generator: np.random.Generator) -> Flags:
    failed: Flags = generator.random(len(positive)) < np.where(positive, rates[0], rates[1])
    return failed
