"""The decision of the gate: the candidate that should be champion, and the reason. The module uses no service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from lab.card import Promise, Recipe, recipe_sha256
from lab.ledger import Figures
from lab.problem import LOSSES, Choice, Metric
from trainer.report import ranked
from trainer.results import Result
from trainer.significance import lead_of

Action = Literal["promoted", "forced", "held", "rejected", "unchanged"]
# A function from the name of a candidate to the reasons why a person must decide on its promotion.
Holds = Callable[[str], list[str]]


@dataclass(frozen=True)
class Champion:
    """The present champion, with its recipe's scores and promises on the present data.

    When the recipe can no longer be evaluated, `fault` has the reason, and there are no scores.
    """

    recipe: Recipe
    fingerprint: str
    data_md5: str
    folds: Mapping[str, Sequence[float]]
    promises: Mapping[str, Promise]
    fault: str = ""


@dataclass(frozen=True)
class Decision:
    action: Action
    candidate: str
    reason: str
    figures: Figures
    # The floors that the present champion does not reach on the present data.
    missed_floors: Sequence[str] = ()


def same_recipe(a: Recipe, b: Recipe) -> bool:
    return recipe_sha256(a) == recipe_sha256(b)


def missed_floors(promises: Mapping[str, Promise], floors: Mapping[Metric, float]) -> list[str]:
    """A phrase for each floor that is not reached. A metric that is NaN reaches no floor."""
    phrases = []
    for metric, floor in floors.items():
        value = promises[metric].value
        if not (value <= floor if metric in LOSSES else value >= floor):
            phrases.append(f"{metric} {value:.4f} does not reach the floor {floor:g}")
    return phrases


def decide(
    results: Mapping[str, Result],
    champion: Champion | None,
    choice: Choice,
    folds: int,
    *,
    forward: bool = False,
    unsound: bool = False,
    rolled_back: Mapping[str, str] | None = None,
    holds: Holds = lambda _: [],
    accept: bool = False,
) -> Decision:
    """Compare the best candidate that may be champion with the present one.

    A candidate may be champion when the API would serve it, it reaches the floors, and its recipe was not `rolled_back`
    on these data (a reason by candidate). A candidate of another recipe must be better by the corrected resampled
    t-test: at `choice.alpha` divided by the number of such candidates, and by `choice.delta`. A champion that does not
    reach the floors itself is replaced without a test. A promotion over a champion is held for a person when `holds`
    gives reasons; with `accept`, the person's promotion is forced. An evaluation `forward` in time has too few tests
    for the t-test: a candidate of another recipe needs the lead of `choice.delta` only, and its promotion is always
    held. Without a champion, or with one whose package is `unsound`, the best candidate becomes champion without a
    comparison.
    """
    barred = {
        name: reasons
        for name, result in results.items()
        if (reasons := _obstacles(result, choice, (rolled_back or {}).get(name)))
    }
    contenders = {name: result for name, result in results.items() if name not in barred}
    missed = missed_floors(champion.promises, choice.floors) if champion and champion.promises else []
    figures = Figures(metric=choice.metric, alpha=choice.alpha, barred=barred)
    if not contenders:
        best = ranked(results, choice.metric)[0]
        return Decision("rejected", best, f"no candidate may be champion: {'; '.join(barred[best])}", figures, missed)
    winner = ranked(contenders, choice.metric)[0]
    figures = msgspec.structs.replace(figures, score=contenders[winner].mean(choice.metric))
    if champion is None:
        cause = "the champion's package is not sound" if unsound else "first champion"
        reason = f"{cause}; best candidate by {choice.metric} {contenders[winner].mean(choice.metric):.4f}"
        return Decision("promoted", winner, reason, figures)
    against = _against(champion, contenders, winner, choice, folds, figures, missed, forward)
    decision = replace(against, missed_floors=missed)
    if decision.action != "promoted":
        return decision
    return _hold(decision, contenders, champion, holds, accept=accept, forward=forward)


def _obstacles(result: Result, choice: Choice, rolled_back: str | None) -> list[str]:
    """The reasons why a candidate may not be champion."""
    refusals = [reason for reason in (result.refusal, rolled_back) if reason]
    return refusals + missed_floors(result.promises, choice.floors)


def _against(
    champion: Champion,
    allowed: Mapping[str, Result],
    winner: str,
    choice: Choice,
    folds: int,
    figures: Figures,
    missed: list[str],
    forward: bool,
) -> Decision:
    """The decision between `winner`, the best of the `allowed` candidates, and the champion."""
    result = allowed[winner]
    score = f"{choice.metric} {result.mean(choice.metric):.4f}"
    if result.fingerprint == champion.fingerprint:
        return Decision("unchanged", winner, "same data, parameters and code as the champion", figures)
    if same_recipe(result.recipe, champion.recipe):
        return Decision("promoted", winner, f"the champion's recipe, refitted; still the best by {score}", figures)
    if champion.fault:
        return Decision("promoted", winner, f"best candidate by {score}; {champion.fault}", figures)
    alpha = choice.alpha / sum(not same_recipe(each.recipe, champion.recipe) for each in allowed.values())
    lead = lead_of(choice.metric, result.folds[choice.metric], champion.folds[choice.metric], folds)
    versus = f"{score}, {lead.gain:+.4f} against the champion's recipe on the same folds"
    if forward:
        figures = msgspec.structs.replace(figures, gain=lead.gain)
        shown, versus = lead.gain >= choice.delta, f"{versus} (required: a lead of {choice.delta:g})"
    else:
        figures = msgspec.structs.replace(figures, gain=lead.gain, p_value=lead.p_value, alpha=alpha)
        shown = lead.is_shown(alpha, choice.delta)
        versus += f", p = {lead.p_value:.4f} (required: p below {alpha:g} and a lead of {choice.delta:g})"
    if missed:
        reason = f"the champion does not reach its floors ({'; '.join(missed)}); best candidate by {versus}"
        return Decision("promoted", winner, reason, figures)
    if shown:
        return Decision("promoted", winner, f"better than the champion: {versus}", figures)
    for name, other in allowed.items():
        if same_recipe(other.recipe, champion.recipe) and other.fingerprint != champion.fingerprint:
            reason = f"{winner} is not shown to be better ({versus}); the champion's recipe is refitted"
            return Decision("promoted", name, reason, figures)
    return Decision("rejected", winner, f"not shown to be better than the champion: {versus}", figures)


def _hold(
    decision: Decision,
    allowed: Mapping[str, Result],
    champion: Champion,
    holds: Holds,
    *,
    accept: bool,
    forward: bool,
) -> Decision:
    """Hold a promotion over a champion for a person, if there is a reason to."""
    reasons = [champion.fault] if champion.fault else []
    result = allowed[decision.candidate]
    if forward and not same_recipe(result.recipe, champion.recipe):
        reasons.append(f"{len(result.folds[decision.figures.metric])} tests forward in time are too few for the t-test")
    if result.data_md5 != champion.data_md5:
        reasons += holds(decision.candidate)
    if not reasons:
        return decision
    figures = msgspec.structs.replace(decision.figures, holds=reasons)
    why = "; ".join(reasons)
    if accept:
        return replace(
            decision, action="forced", figures=figures, reason=f"accepted, although {why}; {decision.reason}"
        )
    return replace(decision, action="held", figures=figures, reason=f"{why}; otherwise: {decision.reason}")
