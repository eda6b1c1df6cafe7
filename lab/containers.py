"""The engine of containers: compose.yaml, through Docker Compose."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from typing import Any

import msgspec

from lab import container_preflight, problem
from lab.console import Progress
from lab.engine import REPRODUCE
from lab.errors import LabError
from lab.services import CONTAINERS, ELASTIC, Service
from lab.settings import ROOT, SETTINGS, STATE, Settings

NAME = "docker"
LOG = STATE / "log" / "compose.log"
ASK_SECONDS = 60
# How long an engine that is well takes to say so.
WAIT_SECONDS = 15
# A first build installs a gigabyte, a first pull fetches four.
BUILD_SECONDS = 3_600
STOP_SECONDS = 180
_WITHOUT = "or run the lab as processes: make up ENGINE=embedded"


@functools.cache
def fault() -> LabError | None:
    """What keeps containers from running here, as an error that was not raised; None when nothing does."""
    if not shutil.which("docker"):
        return LabError("Docker is not installed", f"install Docker with Compose 2, {_WITHOUT}")
    try:
        version = _said("docker", "compose", "version", "--short").lstrip("v")
        if not version or int(version.split(".")[0]) < 2:
            found = "only Compose v1" if version or shutil.which("docker-compose") else "no Compose"
            return LabError(
                f"there is {found} beside Docker", f"install the plugin docker-compose, version 2, {_WITHOUT}"
            )
        if not _said("docker", "version", "--format", "{{.Server.Version}}"):
            return LabError("Docker is installed, but its engine does not answer", f"start Docker, {_WITHOUT}")
    except subprocess.TimeoutExpired:
        return LabError("Docker is installed, but its engine does not answer", f"start it anew, {_WITHOUT}")
    return None


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    return "" if done.returncode else done.stdout.strip()


def services(settings: Settings) -> list[Service]:
    return [*CONTAINERS, *(() if settings["LITE"] else ELASTIC)]


def start(settings: Settings, progress: Progress) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    LOG.write_text("")
    _check_config(settings)
    running = states(settings)
    container_preflight.check(settings, services(settings), running)
    images = _images(settings)
    if images:
        _step(settings, progress, f"{', '.join(images)} to be pulled", ["pull", "--quiet", *images.values()])
    _step(settings, progress, "the images to be built", ["build", "--quiet"])
    limit = settings.number("START_SECONDS", 1, 3600)
    words = ["up", "--detach", "--no-build", "--remove-orphans", "--wait", "--wait-timeout", str(limit)]
    try:
        _step(settings, progress, "the services", words)
    except LabError as error:
        raise _unwell(settings) or error from None
    container_preflight.remember_images(settings)
    progress.done("the services are up")


def states(settings: Settings) -> dict[str, str]:
    """Compose's word for each: the checks are its own, in compose.yaml."""
    found = {}
    for row in _rows(_ask(settings, "ps", "--all", "--format", "json")):
        said = row["Health"] or row["State"]
        found[row["Service"]] = "up" if said == "healthy" else said
    return found


def outdated(settings: Settings) -> bool:
    wanted = dict(line.split() for line in _ask(settings, "config", "--hash", "*").splitlines())
    names = _ask(settings, "ps", "--format", "json")
    ids = [row["ID"] for row in _rows(names) if row["Service"] in wanted]
    label = '{{index .Config.Labels "com.docker.compose.%s"}}'
    form = f"{label % 'service'} {label % 'config-hash'}"
    lines = _said("docker", "inspect", "--format", form, *ids).splitlines() if ids else []
    return any(wanted[name] != running for name, running in (line.split() for line in lines))


def train(settings: Settings, metric: str) -> None:
    if _trainer(settings, ["-m", "lab", "pipeline", *(["--metric", metric] if metric else [])]):
        raise LabError("the pipeline failed; the reason stands above", "mend it, then run `make train`")


def reproduce(settings: Settings, version: int) -> int:
    return _trainer(settings, [*REPRODUCE, str(version)])


def _trainer(settings: Settings, words: list[str]) -> int:
    """Run `python …` in the trainer's container, on this clone's files and as their owner; give its exit status."""
    command = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "trainer", "python", *words]
    return subprocess.run(command, cwd=ROOT, env=_environment(settings), check=False).returncode


def log_end(settings: Settings, name: str, lines: int = 15) -> str:
    return _ask(settings, "logs", "--no-color", "--no-log-prefix", "--tail", str(lines), name) or "(no log yet)"


def follow(settings: Settings, names: list[str]) -> None:
    subprocess.run(
        ["docker", "compose", "logs", "--follow", "--tail", "0", *names],
        cwd=ROOT,
        env=_environment(settings),
        check=False,
    )


def stop(settings: Settings) -> bool:
    return _down(settings)


