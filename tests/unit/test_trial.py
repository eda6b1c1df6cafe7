"""No package harms the API: each package of `tests.corpus` is refused, and the old model stays in service."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from api import create_app
from api.embed_model import embed
from lab import package, trial
from lab.errors import LabError
from lab.http import TooLargeError, UnreachableError
from lab.registry import Version
from lab.settings import ROOT
from tests import corpus, hostile
from tests.recorded import written

GOOD = {"a": 1.0, "b": 0.5}


class Registry:
    """A registry whose champion is `files`, as version `number`."""

    model = hostile.NAME

    def __init__(self) -> None:
        self.number, self.files, self.fault = 1, hostile.package(hostile.SOUND), None

    def show(self, files: tuple[bytes, bytes]) -> int:
        self.number, self.files = self.number + 1, files
        return self.number

    def champion(self) -> Version:
        return Version(self.model, self.number, "", "", {})

    def download(self, _: Version) -> tuple[bytes, bytes]:
        if self.fault:
            raise self.fault
        return self.files


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An API that serves the sound package as version 1, and its registry."""
    folder = tmp_path_factory.mktemp("served")
    app = create_app(
        {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MODEL_NAME": hostile.NAME,
            **{f"{name}_DIR": str(folder / name) for name in ("EVENTS", "KEEP", "METRICS")},
            "FOLLOW_SECONDS": "3600",
        }
    )
    follower, registry = app.extensions["follower"], Registry()
    follower.registry = registry
    follower.poll()
    return app.test_client(), follower, registry, folder


def alerts(folder: Path) -> list[dict]:
    return [event for event in written(folder / "EVENTS") if event["event.dataset"] == "lab.alert"]


@pytest.mark.parametrize("name", corpus.PACKAGES)
def test_a_hostile_package_is_refused(served, name):
    """The old model stays in service, /readyz and an alert give the reason, and the process has not grown."""
    client, follower, registry, folder = served
    number = registry.show(corpus.PACKAGES[name])
    before = psutil.Process().memory_info().rss
    follower.poll()
    assert psutil.Process().memory_info().rss < before + 80 * 2**20
    state = client.get("/readyz").json
    assert (state["version"], state["refused"]["version"]) == (1, number)
    assert state["look_age_seconds"] < 60
    assert alerts(folder)[-1]["labels.model_version"] == str(number)
    assert alerts(folder)[-1]["message"] == f"version {number} is refused: {state['refused']['reason']}"
    answer = client.post("/predict", json=GOOD).json
    assert answer["probability"] == pytest.approx(hostile.expected([[1.0, 0.5]])[0], abs=1e-5)


def test_what_is_kept_or_baked_is_tried_too(served, tmp_path):
    """A hostile package on disk is not served, and no image is built with one."""
    _, _follower, _, _ = served
    for name in ("external data: initializer", "endless loop", "1.6 GB of zeros", "NaN", "another problem"):
        config = {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MODEL_NAME": hostile.NAME,
            **{f"{each}_DIR": str(tmp_path / name / each) for each in ("EVENTS", "KEEP", "METRICS")},
            "FOLLOW_SECONDS": "3600",
        }
        path = hostile.put(Path(config["KEEP_DIR"]), 9, corpus.PACKAGES[name])
        assert create_app(config).test_client().get("/readyz").status_code == 503
        path.write_bytes(path.read_bytes() + bytes(34 * 2**20))
        assert create_app(config).test_client().get("/readyz").status_code == 503
    folder = tmp_path / "package"
    folder.mkdir()
    for name, content in zip(("card.json", "model.onnx"), corpus.PACKAGES["endless loop"], strict=True):
        (folder / name).write_bytes(content)
    (folder / "version").write_text("3")
    with pytest.raises(LabError, match="graph in a graph"):
        embed(folder, tmp_path / "baked")
    (folder / "card.json").write_bytes(corpus.CARDS["a path for a name"])
    with pytest.raises(LabError, match="not valid"):
        embed(folder, tmp_path / "baked")


