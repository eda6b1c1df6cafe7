"""Run Docker Compose on compose.yaml with this lab's settings, and read its output."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import msgspec

from lab import env_file, problem
from lab.errors import LabError
from lab.settings import ENV_FILE as DOTENV
from lab.settings import ROOT, STATE, Settings
from launcher import docker_preflight

NAME = "docker"
# The project's name in compose.yaml, which is used until `make up` generates one.
PROJECT = "mlops-lab"
# For use by hand: `docker compose --env-file .lab/compose.env …`.
ENV_FILE = STATE / "compose.env"
ASK_SECONDS = 60


def project(settings: Settings) -> str:
    return settings.compose_project_name or PROJECT


def environment(settings: Settings) -> dict[str, str]:
    """The caller's environment, which holds Docker's own variables, updated with all that compose.yaml needs."""
    return {**os.environ, **_variables(settings)}


def _variables(settings: Settings) -> dict[str, str]:
    try:
        name = problem.load(settings.params_path).name
    except LabError:  # params.yaml has a fault, and the lab can still be stopped
        name = "unknown"
    user, group = docker_preflight.owner()
    # Variables of Compose and Docker are not settings of the lab, so their values are taken as Compose takes them.
    shell = {**env_file.read(DOTENV), **os.environ}
    profiles = [shell.get("COMPOSE_PROFILES", ""), "" if settings.lite else "elastic"]
    variables = {
        **settings.texts(),
        "COMPOSE_PROJECT_NAME": project(settings),
        "COMPOSE_PROFILES": ",".join(filter(None, profiles)),
        "MODEL_NAME": name,
        "LAB_UID": str(user),
        "LAB_GID": str(group),
        "DOCKER_GID": shell.get("DOCKER_GID") or str(docker_preflight.socket_group()),
        "API_MEMORY": f"{api_memory(settings.api_workers)}m",
        # With attestations each build would give a different image, and each `make up` would replace the containers.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }
    if not settings.lite and not settings.elastic_apm_server_url:
        variables["ELASTIC_APM_SERVER_URL"] = "http://apm-server:8200"
    return variables


def api_memory(workers: int) -> int:
    """The memory limit of the API's container, in MB.

    Two workers used 495 MB under all attacks of the tests at once. The process that tries a new model may use 200 MB
    more.
    """
    return 384 + 192 * workers


def check(settings: Settings) -> None:
    """Raise LabError when compose.yaml cannot be read with these settings."""
    process = run(settings, "config", "--quiet")
    if process.returncode:
        raise LabError(f"compose.yaml cannot be used: {process.stderr.strip()[-600:]}", "set what it names in .env")


def leave(settings: Settings) -> None:
    """Write the variables of compose.yaml to a file, so that a person can run Compose by hand."""
    ENV_FILE.unlink(missing_ok=True)
    env_file.write(
        ENV_FILE, _variables(settings), "The settings that `make up` gave Compose. Use them to run Compose by hand."
    )


def run(settings: Settings, *words: str, seconds: float = ASK_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run `docker compose …`; raise LabError when it does not end in time."""
    command = ["docker", "compose", *words]
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"Docker did not answer within {seconds:g} s", "restart Docker, then run the command again"
        ) from error


def show(settings: Settings, *words: str) -> int:
    """Run `docker compose …` and show its output; return its exit status."""
    return subprocess.run(["docker", "compose", *words], cwd=ROOT, env=environment(settings), check=False).returncode


def ask(settings: Settings, *words: str) -> str:
    """The output of `docker compose …` over all profiles; empty when it fails."""
    process = run(settings, "--profile", "*", *words)
    return "" if process.returncode else process.stdout


def rows(settings: Settings, *words: str) -> list[dict[str, Any]]:
    """A row for each container of the project: Service, State, Health, ExitCode, ID, and its configuration's Hash."""
    text = ask(settings, "ps", "--all", *words, "--format", "json")
    containers: list[Any] = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
    containers = (
        containers[0] if containers and isinstance(containers[0], list) else containers
    )  # some versions of Compose print one list
    key = "com.docker.compose.config-hash="
    for row in containers:
        labels = row["Labels"].split(",")
        row["Hash"] = next((label.removeprefix(key) for label in labels if label.startswith(key)), "")
    return containers


def states(settings: Settings) -> dict[str, str]:
    """The state of each service by Compose's health checks: "up" when the service is healthy."""
    state_of = {}
    for row in rows(settings):
        state = row["Health"] or row["State"]
        state = f"exited {row['ExitCode']}" if state == "exited" else state
        state_of[row["Service"]] = "up" if state == "healthy" else state
    return state_of


def published(settings: Settings) -> dict[int, str]:
    """The ports of this machine that the lab's containers publish, each with the name of its service."""
    return {each["PublishedPort"]: row["Service"] for row in rows(settings) for each in row.get("Publishers") or ()}


def names(settings: Settings, profile: str) -> set[str]:
    """The services that belong to this profile."""
    return {name for name, each in _config(settings, "--profile", "*").items() if profile in each.get("profiles", [])}


def missing_images(settings: Settings) -> dict[str, str]:
    """The images that must be pulled, each with the name of a service that needs it."""
    images = {each["image"]: name for name, each in _config(settings).items() if "build" not in each}
    process = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"],
        capture_output=True,
        text=True,
        timeout=ASK_SECONDS,
        check=False,
    )
    present = set(process.stdout.splitlines())
    return {image: name for image, name in images.items() if {image, f"{image}:latest"}.isdisjoint(present)}


def built(settings: Settings) -> list[str]:
    """One service for each image that Compose builds: two builds of one image at the same time would collide."""
    return sorted({each["image"]: name for name, each in _config(settings).items() if "build" in each}.values())


def _config(settings: Settings, *words: str) -> dict[str, dict[str, Any]]:
    process = run(settings, *words, "config", "--format", "json")
    configuration: dict[str, dict[str, Any]] = (
        msgspec.json.decode(process.stdout)["services"] if not process.returncode else {}
    )
    return configuration
