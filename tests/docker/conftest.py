"""Fixtures that run the lab without Elastic in containers; stand-ins replace the images that cannot be pulled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from launcher import docker as containers
from tests.conftest import Lab, bring_up, make_lab

PROJECT = f"lab-test-{os.getpid()}"
STAND_INS = os.pathsep.join(("compose.yaml", "tests/docker/stand-ins.yaml"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip container tests if there is no engine, and run the tests of both engines in the order of their source."""
    places = [place for place, item in enumerate(items) if item.path.name == "test_both.py"]
    order = sorted((items[place] for place in places), key=_written)
    for place, item in zip(places, order, strict=True):
        items[place] = item
    if fault := containers.fault():
        for item in items:
            if "tests/docker" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=fault.message))


def _written(item: pytest.Item) -> tuple[str, int]:
    return item.function.__module__, item.function.__code__.co_firstlineno


def docker(*words: str, seconds: int = 120) -> str:
    """Run `docker …`, which must succeed, and return its output."""
    process = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=seconds)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def ours(kind: str) -> set[str]:
    """Return the ids of the containers, volumes or networks of the tests' project."""
    more = ["--all"] if kind == "container" else []
    label = f"label=com.docker.compose.project={PROJECT}"
    return set(docker(kind, "ls", *more, "--quiet", "--filter", label).split())


def inspect(service: str) -> dict:
    """Return the engine's description of a service's container."""
    labels = [f"label=com.docker.compose.{key}={value}" for key, value in (("project", PROJECT), ("service", service))]
    ids = docker("ps", "--all", "--quiet", *(word for label in labels for word in ("--filter", label))).split()
    assert len(ids) == 1, (service, ids)
    return json.loads(docker("inspect", ids[0]))[0]


def in_containers(root, **env: str) -> Lab:
    return make_lab(
        root, **{"ENGINE": "docker", "LITE": "1", "COMPOSE_FILE": STAND_INS, "COMPOSE_PROJECT_NAME": PROJECT, **env}
    )


@pytest.fixture(scope="session")
def boxed(tmp_path_factory) -> Iterator[Lab]:
    """Bring up a lab in containers that serves its champion."""
    instance = in_containers(tmp_path_factory.mktemp("boxed"))
    try:
        bring_up(instance)
        yield instance
    finally:
        instance.run(sys.executable, "-m", "launcher", "reset", "--yes", seconds=300)


@pytest.fixture(scope="session")
def lab(boxed: Lab) -> Lab:
    """Give the lab in containers to the tests that both engines share (test_both.py)."""
    return boxed
