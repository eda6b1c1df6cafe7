"""Choose the champion: compare, decide, promote, hold or reject, and write the decision to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import msgspec

from lab import champion, ledger
from lab.card import recipe_sha256
from lab.errors import LabError
from lab.ledger import Ledger
from lab.problem import Choice, Problem
from lab.registry import PACKAGE, Registry, Version
from lab.settings import Settings
from trainer import announce, incumbent, lineage, report
from trainer.gate import Decision, decide
from trainer.ingest import md5
from trainer.mlflow_runs import record, trainings
from trainer.results import Paths, Result, read_results
from trainer.train import dataset

E = TypeVar("E", bound=ledger.Entry)


@dataclass(frozen=True)
class Person:
    """The person who runs the choice. `accept` promotes a held candidate; `retry` lets rolled-back recipes compete."""

    name: str
    accept: bool = False
    retry: bool = False


def promote(settings: Settings, problem: Problem, paths: Paths, choice: Choice, person: Person) -> Decision:
    """Promote, hold or reject the best candidate, or change nothing when it is the present champion.

    Raises LabError when a service is away or the ledger is damaged, and ConflictError when the champion changed
    meanwhile. A second run finishes an interrupted one, because the steps have a fixed order: package, version,
    ledger, alias.
    """
    frame = dataset(problem, paths)
    results = read_results(paths)
    check_fresh(problem, paths, results)
    registry, book = Registry(settings.tracking_url, problem.name), Ledger(settings, problem.name)
    entries = _entries(book)
    version = champion.settle(book, registry)
    package = incumbent.load(registry, version) if version else None
    present = incumbent.on_present_data(settings, problem, package, results, frame) if package else None
    sound = {name: _sound(registry, result.fingerprint) for name, result in results.items()}
    unsound = {name for name, registered in sound.items() if registered is False}
    runs = record(settings, problem, paths, frame, results, anew=unsound)
    forward = problem.evaluation.split == "time"
    comparison = report.compare_all(results, problem.evaluation.folds, choice, forward=forward)
    print(report.render(comparison, choice.metric))
    rolled_back = _rolled_back(entries, results)

    def holds(name: str) -> list[str]:
        if package is None:
            return []
        return incumbent.holds(settings, problem, paths, registry, package, results[name], frame)

    decision = decide(
        results,
        present,
        choice,
        problem.evaluation.folds,
        forward=forward,
        unsound=version is not None and package is None,
        rolled_back={} if person.retry else rolled_back,
        holds=holds,
        accept=person.accept,
    )
    result = results[decision.candidate]
    count = trainings(settings, problem, result.data_md5)
    decision = replace(
        decision, figures=msgspec.structs.replace(decision.figures, comparison=comparison, trainings=count)
    )
    expected = version.number if version else None
    if decision.action in ("promoted", "forced"):
        candidate = sound[decision.candidate] or _register(registry, result, runs[decision.candidate])
        entry = _promotion(person, registry.model, decision, result, retry=decision.candidate in rolled_back)
        announce.decision(settings, _move(book, registry, candidate, expected, entry))
    elif decision.action != "unchanged":
        note = _refusal(person, registry.model, decision, result, expected)
        if not any(_repeats(note, old) for old in entries):
            announce.decision(settings, champion.note(book, registry, expected, note))
    if version and decision.missed_floors:
        announce.missed_floors(settings, problem.name, version.number, list(decision.missed_floors))
    _report(decision)
    return decision


def _entries(book: Ledger) -> list[ledger.AnyEntry]:
    """Every entry; raises LabError when one is damaged, because the rule about rolled-back recipes needs all."""
    listing = book.read()
    if listing.damaged:
        raise ledger.damage(listing.damaged)
    return listing.entries


def check_fresh(problem: Problem, paths: Paths, results: dict[str, Result]) -> None:
    """Raise LabError unless the results are those of the present data, parameters, code and packages."""
    data_md5 = md5(paths.dataset)
    fingerprints = {n: lineage.fingerprint(problem, c, data_md5) for n, c in problem.candidates.items()}
    if fingerprints != {name: result.fingerprint for name, result in results.items()}:
        raise LabError(
            "the trained models are older than the data, the parameters, the code or the packages",
            "run `make train` first",
        )


def _rolled_back(entries: Sequence[ledger.AnyEntry], results: dict[str, Result]) -> dict[str, str]:
    """The candidates whose recipe was rolled back on these data and not promoted again by a person, with the reason."""
    reasons = {}
    for name, result in results.items():
        for entry in entries:
            if (entry.subject.recipe_sha256, entry.subject.data_md5) != (recipe_sha256(result.recipe), result.data_md5):
                continue
            if isinstance(entry, ledger.RolledBack):
                reasons[name] = (
                    f"its recipe was rolled back on these data by {entry.by} at {entry.at} ({entry.reason}); "
                    "`make train RETRY=1` lets it compete again"
                )
            elif isinstance(entry, ledger.Promoted | ledger.Forced) and entry.retry:
                reasons.pop(name, None)
    return reasons


def _promotion(
    person: Person, model: str, decision: Decision, result: Result, retry: bool
) -> ledger.Promoted | ledger.Forced:
    kind: type[ledger.Promoted | ledger.Forced]
    kind = ledger.Promoted if decision.action == "promoted" else ledger.Forced
    return msgspec.structs.replace(_entry(kind, person, model, decision, result), retry=retry)


def _refusal(
    person: Person, model: str, decision: Decision, result: Result, number: int | None
) -> ledger.Held | ledger.Rejected:
    """The entry of a decision that leaves version `number` the champion."""
    kind: type[ledger.Held | ledger.Rejected] = ledger.Held if decision.action == "held" else ledger.Rejected
    entry = _entry(kind, person, model, decision, result)
    return msgspec.structs.replace(entry, from_version=number, to_version=number)


def _entry(kind: type[E], person: Person, model: str, decision: Decision, result: Result) -> E:
    subject = ledger.Subject(
        candidate=result.recipe.candidate,
        fingerprint=result.fingerprint,
        recipe_sha256=recipe_sha256(result.recipe),
        data_md5=result.data_md5,
    )
    return kind(by=person.name, model=model, reason=decision.reason, subject=subject, figures=decision.figures)


def _repeats(entry: ledger.Held | ledger.Rejected, old: ledger.AnyEntry) -> bool:
    """Whether `old` is the same decision: it differs only in id, number, time and user."""
    return msgspec.structs.replace(entry, id=old.id, number=old.number, at=old.at, by=old.by) == old


def _sound(registry: Registry, fingerprint: str) -> Version | Literal[False] | None:
    """The version made from a recipe: None when there is none, False when its package is not sound."""
    version = registry.find(fingerprint)
    return version if version is None or incumbent.load(registry, version) else False


def _move(
    book: Ledger, registry: Registry, version: Version, expected: int | None, entry: ledger.Promoted | ledger.Forced
) -> ledger.Entry:
    if incumbent.load(registry, version) is None:  # the package is read back from the registry before it is served
        raise LabError(f"the package of version {version.number} differs from the stored one", "run `make train` again")
    entry_written = champion.move(book, registry, version.number, expected, entry)
    print(f"champion: {registry.model} version {version.number}")
    return entry_written


def _register(registry: Registry, result: Result, run_id: str) -> Version:
    path = f"{registry.run_artifacts(run_id)}/{PACKAGE}"
    return registry.register(run_id, path, {"fingerprint": result.fingerprint, "candidate": result.recipe.candidate})


def _report(decision: Decision) -> None:
    print(f"{decision.action}: {decision.candidate} — {decision.reason}")
    if decision.action == "held":
        print(
            "  What to do: look at the new rows and labels; `make train ACCEPT=1` promotes the candidate all the same"
        )
