"""The embedded lab, really up, in a copy of the work tree with free ports and real servers."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import urllib3
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from lab.settings import NAMES, ROOT, SETTINGS
from launcher import pipeline

UP_SECONDS = 1_800

# How fast a machine is is no property of the code.
settings.register_profile("lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")


class Scheduling(LoadScopeScheduling):
    """pytest-xdist's distribution: the tests of one lab run in one process, in their order.

    There are two labs, one as processes and one in containers. The option `--dist loadgroup` would do the same, but
    pytest-xdist 3.8 ignores its marks under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/unit/"):
            return nodeid
        return "containers" if nodeid.startswith("tests/docker/") else "processes"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of test_reset.py last in their folder: they leave no lab behind, or one with another table."""
    folders = list(dict.fromkeys(item.path.parent for item in items))
    items.sort(key=lambda item: (folders.index(item.path.parent), item.path.name == "test_reset.py"))


@dataclass(frozen=True)
class Lab:
    """A clone of its own, and the commands that a person types there."""

    root: Path
    env: dict[str, str]

    def run(self, *words: str, seconds: int = UP_SECONDS, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the lab's own interpreter first on the PATH; it may fail."""
        return subprocess.run(
            list(words), cwd=self.root, env={**self.env, **env}, capture_output=True, text=True, timeout=seconds
        )

    def python(self, *words: str, **env: str) -> str:
        """Run `python …`, which must succeed, and return its output."""
        process = self.run(sys.executable, *words, **env)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        return process.stdout

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.env[port]}"

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request to the API; return status and decoded body."""
        answer = urllib3.request(
            method,
            self.url("API_PORT") + path,
            body=msgspec.json.encode(body) if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        return answer.status, msgspec.json.decode(answer.data)


def free_port(ports_in_use: set[int]) -> int:
    """A free port such that the one 10000 above it, where SeaweedFS may put gRPC, is free, too.

    Both are below Linux's ephemeral ports, which any outgoing connection may use.
    """
    # Processes that follow one another start far from each other: they look for ports at the same time.
    for port in range(10_500 + os.getpid() * 1_213 % 5_000, 22_700):
        if port not in ports_in_use and all(_is_free(p) for p in (port, port + 10_000)):
            ports_in_use |= {port, port + 10_000}
            return port
    raise RuntimeError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def copy_work_tree(target: Path) -> None:
    """Copy the files that git knows, or would know, to another folder."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def add_a_table(root: Path) -> None:
    """Put another table beside the lab's, with the dvc.yaml that `make up PARAMS=…` writes. No stage has run."""
    folder = Path("tables", "own-table")
    shutil.copytree(root / "tables" / "crabs", root / folder)
    (root / folder / "dvc.yaml").write_text(pipeline.definition(ROOT / folder))


def own_processes(lab: Lab) -> list[psutil.Process]:
    """The processes of this lab's services."""
    result = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("LAB_STATE") == str(lab.root / ".lab"):
                result.append(process)
    return result


def commit(root: Path) -> None:
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True, timeout=60)


def shorten_training(root: Path) -> None:
    """Train with fewer folds."""
    params = root / "params.yaml"
    text = params.read_text()
    less = {"folds: 10": "folds: 5", "repeats: 10": "repeats: 2", "inner_folds: 3": "inner_folds: 2"}
    for old, new in less.items():
        assert old in text
        text = text.replace(old, new, 1)
    params.write_text(text)


@functools.cache
def short_training_lock() -> str:
    """The dvc.lock that a short training writes on this machine, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        copy_work_tree(root)
        shorten_training(root)
        commit(root)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.run(
            ["dvc", "repro"], cwd=root, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=600
        )
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        return (root / "dvc.lock").read_text()


def bring_up(instance: Lab) -> None:
    """Run `make up`, which must succeed; keep its output and git's status of the work tree afterwards."""
    process = instance.run(sys.executable, "-m", "launcher", "up")
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    status = instance.run("git", "status", "--porcelain")
    (instance.root / ".lab" / "git-status").write_text(status.stdout + status.stderr)
    (instance.root / "up.log").write_text(process.stdout)


def make_lab(root: Path, **env: str) -> Lab:
    """A lab in `root`, not up yet: this work tree and another table, free ports, fewer folds for a short training."""
    copy_work_tree(root)
    add_a_table(root)
    shorten_training(root)
    (root / "dvc.lock").write_text(short_training_lock())
    commit(root)
    ports_in_use: set[int] = set()
    ports = {setting.name: str(free_port(ports_in_use)) for setting in SETTINGS if setting.port}
    # Every setting in a command's environment is one that was asked for, as after `make up`.
    names = {NAMES, *(setting.name for setting in SETTINGS)}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return Lab(root, inherited | ports | {"PATH": path, "START_SECONDS": "900", NAMES: " ".join(names)} | env)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A lab that is up as processes and serves its champion."""
    instance = make_lab(tmp_path_factory.mktemp("lab"), ENGINE="embedded")
    try:
        bring_up(instance)
        yield instance
    finally:
        instance.run(sys.executable, "-m", "launcher", "down", seconds=300)
