"""The commands of `python -m launcher`: up, status, logs, train, reproduce, down and reset."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from lab import http, ledger, problem, settings
from lab.errors import LabError
from lab.registry import Registry, Version
from lab.settings import ENV_FILE, SETTINGS, STATE, Settings
from launcher import docker, lock, pipeline, preflight, store
from launcher import engine as engines
from launcher.console import Progress, print_table
from launcher.engine import Engine

API_SECONDS = 60
# After each service has answered once, all must be healthy at the same time within this number of seconds.
WELL_SECONDS = 120


def up() -> None:
    """Start the lab, and train a first champion if there is none. A lab that is up is not changed.

    All checks are made before any service is stopped. Settings of the command line are written to `.env` once
    the lab is up.
    """
    changes = settings.from_command_line()
    values = settings.load(changes)
    engine, definition = engines.choose(values), problem.load(values.params_path)
    preflight.check_git()
    pipeline.check_place(values)
    fresh = settings.draw(values)
    changes |= fresh
    values = settings.load(changes)
    progress = Progress()
    by_itself = values.engine == "auto" and engine.NAME == "embedded" and shutil.which("docker")
    if by_itself and (fault := docker.fault()):
        progress.done(f"without containers: {fault.message}")
    engine.check(values)
    settings.remember(_lasting_settings(changes))
    if fresh:
        progress.done(f"wrote fresh secrets to {ENV_FILE}")
    if _to_be_trained(values, definition.name):
        engine.check_table(values, progress)
    engine.start(values, progress)
    for name, value in settings.remember(changes).items():
        progress.done(f"kept {name}={value} in .env")
    pipeline.prepare_stores(values)
    registry = Registry(values.tracking_url, definition.name)
    if champion := registry.champion():
        store.check(registry, champion, engine.store(values))
    else:
        progress.done("no champion yet: running the first pipeline")
        try:
            engine.train(values, ["--by", ledger.person()])
        finally:
            pipeline.configure_dvc(values)  # the container wrote the address that S3 has inside
        champion = registry.champion()
    if champion is None:
        raise LabError(
            f"no candidate of {definition.name} may be champion; the reasons are printed above",
            "lower choice.floors in params.yaml or add candidates, then run `make train`",
        )
    _wait_for_model(values, champion, progress)
    states = _wait_until_well(engine, values, progress)
    progress.done(f"{definition.title}: champion version {champion.number} is served")
    print()
    print_table(_table(engine, values, states))


def _to_be_trained(values: Settings, name: str) -> bool:
    """Whether `up` will train.

    It trains when the running lab has no champion of this problem. When no lab runs, the answer is true if the command
    line names another problem than `.env`.
    """
    try:
        return Registry(settings.load({}).tracking_url, name).champion() is None
    except LabError:  # nothing runs, or `.env` has a value that the command line replaces
        return values.params != settings.stored()["PARAMS"]


def _lasting_settings(changes: dict[str, str]) -> dict[str, str]:
    """The settings to save before the start, because the volumes depend on them: the project's name and new secrets."""
    before = settings.stored()
    first = {setting.name for setting in SETTINGS if setting.secret and not before[setting.name]}
    return {name: value for name, value in changes.items() if name in first | {"COMPOSE_PROJECT_NAME"}}


def status() -> int:
    """Print the table of services; return 0 when all services are healthy."""
    values = settings.load()
    engine = engines.present(values)
    states = engine.states(values)
    print_table(_table(engine, values, states))
    return 1 if _unwell(engine, values, states) else 0


def train(options: Sequence[str] = ()) -> None:
    """Run the pipeline and choose the champion, with the options of `trainer promote`."""
    values = settings.load()
    engine = engines.present(values)
    try:
        engine.train(values, options)
    finally:
        pipeline.configure_dvc(values)  # the container wrote the address that S3 has inside
    if engine.outdated(values):
        print("note: the services were started with other settings; `make up` restarts them with these")


def reproduce(version: int) -> int:
    """Rebuild a registered version, compare, and return 0 when both are the same."""
    values = settings.load()
    return engines.present(values).run_trainer(values, [*pipeline.REPRODUCE, str(version)])


def logs(name: str, follow: bool) -> None:
    """Print the end of the services' logs; with `follow`, go on until interrupted."""
    values = settings.load()
    engine = engines.present(values)
    names = [service.name for service in engine.services(values)]
    if name and name not in {*names, *engine.states(values)}:
        raise LabError(f"there is no service {name!r}", f"the services are {', '.join(names)}")
    selection = [name] if name else names
    for service in selection:
        print(f"── {service}\n{engine.log_end(values, service)}\n", flush=True)
    if follow:
        engine.follow(values, selection)


def down() -> None:
    """Stop everything and keep the state."""
    values = settings.load_to_stop()
    print("stopped; the state is kept" if engines.present(values).stop(values) else "nothing was running")


def reset(sure: bool) -> None:
    """Remove the state after asking: data, models, runs, ledger, logs. `.env` stays."""
    if not sure:
        question = f"This removes {STATE}: datasets, models, runs, ledger and logs. Type yes to go on: "
        if not sys.stdin.isatty():
            raise LabError("make reset asks before it removes the state", "without a terminal: make reset YES=1")
        if input(question).strip() != "yes":
            print("nothing was removed")
            return
    values = settings.load_to_stop()
    engines.present(values).remove(values)
    pipeline.remove_outputs(values)
    for path in STATE.glob("*"):
        if path != lock.PATH:  # the lock file is removed last, so that no other command starts before the end
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(STATE, ignore_errors=True)
    print("the state is removed; `make up` begins anew")


def _table(engine: Engine, values: Settings, states: dict[str, str]) -> list[list[str]]:
    """The rows of the table of services."""
    rows = [["service", "address", "state", "sign in"]]
    for service in engine.services(values):
        state = states.get(service.name, "down")
        if (service.name, state) == ("api", "up"):
            state = _served(values)
        rows.append([service.title, service.url(values), state, service.sign_in])
    return rows


def _unwell(engine: Engine, values: Settings, states: dict[str, str]) -> list[str]:
    """A phrase for each service that is not up."""
    state_of = {service.title: states.get(service.name, "down") for service in engine.services(values)}
    return [f"{title} is {state}" for title, state in state_of.items() if state != "up"]


def _wait_until_well(engine: Engine, values: Settings, progress: Progress) -> dict[str, str]:
    """Wait until `make status` shows every service up; return the states.

    Services become ready one after another, and training may take one down again.
    """
    deadline = time.monotonic() + WELL_SECONDS
    while faults := _unwell(engine, values, states := engine.states(values)):
        if time.monotonic() > deadline:
            raise LabError(", ".join(faults), "see `make logs`, then run `make up` again")
        progress.waiting(f"all services to be up: {', '.join(faults)}")
        time.sleep(1)
    return states


def _served(values: Settings) -> str:
    try:
        return f"up, version {http.get_json(values.api_url + '/readyz', timeout=2).get('version')}"
    except LabError:
        return "up, no model"


def _wait_for_model(values: Settings, champion: Version, progress: Progress) -> None:
    deadline, version = time.monotonic() + API_SECONDS, champion.number
    while True:
        try:
            answer = http.get_json(f"{values.api_url}/readyz", timeout=2)
            if (answer.get("name"), answer.get("version")) == (champion.model, version):
                return
        except LabError as error:
            why = error.message
        else:
            why = "it serves another version"
        if time.monotonic() > deadline:
            raise LabError(f"the API does not serve version {version}: {why}", "see `make logs SERVICE=api`")
        progress.waiting(f"the API to serve version {version}")
        time.sleep(1)
