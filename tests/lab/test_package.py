"""Tests that no hostile package in a real registry is served, and that clients under load are not affected."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
import urllib3

from lab.registry import Registry
from lab.settings import ROOT
from tests import corpus, hostile
from tests.lab.conftest import Load, eventually, store

RECORD = {"a": 1.0, "b": 0.5}
ANSWER = hostile.expected([[1.0, 0.5]])[0]
# A file of the API's folder, as .env is.
FILE = ROOT / "params.yaml"


@pytest.fixture(scope="module")
def register(lab):
    """Give a registry and a function that stores a package and registers it as a version without promoting it."""
    registry = Registry(lab.url("MLFLOW_PORT"), hostile.NAME)
    answer = urllib3.request("POST", f"{registry.url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"})
    run = msgspec.json.decode(answer.data)["run"]["info"]["run_id"]
    count = itertools.count()
    return registry, lambda files: store(registry, run, f"package-{next(count)}", files)


@pytest.fixture
def api(register, start_api):
    """Start an API with two workers that serve the sound package."""
    registry, add = register
    registry.promote(add(hostile.package(hostile.SOUND)))
    started = start_api(MLFLOW_TRACKING_URI=registry.url, MODEL_NAME=registry.model, FOLLOW_SECONDS="0.02")
    assert eventually(started.all_ready)
    return started


def _reader() -> bytes:
    """Build a model that passes its self-test and gives a byte of FILE, divided by 256, for a first feature above 4."""
    tensor = hostile.outside("bytes", FILE.name)
    tensor.data_type, tensor.dims[:] = hostile.TensorProto.UINT8, [FILE.stat().st_size]
    tensor.external_data[2].value = str(FILE.stat().st_size)
    node, constant = hostile.node, hostile.constant
    return hostile.after(
        node("Gather", "features first", "f", axis=1),
        node("Max", "f zero", "positive"),
        node("Cast", "positive", "place", to=hostile.INT),
        node("Gather", "bytes place", "byte"),
        node("Cast", "byte", "real", to=hostile.FLOAT),
        node("Div", "real most", "told"),
        node("Greater", "f four", "asked"),
        node("Where", "asked told p", "probabilities"),
        constants=(
            constant("first", [0], np.int64),
            constant("zero", 0),
            constant("four", 4),
            constant("most", 256),
            tensor,
        ),
    )


def _memory(api) -> int:
    return sum(worker.memory_info().rss for worker in api.workers())


def test_hostile_packages_under_load(register, api):
    """Both workers refuse each hostile package and do not grow, and the sound model answers every prediction."""
    registry, add = register
    sound = api.ready()["version"]
    hostiles = {
        "another file": _reader(),
        "endless loop": corpus.MODELS["endless loop"],
        "1.6 GB": corpus.MODELS["1.6 GB of zeros"],
        "hours": corpus.MODELS["hours of multiplying"],
        "circle": hostile.CIRCLE,
    }
    with Load(api.port, clients=2, record=RECORD) as load:
        assert eventually(lambda: len(load.answers) > 500)
        before, refusals = _memory(api), api.metric("lab_model_refusals_total")
        for name, model in hostiles.items():
            bad = add(hostile.package(model))
            registry.promote(bad)
            refusals += 2
            assert eventually(lambda n=refusals: api.metric("lab_model_refusals_total") == n, 240), name
            assert eventually(lambda n=bad.number: api.ready()["refused"]["version"] == n)
            assert eventually(lambda: api.ready()["look_age_seconds"] < 1)
            answer = api.ask("POST", "/predict/batch", {"instances": [{"a": i, "b": 0} for i in range(5, 10)]})[1]
            marks = [round(each["probability"] * 256) for each in answer["predictions"]]
            assert bytes(min(each, 255) for each in marks) != FILE.read_bytes()[5:10]
    assert load.failures == []
    assert {(answer["model"]["version"], round(answer["probability"], 5)) for answer in load.answers} == {
        (sound, round(ANSWER, 5))
    }
    assert _memory(api) < before + 60 * 2**20
    alerts = [event["message"] for event in api.events() if event["event.dataset"] == "lab.alert"]
    for text in ("in another file", "graph in a graph", "MB of memory", "takes more than 10 s", "a tree with a cycle"):
        assert sum(text in alert for alert in alerts) == 1, text


def test_what_is_no_probability_is_an_error_of_the_model(register, api):
    """An output that is no probability gives a recorded 500 and one alert; other records and the next champion work."""
    registry, add = register
    number = add(hostile.package(hostile.on(7.0)))
    registry.promote(number)
    assert eventually(lambda: api.metric("lab_model_version") == 2 * number.number)
    for _ in range(20):
        status, answer = api.ask("POST", "/predict", {"a": 7.0, "b": 0.0})
        assert (status, answer["title"]) == (500, "Model failed")
        assert api.ask("POST", "/predict", RECORD)[0] == 200
    assert eventually(lambda: api.metric("lab_model_failures_total") == 20)
    records = api.events()
    assert [e["http.response.status_code"] for e in records if e.get("url.path") == "/predict"] == [500] * 20
    assert all(0 <= event["lab.probability"] <= 1 for event in records if event["event.dataset"] == "lab.prediction")
    alerts = [event for event in records if event["event.dataset"] == "lab.alert"]
    assert len(alerts) == 1
    assert all("nan as a probability" in alert["message"] for alert in alerts)
    registry.promote(add(hostile.package(hostile.SOUND)))
    assert eventually(lambda: api.ask("POST", "/predict", {"a": 7.0, "b": 0.0})[0] == 200)
