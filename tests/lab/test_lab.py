"""Tests of the lab that a newcomer has after `make up`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import msgspec
import psutil
import pytest
import urllib3

from lab.settings import SETTINGS
from tests.conftest import own_processes

BENIGN = {
    "clump_thickness": 1,
    "uniformity_of_cell_size": 1,
    "uniformity_of_cell_shape": 1,
    "marginal_adhesion": 1,
    "single_epithelial_cell_size": 2,
    "bare_nuclei": 1,
    "bland_chromatin": 1,
    "normal_nucleoli": 1,
    "mitoses": 1,
}
MALIGNANT = {**dict.fromkeys(BENIGN, 9), "mitoses": 3}


def eventually(condition, seconds: float = 240):
    """Wait until the condition is true; the time limit is generous, because the tests do not measure speed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return False


def test_up_leaves_the_work_tree_as_it_was(lab):
    """The first `make up` changes no file of a clone, even with another Python than the one that wrote dvc.lock."""
    assert (lab.root / ".lab" / "git-status").read_text() == ""


def test_up_ends_with_the_table(lab):
    """At the end of `make up` every service is up, and the table has its address and no secret."""
    output = (lab.root / "up.log").read_text()
    for port in ("API_PORT", "DASHBOARD_PORT", "MLFLOW_PORT", "S3_PORT"):
        assert lab.url(port) in output
    assert "up, version 1" in output
    env_values = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines()[1:])
    secrets = [env_values[setting.name] for setting in SETTINGS if setting.secret]
    assert all(len(secret) == 40 and secret not in output for secret in secrets)


def test_everything_listens_on_the_loopback_only(lab):
    """No process of the lab is reachable from another machine."""
    own = {p.pid for p in own_processes(lab)}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in own]
    assert len(listening) >= 10
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


@pytest.mark.parametrize(("record", "label"), [(BENIGN, "benign"), (MALIGNANT, "malignant")])
def test_the_champion_answers(lab, record, label):
    """A prediction has its label, its probability and the model's version, and a missing value is accepted."""
    for each in (record, {**record, "bare_nuclei": None}):
        status, answer = lab.api("POST", "/predict", each)
        assert (status, answer["label"]) == (200, label)
        assert answer["model"] == {"name": "breast-cancer-wisconsin", "version": 1}
        assert (answer["probability"] >= answer["threshold"]) == (label == "malignant")


def test_every_wrong_field_is_named(lab):
    """One answer names every field that is out of bounds, not a number, not a whole number, missing or unknown."""
    record = {**BENIGN, "clump_thickness": 11, "mitoses": "1", "bland_chromatin": 1.5, "colour": 1}
    del record["marginal_adhesion"]
    status, answer = lab.api("POST", "/predict", record)
    assert status == 422
    assert {e["pointer"].removeprefix("#/") for e in answer["errors"]} == {
        "clump_thickness",
        "mitoses",
        "bland_chromatin",
        "colour",
        "marginal_adhesion",
    }


def test_the_card_says_where_the_model_comes_from(lab):
    """The card's lineage has the commit, the fact that the checkout was clean, and DVC's hash of the data."""
    card = lab.api("GET", "/model")[1]["card"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=lab.root, capture_output=True, text=True).stdout.strip()
    assert (card["lineage"]["git_commit"], card["lineage"]["git_dirty"]) == (head, False)
    lock = msgspec.yaml.decode((lab.root / "dvc.lock").read_bytes())
    data = lock["stages"]["ingest"]["outs"][0]
    assert card["lineage"]["data_md5"] == data["md5"]
    assert (
        hashlib.md5((lab.root / "data" / "dataset.csv").read_bytes(), usedforsecurity=False).hexdigest() == data["md5"]
    )