def test_what_the_registry_does_not_give_is_no_fault_of_the_package(served):
    """An answer that is too large is a fault of the package.

    A registry that is away is not, and is asked again at once.
    """
    client, follower, registry, _folder = served
    number = registry.show(hostile.package(hostile.SOUND))
    registry.fault = UnreachableError("away")
    follower.poll()
    assert client.get("/readyz").json["registry"] == "away"
    assert (client.get("/readyz").json["refused"] or {}).get("version") != number
    registry.fault = TooLargeError("model.onnx has more than 32 MB")
    follower.poll()
    assert client.get("/readyz").json["refused"]["version"] == number
    registry.fault = None
    registry.show(hostile.package(hostile.SOUND))
    follower.poll()
    assert client.get("/readyz").json["refused"] is None
    registry.number = 1
    follower.poll()


@pytest.mark.parametrize("result", [np.nan, np.inf, -np.inf, 1.5, -0.1])
def test_what_is_no_probability_is_no_answer(served, result):
    """A record without a probability is a 500 with an event, a count and one alert; other records are answered."""
    client, follower, registry, folder = served
    number = registry.show(hostile.package(hostile.on(7.0, result)))
    follower.poll()
    assert client.get("/readyz").json["version"] == number
    before = len(alerts(folder))
    record = {"a": 7.0, "b": 0.0}
    for path, body in (("/predict", record), ("/predict/batch", {"instances": [GOOD, record, GOOD]})):
        recorded = len(written(folder / "EVENTS"))
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
        assert "as a probability" in answer.json["detail"]
        new = [event["event.dataset"] for event in written(folder / "EVENTS")[recorded:]]
        assert sorted(new) == (["lab.alert", "lab.request"] if path == "/predict" else ["lab.request"])
    assert [alert["labels.model_version"] for alert in alerts(folder)[before:]] == [str(number)]
    assert client.post("/predict", json=GOOD).status_code == 200
    metrics = client.get("/metrics").text
    assert 'lab_requests_total{route="/predict/batch",status="500"}' in metrics
    assert "lab_model_failures_total 0" not in metrics
    registry.show(hostile.package(hostile.SOUND))
    follower.poll()


def test_rounding_beyond_one_is_cut_off(served):
    """A forest's sum of 1.0000001 in float32 is 1 in the answer and in the event."""
    client, follower, registry, folder = served
    tiny = hostile.on(7.0, 1.000001)
    registry.show(hostile.package(tiny))
    follower.poll()
    assert client.post("/predict", json={"a": 7.0, "b": 0.0}).json["probability"] == 1.0
    assert written(folder / "EVENTS")[-1]["lab.probability"] == 1.0
    registry.show(hostile.package(hostile.SOUND))
    follower.poll()


def test_no_row_of_the_table_is_given_away(served):
    """GET /model has the whole card except the rows of the self-test."""
    card = served[0].get("/model").json["card"]
    card_values = msgspec.json.decode(hostile.package(hostile.SOUND)[0])
    del card_values["self_test"]
    assert card == card_values


def test_a_model_is_read_as_what_was_inspected():
    """ONNX Runtime reads the model as ONNX, although four bytes could make it detect its own format."""
    proto = hostile.proto(hostile.graph(hostile.dense()))
    proto.producer_name = "ORTM"
    model = hostile.written(proto)
    assert model[4:8] == b"ORTM"
    trial.verify(hostile.NAME, *hostile.package(model))
    scores = package.score(package.open_session(model), np.array([[1, 2]], np.float32))
    assert scores == pytest.approx(hostile.expected([[1.0, 2.0]]), abs=1e-5)


