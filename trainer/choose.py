"""Choose the champion: compare, decide, promote or reject, and enter it in the ledger."""

from __future__ import annotations

import getpass
from typing import Any, Literal

import msgspec
import pandas as pd

from lab import card as cards
from lab import ledger, trial
from lab.errors import LabError
from lab.http import RefusedError, UnreachableError
from lab.problem import Candidate, Choice, Problem
from lab.registry import PACKAGE, Registry, Version
from lab.settings import Settings
from trainer import lineage, report
from trainer.cluster import backend
from trainer.decide import Champion, Decision, decide, same_recipe
from trainer.evaluate import evaluate, table
from trainer.ingest import md5
from trainer.recipe import check_estimator
from trainer.record import record
from trainer.store import Paths, Result, read_results
from trainer.train import dataset

# The entry that promoted a version is kept with it, so that a ledger write that failed can be made up for.
DECISION = "lab.decision"


def choose(settings: Settings, problem: Problem, paths: Paths, choice: Choice) -> Decision:
    """Promote the best candidate, or reject it, or find that nothing is new.

    Raises LabError when a service is away; then the champion is the one before, and running it again finishes
    what was begun: the order is package, version, alias, ledger.
    """
    frame = dataset(problem, paths)
    results = read_results(paths)
    _check_fresh(problem, paths, results)
    registry = Registry(settings.mlflow_url, problem.name)
    entries = ledger.read(settings, problem.name)
    version = registry.champion()
    if version:
        _make_up_ledger(settings, version, entries)
    champion = _champion(settings, problem, registry, version, results, frame) if version else None
    sound = {name: _sound(registry, result.fingerprint) for name, result in results.items()}
    lost = {name for name, found in sound.items() if found is False}
    runs = record(settings, problem, paths, frame, results, anew=lost)
    comparison = report.compare_all(results, problem.evaluation.folds, choice.alpha)
    print(report.render(comparison, choice.metric))
    lost_champion = version is not None and champion is None
    decision = decide(results, champion, choice, problem.evaluation.folds, lost=lost_champion)
    entry = _entry(problem, choice, decision, comparison, results[decision.candidate], version)
    if decision.action == "rejected":
        if not any(_repeats(entry, old) for old in entries):
            ledger.write(settings, entry)
    elif decision.action == "promoted":
        name = decision.candidate
        promoted = _promote(settings, registry, sound[name] or _register(registry, results[name], runs[name]), entry)
        print(f"champion: {problem.name} version {promoted.number}")
    print(f"{decision.action}: {decision.candidate} — {decision.reason}")
    return decision


def _check_fresh(problem: Problem, paths: Paths, results: dict[str, Result]) -> None:
    data_md5 = md5(paths.dataset)
    wanted = {n: lineage.fingerprint(problem, c, data_md5) for n, c in problem.candidates.items()}
    if wanted != {name: result.fingerprint for name, result in results.items()}:
        raise LabError(
            "the trained models are older than the data, the parameters or the code",
            "run `make train` first",
        )


def _champion(
    settings: Settings,
    problem: Problem,
    registry: Registry,
    version: Version,
    results: dict[str, Result],
    frame: pd.DataFrame,
) -> Champion | None:
    """The champion on the present folds: a candidate's own scores if it is one, else evaluated now.

    None when its package is lost, altered or of another schema: it cannot be served either, and must not keep
    another from being.
    """
    card = _card(registry, version)
    if card is None:
        print(f"note: the package of version {version.number}, the champion, is not sound; it is not compared with")
        return None
    folds = next((r.folds for r in results.values() if same_recipe(r.recipe, card.recipe)), None)
    if folds is None:
        recipe = card.recipe
        try:
            check_estimator(recipe.estimator)
        except LabError as error:
            print(f"note: candidates are not compared with version {version.number}, the champion: {error.message}")
            return None
        candidate = Candidate(estimator=recipe.estimator, settings=recipe.settings, grid=recipe.grid)
        with backend(settings["DASK_SCHEDULER_ADDRESS"]):
            folds = evaluate(problem, {recipe.candidate: candidate}, table(problem, frame))[recipe.candidate].folds
    return Champion(card.recipe, card.lineage.fingerprint, folds)


def _entry(
    problem: Problem,
    choice: Choice,
    decision: Decision,
    comparison: list[dict[str, Any]],
    result: Result,
    champion: Version | None,
) -> ledger.Entry:
    return ledger.Entry(
        at=ledger.now(),
        decision="promoted" if decision.action == "promoted" else "rejected",
        by=getpass.getuser(),
        model=problem.name,
        candidate=decision.candidate,
        fingerprint=result.fingerprint,
        from_version=champion.number if champion else None,
        to_version=champion.number if champion else None,
        metric=choice.metric,
        figures={**decision.figures, "comparison": comparison},
        reason=decision.reason,
    )


def _repeats(entry: ledger.Entry, old: ledger.Entry) -> bool:
    """Whether the same candidate was rejected for the same reason against the same champion before."""
    return msgspec.structs.replace(entry, at=old.at, by=old.by) == old


def _card(registry: Registry, version: Version) -> cards.Card | None:
    """The card of a version if the API would serve it, else None. Raises LabError when the registry does not answer."""
    try:
        text, model = registry.download(version)
        return trial.verify(registry.model, text, model)
    except UnreachableError:
        raise
    except RefusedError as error:
        if error.status != 404:
            raise
        return None
    except LabError as error:
        print(f"note: version {version.number} is not sound: {error.message}")
        return None


def _sound(registry: Registry, fingerprint: str) -> Version | Literal[False] | None:
    """The version made from a recipe: None when there is none, False when its package is not sound."""
    version = registry.find(fingerprint)
    return version if version is None or _card(registry, version) else False


def _promote(settings: Settings, registry: Registry, version: Version, entry: ledger.Entry) -> Version:
    if _card(registry, version) is None:  # what will be served, read back before it is
        raise LabError(f"the package of version {version.number} is not what was stored", "run `make train` again")
    entry = msgspec.structs.replace(entry, to_version=version.number)
    registry.tag(version, DECISION, _short(entry))
    registry.promote(version)
    ledger.write(settings, entry)
    return version


def _register(registry: Registry, result: Result, run_id: str) -> Version:
    path = f"{registry.run_artifacts(run_id)}/{PACKAGE}"
    return registry.register(run_id, path, {"fingerprint": result.fingerprint, "candidate": result.recipe.candidate})


def _short(entry: ledger.Entry) -> str:
    """The entry without its figures: a tag has little room."""
    return msgspec.json.encode(msgspec.structs.replace(entry, figures={})).decode()


def _make_up_ledger(settings: Settings, champion: Version, entries: list[ledger.Entry]) -> None:
    """Write the entry of a promotion that was cut short between the alias and the ledger."""
    if DECISION not in champion.tags:
        return
    entry = msgspec.json.decode(champion.tags[DECISION], type=ledger.Entry)
    if not any(old.at == entry.at for old in entries):
        ledger.write(settings, entry)