def remove(settings: Settings) -> None:
    _down(settings, "--volumes")


def _down(settings: Settings, *more: str) -> bool:
    ran = bool(states(settings))
    _end_tasks(settings)
    words = ["--profile", "*", "down", "--remove-orphans", "--timeout", "30", *more]
    done = _compose(settings, *words, seconds=STOP_SECONDS)
    if done.returncode:
        raise LabError(f"Compose could not stop the lab: {_end(done.stderr)}", "run `make down` again")
    return ran


def _environment(settings: Settings) -> dict[str, str]:
    """What compose.yaml asks for: the settings, and what only this machine knows."""
    profiles = [os.environ.get("COMPOSE_PROFILES", ""), "" if settings["LITE"] else "elastic"]
    told = {
        **{s.name: settings.values[s.name] for s in SETTINGS},
        "MODEL_NAME": problem.load(settings.params).name,
        "COMPOSE_PROFILES": ",".join(filter(None, profiles)),
        "LAB_UID": str(os.getuid()),
        "LAB_GID": str(os.getgid()),
        "DOCKER_GID": str(container_preflight.socket_group()),
    }
    if not settings["LITE"] and not settings["ELASTIC_APM_SERVER_URL"]:
        told["ELASTIC_APM_SERVER_URL"] = "http://apm-server:8200"
    return {**os.environ, **told}


def _compose(settings: Settings, *words: str, seconds: float = ASK_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", "compose", *words],
            cwd=ROOT,
            env=_environment(settings),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"Docker did not answer within {seconds:g} s", "start Docker anew, then run it again") from error


def _ask(settings: Settings, *words: str) -> str:
    done = _compose(settings, *words)
    return "" if done.returncode else done.stdout


def _rows(text: str) -> list[dict[str, Any]]:
    """What `--format json` gives: one object a line, or a list of them in other versions."""
    rows: list[Any] = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
    return rows[0] if rows and isinstance(rows[0], list) else rows


def _check_config(settings: Settings) -> None:
    """Raise LabError when compose.yaml cannot be read with these settings, as when a secret is not set."""
    done = _compose(settings, "config", "--quiet")
    if done.returncode:
        raise LabError(f"compose.yaml cannot be used: {_end(done.stderr)}", "set what it names in .env")


def _images(settings: Settings) -> dict[str, str]:
    """The images that must be pulled first, with the service that needs each."""
    config = msgspec.json.decode(_ask(settings, "config", "--format", "json") or "{}")
    wanted = {each["image"]: name for name, each in config.get("services", {}).items() if "build" not in each}
    there = set(_said("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines())
    return {image: name for image, name in wanted.items() if {image, f"{image}:latest"}.isdisjoint(there)}


def _step(settings: Settings, progress: Progress, what: str, words: list[str]) -> None:
    """Run one of Compose's commands that take long, its words to the log; raise LabError with the end of them."""
    with LOG.open("a") as log:
        begun = log.tell()
        process = subprocess.Popen(
            ["docker", "compose", "--progress", "plain", *words],
            cwd=ROOT,
            env=_environment(settings),
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + BUILD_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                progress.waiting(f"{what} (see {LOG.relative_to(ROOT)})")
                time.sleep(0.5)
        finally:
            process.terminate()
    if process.wait(30):
        text = LOG.read_text()[begun:]
        raise LabError(f"waiting for {what} failed:\n{_end(text, 2_000)}", _remedy(words[0]))


def _remedy(word: str) -> str:
    return {
        "pull": f"check the network, name other images in .env (S3_IMAGE, …), take fewer with LITE=1, {_WITHOUT}",
        "build": "the first failed line above says why; with no network nothing can be installed",
    }.get(word, f"the whole log is {LOG}; `make logs` shows each service's own")


def _unwell(settings: Settings) -> LabError | None:
    """The first service that is not well, with its own log."""
    for name, state in states(settings).items():
        if state not in ("up", "running", "exited", "starting", "created"):
            return LabError(
                f"{name} is {state}. Its log ends:\n{log_end(settings, name, 40)}",
                f"see `make logs SERVICE={name}`; then `make down` and `make up`",
            )
    return None


def _end_tasks(settings: Settings) -> None:
    """End the tasks that the stand-in AWS started: they are on the lab's network, and Compose does not know them."""
    label = f"label=ministack.instance={settings['COMPOSE_PROJECT_NAME'] or 'mlops-lab'}-aws:4566"
    if ids := _said("docker", "ps", "--all", "--quiet", "--filter", label):
        subprocess.run(["docker", "rm", "--force", *ids.split()], capture_output=True, timeout=60, check=False)


def _end(text: str, size: int = 600) -> str:
    return text.strip()[-size:]
