"""Tests of a service that cannot start, a killed supervisord, `reset`, and a second table in a fresh state."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import psutil
import pytest

from lab import problem
from tests.conftest import own_processes
from tests.lab.test_lab import eventually
from tests.public import SMALL, TABLES, ask, commit, make, new, write

CRABS = "tables/crabs/params.yaml"


def _supervisord(lab) -> psutil.Process | None:
    return next((p for p in own_processes(lab) if "supervisord" in " ".join(p.cmdline())), None)


def test_a_service_that_cannot_start_shows_its_own_log(lab):
    """`up` shows the end and the path of a failed service's log, and starts the service when the fault is fixed."""
    lab.python("-m", "launcher", "down")
    entry = lab.root / "api" / "__init__.py"
    text = entry.read_text()
    entry.write_text("this is no Python\n" + text)
    process = lab.run(sys.executable, "-m", "launcher", "up")
    entry.write_text(text)
    assert process.returncode == 1
    assert "API does not start. Its log ends:" in process.stderr
    assert "SyntaxError" in process.stderr
    assert "api.log" in process.stderr
    assert "is served" in lab.python("-m", "launcher", "up")


def test_reset_asks_and_leaves_nothing_running(lab):
    """`reset` refuses without a terminal, keeps the state on `no`, and with --yes removes it and orphan processes."""
    _supervisord(lab).kill()
    assert eventually(lambda: _supervisord(lab) is None)
    refusals = lab.run(sys.executable, "-m", "launcher", "reset")
    assert refusals.returncode == 1
    assert "asks before it removes" in refusals.stderr
    ours, theirs = pty.openpty()
    os.write(ours, b"no\n")
    output = subprocess.run(
        [sys.executable, "-m", "launcher", "reset"],
        cwd=lab.root,
        env=lab.env,
        stdin=theirs,
        capture_output=True,
        timeout=300,
    )
    assert b"nothing was removed" in output.stdout
    assert (lab.root / ".lab" / "mlflow" / "mlflow.db").is_file()
    lab.python("-m", "launcher", "reset", "--yes")
    assert not (lab.root / ".lab").exists()
    assert own_processes(lab) == []
    assert (lab.root / ".env").is_file()


def test_another_table_needs_no_python(lab):
    """`make up PARAMS=…` serves a table with other names, bounds and classes and with real-valued features."""
    output = lab.python("-m", "launcher", "up", PARAMS=CRABS)
    assert "champion version 1 is served" in output
    assert "wrote tables/crabs/dvc.yaml" in output
    card = lab.api("GET", "/model")[1]["card"]
    assert (card["problem"], card["features"][0]["type"]) == ("leptograpsus-crabs", "real")
    rows = (lab.root / "tables/crabs/data/source/crabs.csv").read_text().splitlines()
    right = 0
    for row in rows[1::20]:
        *values, colour = row.split(",")
        record = dict(zip([f["name"] for f in card["features"]], map(float, values), strict=True))
        status, answer = lab.api("POST", "/predict", record)
        assert status == 200
        right += answer["label"] == {"B": "blue", "O": "orange"}[colour]
    assert right >= 8, "these crabs are among those it was trained on"
    assert "up to date" in lab.run("dvc", "status", "tables/crabs/dvc.yaml").stdout
    pulled = lab.run("dvc", "status", "--cloud", "tables/crabs/dvc.yaml")
    assert "Cache and remote 'lab' are in sync" in pulled.stdout, pulled.stdout + pulled.stderr


@pytest.mark.parametrize("name", SMALL)
def test_a_public_table_is_served_after_two_commands(lab, tmp_path, name):
    """`make new` and `make up` alone bring a champion that finds the classes of the table itself."""
    public = next(each for each in TABLES if each.name == name)
    tools = (f"VENV={sys.prefix}", f"PYTHON={sys.executable}")
    new(lab, public, write(public, tmp_path), *tools)
    commit(lab, public)
    make(lab, "up", f"PARAMS=tables/{public.folder}/params.yaml", *tools)
    candidate, auc = ask(lab, public)
    assert candidate in ("logistic-regression", "boosted-trees")
    floor = problem.load(lab.root / "tables" / public.folder / "params.yaml").choice.floors["roc_auc"]
    assert auc >= floor > 0.6
