"""Fixtures that start a separate API process with the lab's own command, and clients that send it requests."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import urllib3

from lab.card import CARD_FILE, MODEL_FILE
from lab.registry import Registry, Version
from lab.settings import ROOT, Settings
from tests.conftest import free_port
from tests.lab.page import browser, page  # noqa: F401
from tests.recorded import written
from tests.unit.conftest import package  # noqa: F401

WORKERS = Settings().api_workers
BENIGN = {
    **dict.fromkeys(("clump_thickness", "uniformity_of_cell_size", "uniformity_of_cell_shape"), 1),
    **dict.fromkeys(("marginal_adhesion", "single_epithelial_cell_size", "bare_nuclei"), 1),
    **dict.fromkeys(("bland_chromatin", "normal_nucleoli", "mitoses"), 2),
}


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll the condition until its value is true or the time is up, and return the last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


@dataclass
class Api:
    """A running API; `folder` holds its events, kept model and metrics."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send one request on a new connection, and return the status and the body, decoded when it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            payload = json.dumps(body) if body is not None else None
            connection.request(method, path, payload, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if "json" in answer.getheader("Content-Type", "") else data

    def ready(self) -> dict[str, Any]:
        """Return the answer of /readyz when its status is 200, else an empty dictionary."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer = self.ask("GET", "/readyz")
            return answer if status == 200 else {}
        return {}

    def all_ready(self, **headers: str) -> bool:
        """Return whether every worker serves a model, because each worker follows the champion separately."""
        if not self.ready():
            return False
        lines = self.ask("GET", "/metrics", **headers)[1].decode().splitlines()
        return sum(line.startswith("lab_model_version{") for line in lines) == WORKERS

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        return []

    def events(self) -> list[dict[str, Any]]:
        return written(self.folder / "events")

    def metric(self, name: str) -> float:
        text = self.ask("GET", "/metrics")[1].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def start_api(tmp_path) -> Iterator[Callable[..., Api]]:
    """Give a function that starts an API with the given variables, and kill every started API at the end."""
    started: list[Api] = []
    ports_in_use: set[int] = set()

    def start(folder: Path = tmp_path, **variables: str) -> Api:
        port = free_port(ports_in_use)
        state = {name: str(folder / name) for name in ("events", "keep", "metrics")}
        environment = {
            **os.environ,
            "EVENTS_DIR": state["events"],
            "KEEP_DIR": state["keep"],
            "METRICS_DIR": state["metrics"],
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        folder.mkdir(exist_ok=True)
        with (folder / "api.log").open("ab") as log:
            process = subprocess.Popen(command(port), cwd=ROOT, env=environment, stdout=log, stderr=log)
        api = Api(port, folder, process)
        started.append(api)
        assert eventually(lambda: _alive(api)), (folder / "api.log").read_text()[-3000:]
        return api

    yield start
    for api in started:
        family = [api.process, *api.workers()]
        for process in family:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        api.process.wait(30)


def store(registry: Registry, run_id: str, folder: str, files: tuple[bytes, bytes]) -> Version:
    """Store card and model in the run's `folder`, and register them as a version."""
    path = f"{registry.run_artifacts(run_id)}/{folder}"
    for name, body in zip((CARD_FILE, MODEL_FILE), files, strict=True):
        url = f"{registry.url}/api/2.0/mlflow-artifacts/artifacts/{path}/{name}"
        assert urllib3.request("PUT", url, body=body).status == 200
    return registry.register(run_id, path, {})


@pytest.fixture
def serve_kept(start_api, tmp_path, package):  # noqa: F811
    """Give a function that starts an API with a small kept model and without a registry."""
    card_values, onnx = package
    content = {"version": 7, "card": msgspec.json.encode(card_values), "model": onnx}

    def start(**variables: str) -> Api:
        (tmp_path / "keep").mkdir(exist_ok=True)
        (tmp_path / "keep" / "small.msgpack").write_bytes(msgspec.msgpack.encode(content))
        env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MODEL_NAME": "small", "FOLLOW_SECONDS": "3600"}
        variables = {**env, "API_KEY": "", "ALLOWED_HOSTS": "", **variables}
        api = start_api(**variables)
        assert eventually(lambda: api.all_ready(**{"X-API-Key": variables["API_KEY"]}))
        return api

    return start


def _alive(api: Api) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return api.ask("GET", "/healthz")[0] == 200
    return False


def command(port: int) -> list[str]:
    """Return the API's command from services/supervisord.conf."""
    config = configparser.RawConfigParser(inline_comment_prefixes=None)
    config.read(ROOT / "services" / "supervisord.conf")
    values = {
        "LAB_BIN": shlex.quote(str(Path(sys.executable).parent)),
        "API_PORT": str(port),
        "API_WORKERS": str(WORKERS),
    }
    return shlex.split(re.sub(r"%\(ENV_(\w+)\)s", lambda m: values[m[1]], config["program:api"]["command"]))


@dataclass
class Load:
    """Clients that ask for predictions on connections of their own until the end of the `with` block."""

    port: int
    clients: int = 4
    record: dict[str, Any] = field(default_factory=lambda: dict(BENIGN))
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        body, headers = json.dumps(self.record), {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._end.is_set():
            try:
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                self.answers.append(json.loads(data))
            else:
                self.failures.append(f"{answer.status} {data!r}")
            time.sleep(0.002)  # the machine has other things to do
        connection.close()
