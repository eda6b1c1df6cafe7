"""`make collect` closes the circle: live records with their classes become a dated group of the next training."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from lab.registry import Registry
from tests.conftest import Lab, bring_up, make_lab
from tests.lab.test_lab import READ_LEDGER
from tests.lab.test_pipeline import NAME, commit
from trainer.ingest import md5

COLLECT = (sys.executable, "-m", "launcher", "collect")
# The number of rows of the table that clients ask about once more.
ROWS = 60
FILES = ("params.yaml", "data/collected.csv", "data/collected.csv.dvc")


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory):
    """A lab of its own, because collected records change the data of all later trainings."""
    instance = make_lab(tmp_path_factory.mktemp("collect"), ENGINE="embedded")
    try:
        bring_up(instance)
        yield instance
    finally:
        instance.run(sys.executable, "-m", "launcher", "down", seconds=300)


def ask(lab: Lab, record: dict, label: str, *more: str) -> str:
    """Ask for a prediction and report each of the labels for it; return the prediction's id."""
    status, answer = lab.api("POST", "/predict", record)
    assert status == 200, answer
    for each in (label, *more):
        assert lab.api("POST", "/feedback", {"prediction_id": answer["id"], "label": each})[0] == 202
    return answer["id"]


def table(lab: Lab) -> list[tuple[dict, str]]:
    """Records of the table and their labels, from its end, where both classes occur."""
    with (lab.root / "data" / "dataset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[-ROWS:]
    labels = {"2": "benign", "4": "malignant"}
    names = [name for name in rows[0] if name not in ("source_row", "reported", "sample_code_number", "class")]
    return [({name: int(row[name]) if row[name] else None for name in names}, labels[row["class"]]) for row in rows]


def files(lab: Lab) -> dict[str, bytes | None]:
    return {name: (lab.root / name).read_bytes() if (lab.root / name).exists() else None for name in FILES}


def dataset(lab: Lab) -> list[dict[str, str]]:
    with (lab.root / "data" / "dataset.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_live_records_become_a_group_that_the_gate_compares_on(own_lab):
    """Records with one class are shown, asked for, added with DVC, trained on and compared; a version that was trained
    on them is rebuilt in a fresh checkout.
    """
    lab = own_lab
    commit(lab, "before")
    before = files(lab)
    process = lab.run(*COLLECT)
    assert (process.returncode, "nothing new to collect" in process.stdout) == (0, True), process.stderr

    records = table(lab)
    ids = [ask(lab, record, label) for record, label in records]
    ask(lab, records[0][0], "benign", "malignant")
    assert lab.api("POST", "/predict", records[0][0])[0] == 200
    process = lab.run(*COLLECT)
    assert process.returncode == 1
    assert "make collect YES=1" in process.stderr
    assert files(lab) == before

    month = f"{datetime.now(UTC):%Y-%m}"
    output = lab.python("-m", "launcher", "collect", "--yes")
    assert "1 predictions with contradicting feedback" in output
    assert "1 predictions without feedback" in output
    assert f"added {ROWS} live records" in output
    assert "git add params.yaml data/collected.csv.dvc" in output
    assert f"until: {month}" in (lab.root / "params.yaml").read_text()
    assert "nothing new to collect" in lab.python("-m", "launcher", "collect", "--yes")
    status = lab.run("git", "status", "--porcelain", "--", "params.yaml", "data").stdout.splitlines()
    assert status == [" M params.yaml", "?? data/collected.csv.dvc"]
    assert lab.run("git", "add", "params.yaml", "data/collected.csv.dvc").returncode == 0
    commit(lab, "collected")

    champion = Registry(lab.url("MLFLOW_PORT"), NAME).champion()
    output = lab.python("-m", "launcher", "train")
    assert f"{699 + ROWS} rows ingested" in output
    group = [row for row in dataset(lab) if row["reported"] == month]
    assert [row["sample_code_number"] for row in group] == ids
    assert [row["source_row"] for row in group] == [str(700 + place) for place in range(ROWS)]
    entry = msgspec.json.decode(lab.python("-c", READ_LEDGER))[-1]
    assert entry["from_version"] == champion.number
    assert entry["subject"]["data_md5"] == md5(lab.root / "data" / "dataset.csv")
    assert entry["decision"] in ("promoted", "held", "rejected"), entry

    lab.python("-m", "launcher", "train", "--accept")
    present = Registry(lab.url("MLFLOW_PORT"), NAME).champion()
    assert present.number > champion.number
    (lab.root / "data" / "collected.csv").unlink()
    process = lab.run(sys.executable, "-m", "launcher", "reproduce", "--version", str(present.number))
    assert process.returncode == 0, process.stdout + process.stderr
    lab.python("-m", "launcher", "train")
    assert (lab.root / "data" / "collected.csv").exists()