def test_the_trial_is_of_the_same_bytes(monkeypatch):
    """A sound package is not tried again; another card or model is, and so is a refused one."""
    packages = []
    real = trial._try
    monkeypatch.setattr(trial, "_try", lambda *files: packages.append(files) or real(*files))
    trial._sound.clear()
    sound, variant = hostile.package(hostile.SOUND), corpus.PACKAGES["a little more"]
    other = hostile.package(hostile.SOUND, {**hostile.card_values(), "title": "Other"})
    for files in (sound, sound, other, other):
        trial.verify(hostile.NAME, *files)
    for _ in range(2):
        with pytest.raises(LabError):
            trial.verify(hostile.NAME, *variant)
    with pytest.raises(LabError, match="altered or cut short"):
        trial.verify(hostile.NAME, sound[0], hostile.CIRCLE)
    assert packages == [sound, other, variant, variant]


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Put a shell script in the place of the trial's interpreter."""

    def write(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(path))
        trial._sound.clear()

    return write


def test_the_trial_has_no_secret(monkeypatch, tmp_path, stand_in):
    """The process of the trial has neither the environment nor the folder of this process."""
    monkeypatch.setenv("S3_SECRET_KEY", "geheim")
    monkeypatch.setenv("LD_PRELOAD_PATH", "x")
    stand_in(f"(/usr/bin/env; pwd) > {tmp_path / 'seen'}; exit 3")
    with pytest.raises(LabError, match="with status 3"):
        trial.verify(hostile.NAME, *hostile.package(hostile.SOUND))
    *variables, folder = (tmp_path / "seen").read_text().splitlines()
    assert folder == "/"
    ours = {"PYTHONPATH", "ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"}
    assert {line.partition("=")[0] for line in variables} - ours <= {"PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize("script", ["exec sleep 600", "exec cat /dev/zero", "exec 0<&-; exec sleep 600"])
def test_a_trial_without_end_is_ended(monkeypatch, stand_in, script):
    """A trial that is silent, prints too much or does not read is ended, and no process is left."""
    monkeypatch.setattr(trial, "WALL_SECONDS", 1)
    stand_in(script)
    before, start = set(psutil.Process().children()), time.monotonic()
    with pytest.raises(LabError, match="takes more than"):
        trial.verify(hostile.NAME, *hostile.package(hostile.SOUND))
    assert time.monotonic() - start < 30
    assert set(psutil.Process().children()) <= before


def test_a_follower_that_is_stuck_shows(served):
    """/readyz has the time since the last look ended, and a new look resets it."""
    client, follower, registry, _ = served
    registry.show(hostile.package(hostile.SOUND))
    follower.poll()
    gate = threading.Event()
    follower.registry = type("Stuck", (Registry,), {"champion": lambda _: gate.wait(60) and registry.champion()})()
    looking = threading.Thread(target=follower.poll)
    looking.start()
    time.sleep(0.3)
    answer = client.get("/readyz").json
    gate.set()
    looking.join()
    assert answer["registry"] == "followed"
    assert 0.3 <= answer["look_age_seconds"] < 60
    assert set(answer) == set(client.get("/openapi.json").json["components"]["schemas"]["Ready"]["properties"])
    assert client.get("/readyz").json["look_age_seconds"] < answer["look_age_seconds"]
    follower.registry = registry


def test_the_server_imports_nothing_of_the_trial():
    """Only the trial imports ONNX's own package, which costs 10 MB in each process."""
    program = (
        "import sys, api.embed_model, api.server; print([name for name in sys.modules if name.split('.')[0] == 'onnx'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_DIR")}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert process.stdout == "[]\n", process.stderr


def test_trials_take_turns(tmp_path):
    """A second trial waits for the first one to end."""
    trial._sound.clear()
    thread = threading.Thread(
        target=trial.verify, args=(hostile.NAME, *hostile.package(hostile.SOUND), tmp_path / "lock")
    )
    with (tmp_path / "lock").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread.start()
        thread.join(2)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    assert trial._sound


def test_a_forest_that_is_too_large_is_told_from_a_broken_file():
    """For a forest whose file is within the limit and whose memory is not, the message has a remedy."""
    branch = [node for i in range(400_000) for node in ((2 * i + 1, 2 * i + 2, 0.0), hostile.LEAF)]
    large = hostile.tree(*branch, hostile.LEAF)
    with pytest.raises(LabError, match=r"more than 128 MB of memory \(fewer or shallower trees"):
        trial.verify(hostile.NAME, *hostile.package(large))
