"""`up`, `status`, `logs`, `down`, `reset`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from lab import engine, http, pipeline, preflight, problem, settings
from lab.console import Progress, table
from lab.errors import LabError
from lab.registry import Registry, Version
from lab.services import SERVICES, Service
from lab.settings import ENV_FILE, STATE, Settings

API_SECONDS = 60
STARTS = 4


def up() -> None:
    """Bring the lab up, and a first champion with it; harmless when it is up."""
    values = settings.load()
    chosen, stated = engine.choose(values), problem.load(values.params)
    preflight.check_git()
    progress = Progress()
    if settings.create_env():
        progress.done(f"wrote {ENV_FILE} with fresh secrets")
    changed = settings.remember(os.environ)
    for name, value in changed.items():
        progress.done(f"kept {name}={value} in .env")
    values = settings.load()
    if engine.processes() is not None and engine.outdated(values):
        progress.done("stopping the services, for their settings changed")
        engine.stop()
    if engine.processes() is None:
        engine.stop()  # what a killed supervisord may have left behind
        preflight.check(values)
        progress.done(f"starting the {chosen} engine")
        engine.start(values)
    else:
        engine.revive()
    _wait(values, progress)
    pipeline.seed(values)
    registry = Registry(values.mlflow_url, stated.name)
    if registry.champion() is None:
        progress.done("no champion yet: running the first pipeline")
        pipeline.run(values, "")
    champion = registry.champion()
    if champion is None:
        raise LabError(
            f"no candidate of {stated.name} may be champion; the reasons stand above",
            "lower choice.floors in params.yaml or add candidates, then run `make train`",
        )
    _wait_for_model(values, champion, progress)
    progress.done(f"{stated.title}: champion version {champion.number} is served")
    print()
    print(render_status(values))


def status() -> int:
    """Print the table of services; 0 when all are well."""
    values = settings.load()
    print(render_status(values))
    return 0 if all(service.healthy(values) for service in SERVICES) else 1


def logs(name: str, follow: bool) -> None:
    """Print the end of the services' logs; with `follow`, go on until interrupted."""
    known = [service.name for service in SERVICES]
    if name and name not in known:
        raise LabError(f"there is no service {name!r}", f"the services are {', '.join(known)}")
    for service in [name] if name else known:
        print(f"── {service}: {engine.LOGS / service}.log\n{engine.log_end(service)}\n", flush=True)
    if follow:
        files = [str(engine.LOGS / f"{service}.log") for service in ([name] if name else known)]
        subprocess.run(["tail", "-n", "0", "-F", *files], check=False)


def down() -> None:
    """Stop everything and keep the state."""
    print("stopped; the state is kept in .lab" if engine.stop() else "nothing was running")


def reset(sure: bool) -> None:
    """Remove the state after asking: data, models, runs, ledger, logs. `.env` stays."""
    if not sure:
        question = f"This removes {STATE}: datasets, models, runs, ledger and logs. Type yes to go on: "
        if not sys.stdin.isatty():
            raise LabError("make reset asks before it removes the state", "without a terminal: make reset YES=1")
        if input(question).strip() != "yes":
            print("nothing was removed")
            return
    engine.stop()
    shutil.rmtree(STATE, ignore_errors=False) if STATE.exists() else None
    pipeline.remove_outputs(settings.load())
    print("the state is removed; `make up` begins anew")


def render_status(values: Settings) -> str:
    """The services as a table: address, state, how to sign in."""
    running = engine.processes() or {}
    rows = [["service", "address", "state", "sign in"]]
    for service in SERVICES:
        rows.append([service.title, service.url(values), _state(service, values, running), service.sign_in])
    return table(rows)


def _state(service: Service, values: Settings, running: dict[str, dict[str, object]]) -> str:
    if service.healthy(values):
        return _served(values) if service.name == "api" else "up"
    said = str(running.get(service.name, {}).get("statename", "down")).lower()
    return {"running": "up, not answering yet", "stopped": "down"}.get(said, said)


def _served(values: Settings) -> str:
    try:
        return f"up, version {http.get_json(values.api_url + '/readyz', timeout=2).get('version')}"
    except LabError:
        return "up, no model"


def _wait(values: Settings, progress: Progress) -> None:
    """Wait until every service is well; raise LabError with the end of its log for one that cannot start."""
    left, limit = list(SERVICES), values.number("START_SECONDS", 1, 3600)
    pids: dict[str, set[object]] = {service.name: set() for service in SERVICES}
    while left:
        for service in list(left):
            if service.healthy(values):
                left.remove(service)
                progress.done(f"{service.title} is up")
        if not left:
            return
        progress.waiting(", ".join(service.title for service in left))
        running = engine.processes() or {}
        for service in left:
            state = running.get(service.name, {})
            # supervisord starts what died after a few seconds again and again, and never calls it FATAL.
            pids[service.name] |= {state.get("pid", 0)} - {0}
            hopeless = state.get("statename") == "FATAL" or len(pids[service.name]) > STARTS
            if hopeless or progress.seconds() > limit:
                raise LabError(
                    f"{service.title} does not start. Its log ends:\n{engine.log_end(service.name, 40)}",
                    f"the whole log is {engine.LOGS / service.name}.log; then `make down` and `make up`",
                )
        time.sleep(1)


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
