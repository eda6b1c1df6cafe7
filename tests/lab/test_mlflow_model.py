"""A registered version is an MLflow model: MLflow's own tools load and serve what the API serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec
import pytest
import urllib3

from lab.registry import Registry
from tests.conftest import free_port
from tests.lab.conftest import BENIGN, eventually

URI = "models:/breast-cancer-wisconsin@champion"
RECORDS = [
    BENIGN,
    {**BENIGN, "clump_thickness": 9, "uniformity_of_cell_size": 8, "bare_nuclei": None},
    {**dict.fromkeys(BENIGN, 10), "mitoses": 1},
]
LOAD = """
import msgspec, sys, mlflow, pandas
records = msgspec.json.decode(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
assert set(model.metadata.flavors) == {"onnx", "python_function"}
assert model.metadata.signature.inputs and model.metadata.saved_input_example_info
columns = model.metadata.metadata["features"]
frame = pandas.DataFrame(records).astype("float64")[columns]
print(msgspec.json.encode(model.predict(frame)["probabilities"][:, 1].tolist()).decode())
"""


@pytest.fixture
def expected(lab) -> list[float]:
    """Return the API's probabilities for RECORDS."""
    answers = [lab.api("POST", "/predict", record) for record in RECORDS]
    assert [status for status, _ in answers] == [200] * len(RECORDS)
    return [answer["probability"] for _, answer in answers]


def test_mlflow_loads_the_champion_by_its_alias(lab, expected):
    environment = {"MLFLOW_TRACKING_URI": lab.url("MLFLOW_PORT")}
    output = lab.python("-c", LOAD, msgspec.json.encode(RECORDS).decode(), URI, **environment)
    assert msgspec.json.decode(output.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)


def test_mlflow_serves_the_champion(lab, expected):
    """`mlflow models serve` takes records as rows of numbers, in the order of the card."""
    port = free_port(set())
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", URI, "--env-manager", "local"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=lab.root,
        env={**lab.env, "MLFLOW_TRACKING_URI": lab.url("MLFLOW_PORT"), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    features = [feature["name"] for feature in lab.api("GET", "/model")[1]["card"]["features"]]
    rows = [[record[name] for name in features] for record in RECORDS]
    try:
        url = f"http://127.0.0.1:{port}"
        assert eventually(lambda: _answers(f"{url}/health"), 120), server.communicate(timeout=1)[0][-3000:]
        answer = urllib3.request("POST", f"{url}/invocations", json={"inputs": rows}, timeout=60)
        assert answer.status == 200, answer.data
        served = answer.json()["predictions"]["probabilities"]
        assert [pair[1] for pair in served] == pytest.approx(expected, abs=1e-6)
    finally:
        _end(server)


def test_the_registry_shows_its_signature(lab):
    """The package in the registry has an MLmodel file with the signature, which the registry's page shows."""
    version = Registry(lab.url("MLFLOW_PORT"), "breast-cancer-wisconsin").champion()
    registry = Registry(lab.url("MLFLOW_PORT"), version.model)
    text = urllib3.request("GET", registry.artifact_url(f"{version.package_path}/MLmodel")).data.decode()
    assert "python_function" in text
    assert "signature" in text


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """Kill the server with the workers that it started."""
    os.killpg(server.pid, signal.SIGKILL)
    server.communicate(timeout=30)
