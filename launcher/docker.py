"""The docker engine: the services as containers, which Docker Compose runs."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import time
from collections.abc import Sequence

from lab.errors import LabError
from lab.settings import ROOT, STATE, Settings
from launcher import compose, docker_preflight, pipeline
from launcher.compose import NAME as NAME
from launcher.compose import ask, project
from launcher.compose import states as states
from launcher.console import Progress
from launcher.pipeline import CHECK, refused_table
from launcher.services import CONTAINERS, ELASTIC, Service
from launcher.state import note_engine

LOG = STATE / "log" / "compose.log"
# The first build installs 1 GB of packages, and the first pull fetches 4 GB of images.
BUILD_SECONDS = 3_600
STOP_SECONDS = 180
# A working engine answers within this number of seconds.
WAIT_SECONDS = 15
# The first versions with `start_interval` in health checks (engine) and with `!override` (Compose).
ENGINE_VERSION, COMPOSE_VERSION = (25,), (2, 24, 4)
_TRAINER = ("run", "--rm", "--no-deps", "-T", "trainer", "python")
_WITHOUT = "or run the lab as processes: make up ENGINE=embedded"


@functools.cache
def fault() -> LabError | None:
    """The reason why containers cannot run here, as an error that was not raised; None when they can."""
    if not shutil.which("docker"):
        return LabError("Docker is not installed", f"install Docker with Compose 2, {_WITHOUT}")
    try:
        code, output = _output("docker", "compose", "version", "--short")
        if code or _older(output, COMPOSE_VERSION):
            plugin = (
                f"Compose {output}"
                if not code
                else "only Compose v1"
                if shutil.which("docker-compose")
                else "no Compose"
            )
            minimum = ".".join(map(str, COMPOSE_VERSION))
            return LabError(
                f"there is {plugin} beside Docker", f"install its plugin compose, {minimum} or later, {_WITHOUT}"
            )
        code, output = _output("docker", "version", "--format", "{{.Server.Version}}")
        if code:
            return LabError(f"Docker's engine does not answer: {output[-300:]}", f"start it, {_WITHOUT}")
        if _older(output, ENGINE_VERSION):
            return LabError(f"Docker's engine is {output}", f"update it to {ENGINE_VERSION[0]} or later, {_WITHOUT}")
        if _output("docker", "buildx", "version")[0]:
            return LabError("there is no buildx beside Docker", f"install its plugin buildx, {_WITHOUT}")
    except subprocess.TimeoutExpired:
        return LabError(f"Docker's engine does not answer within {WAIT_SECONDS} s", f"restart it, {_WITHOUT}")
    return None


def _output(*command: str) -> tuple[int, str]:
    process = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    return process.returncode, (process.stderr if process.returncode else process.stdout).strip()


def _older(version: str, minimum: tuple[int, ...]) -> bool:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    return bool(numbers) and numbers < minimum


def services(settings: Settings) -> list[Service]:
    return [*CONTAINERS, *(() if settings.lite else ELASTIC)]


def check(settings: Settings) -> None:
    compose.check(settings)
    docker_preflight.check(settings, services(settings), states(settings), compose.published(settings))


def check_table(settings: Settings, progress: Progress) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _step(settings, progress, "the trainer's image to be built", ["build", "trainer"])
    process = compose.run(settings, *_TRAINER, *CHECK, "--params", settings.params, seconds=600)
    if process.returncode:
        raise refused_table(settings, process.stderr)


def start(settings: Settings, progress: Progress) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    LOG.write_text("")
    before = states(settings)
    if not settings.lite and (note := docker_preflight.map_count_note()):
        progress.done(f"note: {note}")
    if images := compose.missing_images(settings):
        _step(settings, progress, f"{', '.join(images)} to be pulled", ["pull", "--quiet", *images.values()])
    _step(settings, progress, "the images to be built", ["build", *compose.built(settings)])
    note_engine(NAME)
    compose.leave(settings)
    if settings.lite and (remainder := before.keys() & compose.names(settings, "elastic")):
        # Compose does not remove the containers of a disabled profile, so they are removed here.
        _step(
            settings,
            progress,
            "the Elastic part to stop",
            ["--profile", "*", "rm", "--stop", "--force", *sorted(remainder)],
        )
    if holders := _in_the_way(settings):
        _step(settings, progress, "ports to be free", ["--profile", "*", "rm", "--stop", "--force", *holders])
    # Compose has one time limit for all services, and Elasticsearch, Kibana and Filebeat start one after another.
    limit = settings.start_seconds * (1 if settings.lite else 3)
    words = ["up", "--detach", "--no-build", "--remove-orphans", "--wait", "--wait-timeout", str(limit)]
    try:
        _step(settings, progress, "the services", words)
    except LabError as error:
        raise _unwell(settings) or error from None
    docker_preflight.remember_images(settings)
    progress.done("the services are up")


def _in_the_way(settings: Settings) -> list[str]:
    """The services whose published port now belongs to another service of this lab.

    These services must stop first, because Compose would start the other service while the port is still taken.
    """
    holders = compose.published(settings)
    claims = {port: each.name for each in services(settings) for port, _ in each.ports(settings)}
    return sorted({holders[port] for port, name in claims.items() if holders.get(port, name) != name})


def outdated(settings: Settings) -> bool:
    hashes = dict(line.split() for line in ask(settings, "config", "--hash", "*").splitlines())
    return any(
        hashes.get(row["Service"], row["Hash"]) != row["Hash"] for row in compose.rows(settings, "--status=running")
    )


def store(settings: Settings) -> str:
    return settings.s3_endpoint_url or f"the volume {project(settings)}_s3"


def train(settings: Settings, options: Sequence[str] = ()) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    LOG.write_text("")
    # A model depends on the installed packages, so the training uses a current image.
    _step(settings, Progress(), "the trainer's image to be built", ["build", "trainer"])
    if _trainer(settings, ["-m", "launcher", "pipeline", *options]):
        raise LabError("the pipeline failed; the reason stands above", "correct it, then run `make train`")


def run_trainer(settings: Settings, words: Sequence[str]) -> int:
    code = _trainer(settings, words)
    pipeline.configure_dvc(settings)
    return code


def _trainer(settings: Settings, words: Sequence[str]) -> int:
    """Run `python …` in the trainer's container on this clone's files, as their owner; return its exit status."""
    return compose.show(settings, *_TRAINER, *words)


def log_end(settings: Settings, name: str, lines: int = 15) -> str:
    return ask(settings, "logs", "--no-color", "--no-log-prefix", "--tail", str(lines), name) or "(no log yet)"


def follow(settings: Settings, names: list[str]) -> None:
    compose.show(settings, "logs", "--follow", "--tail", "0", *names)


def stop(settings: Settings) -> bool:
    return _down(settings)


def remove(settings: Settings) -> None:
    _down(settings, "--volumes")
    images = _output("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"lab/*:{project(settings)}")[1]
    if images:
        subprocess.run(
            ["docker", "image", "rm", *images.split()], capture_output=True, timeout=STOP_SECONDS, check=False
        )


def _down(settings: Settings, *more: str) -> bool:
    ran = bool(states(settings))
    # The stand-in AWS stops first, because it restarts tasks that end.
    for words in (["stop", "aws"], ["down", "--remove-orphans", *more]):
        process = compose.run(settings, "--profile", "*", *words, seconds=STOP_SECONDS)
        if process.returncode:
            raise LabError(f"Compose could not stop the lab: {process.stderr.strip()[-600:]}", "run `make down` again")
        if words[0] == "stop":
            _end_tasks(settings)
    return ran


def _end_tasks(settings: Settings) -> None:
    """Remove the task containers that the stand-in AWS left on its network, because Compose does not know them."""
    label = f"label=ministack.instance={project(settings)}-aws:4566"
    if ids := _output("docker", "ps", "--all", "--quiet", "--filter", label)[1]:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", *ids.split()], capture_output=True, timeout=60, check=False
        )


def _step(settings: Settings, progress: Progress, what: str, words: list[str]) -> None:
    """Run a long command of Compose with its output in the log; raise LabError with the end of the output."""
    with LOG.open("a") as log:
        offset = log.tell()
        process = subprocess.Popen(
            ["docker", "compose", "--progress", "plain", *words],
            cwd=ROOT,
            env=compose.environment(settings),
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
        text = LOG.read_bytes()[offset:].decode(errors="replace")
        raise LabError(f"waiting for {what} failed:\n{text.strip()[-2_000:]}", _remedy(words[0]))


def _remedy(word: str) -> str:
    return {
        "pull": f"check the network, name other images in .env (S3_IMAGE, …), take fewer with LITE=1, {_WITHOUT}",
        "build": f"the whole output is in {LOG}; a build needs the network to install packages",
    }.get(word, f"the whole log is {LOG}; `make logs` shows each service's own")


def _unwell(settings: Settings) -> LabError | None:
    """The error for the first service that is not up, with the end of its log.

    A one-shot service that ended with 0 counts as up.
    """
    for name, state in states(settings).items():
        if state not in ("up", "running", "exited 0", "created", "starting"):
            return LabError(
                f"{name} is {state}. Its log ends:\n{log_end(settings, name, 40)}",
                f"see `make logs SERVICE={name}`; then `make down` and `make up`",
            )
    return None