def test_the_runs_are_in_mlflow(lab):
    """MLflow has one run per candidate under one parent run, with fold metrics, plots and the dataset as input."""
    runs = _search_runs(lab)
    children = {r["info"]["run_name"]: r for r in runs if r["info"]["run_name"] != "training"}
    assert set(children) == {"logistic-regression", "k-nearest-neighbours"}
    parent = next(r for r in runs if r["info"]["run_name"] == "training")
    for run in children.values():
        tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
        assert tags["mlflow.parentRunId"] == parent["info"]["run_id"]
        names = {m["key"] for m in run["data"]["metrics"]}
        for metric in ["roc_auc", "average_precision", "recall", "precision", "f1", "accuracy", "brier", "log_loss"]:
            assert {metric, f"{metric}.sd", f"fold.{metric}"} <= names
        assert run["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == tags["data.md5"]
        url = f"{lab.url('MLFLOW_PORT')}/api/2.0/mlflow/artifacts/list?run_id={run['info']['run_id']}&path=plots"
        plots = {f["path"] for f in urllib3.request("GET", url).json()["files"]}
        assert plots == {f"plots/{n}.png" for n in ("roc", "precision_recall", "calibration", "confusion")}


def _search_runs(lab):
    base = f"{lab.url('MLFLOW_PORT')}/api/2.0/mlflow"
    name = "breast-cancer-wisconsin"
    url = f"{base}/experiments/get-by-name?experiment_name={name}"
    experiment = urllib3.request("GET", url).json()["experiment"]["experiment_id"]
    body = {"experiment_ids": [experiment], "max_results": 100}
    return urllib3.request("POST", f"{base}/runs/search", json=body).json()["runs"]


def _versions(lab) -> int:
    url = f"{lab.url('MLFLOW_PORT')}/api/2.0/mlflow/model-versions/search?filter=name%3D%27breast-cancer-wisconsin%27"
    return len(urllib3.request("GET", url).json().get("model_versions", []))


READ_LEDGER = (
    "from lab import settings; from lab.ledger import Ledger; import msgspec, sys;"
    "sys.stdout.buffer.write(msgspec.json.encode(Ledger(settings.load(), 'breast-cancer-wisconsin').read().entries))"
)


def test_the_same_again_registers_nothing(lab):
    """With the same data, parameters and code, training adds no version and no entry, and reports the reason."""
    output = lab.python("-m", "launcher", "train")
    assert output.count("didn't change, skipping") == 3
    assert "unchanged: " in output
    assert "accuracy" in output
    assert "cannot tell them apart" in output
    assert _versions(lab) == 1
    entries = msgspec.json.decode(lab.python("-c", READ_LEDGER))
    assert [(e["decision"], e["from_version"], e["to_version"]) for e in entries] == [("promoted", None, 1)]
    assert entries[0]["figures"]["comparison"][0]["metric"] == "roc_auc"


def test_a_lock_file_that_dvc_left_empty_is_made_again(lab):
    """`make train` restores a dvc.lock that a kill left empty, and takes the results from DVC's cache."""
    lock = lab.root / "dvc.lock"
    before = lock.read_text()
    lock.write_text("")
    output = lab.python("-m", "launcher", "train")
    assert output.count("is cached") == 3
    assert lock.read_text() == before
    assert "up to date" in lab.run("dvc", "status", "dvc.yaml").stdout


def test_up_again_is_harmless(lab):
    """A second `up` starts nothing, trains nothing and ends with the table."""
    before = {p.pid for p in own_processes(lab)}
    output = lab.python("-m", "launcher", "up")
    assert "champion version 1 is served" in output
    after = {p.pid for p in own_processes(lab)}
    assert before <= after
    assert _versions(lab) == 1


def test_dvc_pull_gives_the_bytes_back(lab):
    """With the dataset and the cache gone, `dvc pull dvc.yaml` brings the same bytes from S3."""
    path = lab.root / "data" / "dataset.csv"
    before = path.read_bytes()
    path.unlink()
    subprocess.run(["rm", "-rf", str(lab.root / ".lab" / "dvc-cache")], check=True)
    process = lab.run("dvc", "pull", "--quiet", "dvc.yaml:ingest")
    assert process.returncode == 0, process.stderr
    assert path.read_bytes() == before
    # All of the lab's own; of the other table in the clone nothing is in S3.
    assert lab.run("dvc", "pull", "--quiet", "dvc.yaml").returncode == 0
    everything = lab.run("dvc", "pull")
    assert everything.returncode != 0
    assert "tables/own-table" in everything.stdout + everything.stderr


def test_a_killed_api_comes_back(lab):
    """supervisord restarts a killed API, and the API serves the champion again."""
    for process in own_processes(lab):
        if "api.workers" in " ".join(process.cmdline()):
            process.kill()

    def ready() -> bool:
        try:
            return lab.api("GET", "/readyz")[0] == 200
        except (urllib3.exceptions.HTTPError, msgspec.DecodeError):
            return False

    assert eventually(ready)


def test_mlflow_away_is_one_message_and_no_broken_champion(lab):
    """Without MLflow `make train` fails with one message and a remedy, and the champion keeps answering."""
    process = lab.run(sys.executable, "-m", "launcher", "train", MLFLOW_URL="http://127.0.0.1:9")
    assert process.returncode == 1
    assert "nothing usable answers at http://127.0.0.1:9/" in process.stderr
    assert "What to do" in process.stderr
    assert lab.api("POST", "/predict", BENIGN)[0] == 200


def test_the_dashboard_is_there(lab):
    """The dashboard serves its page."""
    assert urllib3.request("GET", lab.url("DASHBOARD_PORT")).status == 200
