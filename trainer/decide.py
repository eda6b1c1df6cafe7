"""The gate's reasoning, free of services: which candidate should be champion, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lab.card import Recipe
from lab.problem import LOSSES, Choice
from trainer.metrics import gain_of
from trainer.report import ranked
from trainer.store import Result

Action = Literal["promoted", "rejected", "unchanged"]


@dataclass(frozen=True)
class Champion:
    """The present champion: its recipe's scores on the folds of the present data."""

    recipe: Recipe
    fingerprint: str
    folds: dict[str, list[float]]


@dataclass(frozen=True)
class Decision:
    action: Action
    candidate: str
    reason: str
    figures: dict[str, Any]


def same_recipe(a: Recipe, b: Recipe) -> bool:
    return (a.estimator, a.settings, a.grid) == (b.estimator, b.settings, b.grid)


def obstacles(result: Result, choice: Choice) -> list[str]:
    """Why a candidate may not be champion: no faithful ONNX, or a floor it does not reach."""
    found = [result.refused] if result.refused else []
    for metric, floor in choice.floors.items():
        mean = result.mean(metric)
        if mean > floor if metric in LOSSES else mean < floor:
            found.append(f"{metric} {mean:.4f} does not reach the floor {floor:g}")
    return found


def decide(
    results: dict[str, Result], champion: Champion | None, choice: Choice, folds: int, *, lost: bool = False
) -> Decision:
    """Compare the best candidate that may be champion with the present one.

    A candidate of another recipe must be better by the corrected resampled t-test at `choice.alpha`; the
    champion's own recipe, refitted on changed data, parameters or code, follows without a test, for on the
    same folds it is the champion. Without a champion, or when its package is `lost`, there is no comparison.
    """
    barred = {name: why for name, result in results.items() if (why := obstacles(result, choice))}
    allowed = {name: result for name, result in results.items() if name not in barred}
    figures: dict[str, Any] = {"barred": barred}
    if not allowed:
        best = ranked(results, choice.metric)[0]
        return Decision("rejected", best, f"no candidate may be champion: {'; '.join(barred[best])}", figures)
    winner = ranked(allowed, choice.metric)[0]
    score = f"{choice.metric} {allowed[winner].mean(choice.metric):.4f}"
    if champion is None:
        cause = "the champion's package is not sound" if lost else "first champion"
        return Decision("promoted", winner, f"{cause}; best candidate by {score}", figures)
    if allowed[winner].fingerprint == champion.fingerprint:
        return Decision("unchanged", winner, "same data, parameters and code as the champion", figures)
    if same_recipe(allowed[winner].recipe, champion.recipe):
        return Decision("promoted", winner, f"the champion's recipe, refitted; still the best by {score}", figures)
    lead = gain_of(choice.metric, allowed[winner].folds[choice.metric], champion.folds[choice.metric], folds)
    figures |= {"gain_over_champion": lead.gain, "p_value": lead.p_value}
    versus = f"{score}, {lead.gain:+.4f} against the champion's recipe on the same folds, p = {lead.p_value:.4f}"
    if lead.gain > 0 and lead.tells_apart(choice.alpha):
        return Decision("promoted", winner, f"better than the champion: {versus}", figures)
    for name, result in allowed.items():
        if same_recipe(result.recipe, champion.recipe) and result.fingerprint != champion.fingerprint:
            kept = f"{winner} is not shown to be better ({versus}); the champion's recipe is refitted"
            return Decision("promoted", name, kept, figures)
    return Decision("rejected", winner, f"not shown to be better than the champion: {versus}", figures)
