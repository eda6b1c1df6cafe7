"""Tests of data revisions, another candidate, reproduction, and failures in the middle of the pipeline."""

from __future__ import annotations

import shutil
import sys

import msgspec
import urllib3

from lab import champion, ledger
from lab.ledger import Ledger
from lab.registry import Registry
from tests.lab.test_cut import settings_of
from tests.lab.test_lab import BENIGN, READ_LEDGER, eventually

NAME = "breast-cancer-wisconsin"
FOREST = "  random-forest:\n    estimator: sklearn.ensemble.RandomForestClassifier\n    settings: {n_estimators: 20}\n"


def commit(lab, message: str) -> None:
    process = lab.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-qam", message)
    assert process.returncode == 0, process.stderr


def served(lab) -> int:
    return lab.api("GET", "/readyz")[1]["version"]


def test_an_earlier_revision_and_three_lines_more(lab):
    """An earlier revision and a third candidate need only YAML: the pipeline trains, promotes and reproduces a version,
    the running API follows it, and git and S3 restore the bytes of the first revision.
    """
    dataset = lab.root / "data" / "dataset.csv"
    whole, champion = dataset.read_bytes(), served(lab)
    commit(lab, "whole table")
    params = lab.root / "params.yaml"
    text = params.read_text().replace("until: 1991-11", "until: 1990-02")
    params.write_text(text.replace("candidates:", "candidates:\n" + FOREST.rstrip() + "\n  #", 1))
    commit(lab, "earlier revision, a forest")

    output = lab.python("-m", "launcher", "train")
    assert "468 rows ingested" in output
    assert "random-forest: trained, ONNX agrees" in output
    assert "promoted: " in output
    assert eventually(lambda: served(lab) > champion)
    entry = msgspec.json.decode(lab.python("-c", READ_LEDGER))[-1]
    assert (entry["decision"], entry["from_version"], entry["to_version"]) == ("promoted", champion, served(lab))
    commit(lab, "its dvc.lock")

    process = lab.run(sys.executable, "-m", "trainer", "reproduce", "--version", str(served(lab)))
    assert process.returncode == 0, process.stdout + process.stderr
    assert [line.split()[:2] for line in process.stdout.splitlines() if "note:" not in line] == [
        [what, "same"] for what in ("code", "data", "metrics", "predictions")
    ]

    shutil.rmtree(lab.root / ".lab" / "dvc-cache")
    assert lab.run("git", "checkout", "-q", "HEAD~2", "--", "params.yaml", "dvc.lock").returncode == 0
    pulled = lab.run("dvc", "pull", "--quiet", "--force", "dvc.yaml:ingest")
    assert pulled.returncode == 0, pulled.stderr
    assert dataset.read_bytes() == whole
    assert lab.run("git", "checkout", "-q", "HEAD", "--", ".").returncode == 0
    assert lab.run("dvc", "pull", "--quiet", "--force", "dvc.yaml").returncode == 0
    assert len(dataset.read_bytes().splitlines()) == 469


def test_an_altered_package_is_refused_and_the_old_one_serves(lab):
    """A version whose model does not match its card is never served, /readyz gives the reason, and the trainer's
    `promote` replaces that version as champion with a sound one.
    """
    registry = Registry(lab.url("MLFLOW_PORT"), NAME)
    good = registry.champion()
    path = f"{registry.run_artifacts(good.run_id)}/altered"
    url = f"{registry.url}/api/2.0/mlflow-artifacts/artifacts/{path}"
    card, model = registry.download(good)
    for name, body in (("card.json", card), ("model.onnx", model[:-1] + bytes([model[-1] ^ 1]))):
        assert urllib3.request("PUT", f"{url}/{name}", body=body).status == 200
    bad = registry.register(good.run_id, path, {})
    subject = ledger.Subject(candidate="c", fingerprint="f")
    forced = ledger.Forced(by="a test", model=NAME, reason="a test", subject=subject)
    champion.move(Ledger(settings_of(lab), NAME), registry, bad.number, good.number, forced)
    assert eventually(lambda: "its card says" in lab.api("GET", "/readyz")[1]["registry"])
    assert lab.api("POST", "/predict", BENIGN)[1]["model"]["version"] == good.number
    output = lab.python("-m", "trainer", "promote")
    assert "the champion's package is not sound" in output
    assert registry.champion().number == good.number
    assert eventually(lambda: lab.api("GET", "/readyz")[1]["registry"] == "followed")


def test_a_stage_that_fails_stops_the_pipeline(lab):
    """A value out of bounds stops the pipeline with an error status and a list of the rows, and the champion stays."""
    before = served(lab)
    params = lab.root / "params.yaml"
    text = params.read_text()
    params.write_text(
        text.replace("mitoses: {type: integer, min: 1, max: 10}", "mitoses: {type: integer, min: 1, max: 9}")
    )
    try:
        process = lab.run(sys.executable, "-m", "launcher", "train")
    finally:
        params.write_text(text)
    assert process.returncode == 1
    assert "mitoses: '10' is not a whole number from 1 to 9" in process.stdout + process.stderr
    assert "What to do" in process.stderr
    assert served(lab) == before
