"""The search on an existing Dask cluster."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lab import problem
from lab.errors import LabError
from lab.settings import ROOT
from trainer import cluster, evaluate, folds
from trainer.export import export
from trainer.table import Table


def small() -> tuple[problem.Problem, Table]:
    definition = problem.parse(
        """
name: small
title: Small
source: {path: x.csv}
data: {until: ""}
id: ""
threshold: {recall: 0.95}
target: {column: y, negative: {value: "0", label: "no"}, positive: {value: "1", label: "yes"}}
features: {a: {type: real, min: -9, max: 9, nullable: true}, b: {type: real, min: -9, max: 9}}
candidates:
  logistic-regression: {estimator: sklearn.linear_model.LogisticRegression, grid: {C: [0.1, 1.0]}}
  random-forest: {estimator: sklearn.ensemble.RandomForestClassifier, settings: {n_estimators: 5}}
evaluation: {folds: 3, repeats: 1, inner_folds: 2, seed: 1}
"""
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 2))
    y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
    x[::9, 0] = np.nan
    return definition, Table(x, y, None)


def test_a_dask_cluster_gives_the_same_results():
    """Scores, out-of-fold probabilities, the chosen grid point and the model's bytes equal those of this machine."""
    from distributed import LocalCluster

    definition, data = small()
    here = evaluate.evaluate(definition, definition.candidates, data)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as dask,
        cluster.backend(dask.scheduler_address),
    ):
        remote = evaluate.evaluate(definition, definition.candidates, data)
        assert dask.scheduler.transition_counter > 0, "the cluster did nothing"
    for name in definition.candidates:
        assert here[name].folds == remote[name].folds
        assert here[name].best == remote[name].best
        assert np.array_equal(here[name].oof, remote[name].oof)
        assert export(here[name].model, data.x, 0.5, "m") == export(remote[name].model, data.x, 0.5, "m")


def test_no_scheduler_is_one_message(monkeypatch):
    """For an address where nothing answers, the message has a remedy."""
    import distributed

    real = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda a, **k: real(a, **{**k, "timeout": "1s"}))
    with pytest.raises(LabError, match="no Dask scheduler answers"), cluster.backend("tcp://127.0.0.1:9"):
        pass


def test_another_seed_gives_other_scores():
    """Another seed gives other scores, so that the equality above proves something."""
    definition, data = small()
    other = msgspec.structs.replace(definition, evaluation=msgspec.structs.replace(definition.evaluation, seed=2))
    name = {"logistic-regression": definition.candidates["logistic-regression"]}
    assert evaluate.evaluate(definition, name, data)["logistic-regression"].folds != (
        evaluate.evaluate(other, name, data)["logistic-regression"].folds
    )


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    """The address of a Dask scheduler without workers."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as cluster_here:
        yield cluster_here.scheduler_address


@contextlib.contextmanager
def worker(address: str, code: Path, name: str) -> Iterator[str]:
    """The address of a Dask worker, a process of its own that runs the code in a folder."""
    from distributed import Client

    words = [
        "worker",
        address,
        "--name",
        name,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *words],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with Client(address, set_as_default=False) as client:

            def place() -> str | None:
                workers = client.scheduler_info(n_workers=-1)["workers"]
                return next((where for where, about in workers.items() if about["name"] == name), None)

            deadline = time.monotonic() + 60
            while not (worker_address := place()) and time.monotonic() < deadline:
                time.sleep(0.1)
        assert worker_address, "the worker did not come"
        yield worker_address
    finally:
        process.terminate()
        process.wait(30)


def tree(target: Path) -> Path:
    """A copy of the code of the training."""
    for name in ("trainer", "lab"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_workers_with_another_trainer_are_named(tmp_path):
    """Workers with another trainer, or one from before this check, are named before they get work.

    The code that a worker has loaded counts, not the code on its disk.
    """
    other, old = tree(tmp_path / "other"), tree(tmp_path / "old")
    changed = other / "trainer" / "metrics.py"
    text = changed.read_text()
    changed.write_text(text.replace("probability >= threshold", "probability > threshold"))
    (old / "trainer" / "cluster.py").unlink()
    with scheduler() as address, worker(address, ROOT, "same"):
        with cluster.backend(address):
            pass
        with worker(address, other, "other") as stranger, worker(address, old, "old") as elder:
            for _ in range(2):
                with pytest.raises(LabError, match="2 of 3 Dask workers") as error, cluster.backend(address):
                    pytest.fail("it gave them work")
                lines = error.value.message.splitlines()[1:]
                assert sorted(re.findall(r"tcp://[\d.:]+\d", "".join(lines))) == sorted([stranger, elder])
                assert "other trainer code" in lines[0]
                assert "restart these workers" in error.value.remedy
                changed.write_text(text)  # too late for the worker that runs


def test_a_worker_with_another_package_is_named(monkeypatch):
    """The message has the package and both versions."""
    ours = cluster.lineage.packages()
    with scheduler() as address, worker(address, ROOT, "same") as place:
        monkeypatch.setattr(cluster.lineage, "packages", lambda: {**ours, "numpy": "0.1"})
        with pytest.raises(LabError, match=rf"{place}: numpy {ours['numpy']}, here 0.1"), cluster.backend(address):
            pytest.fail("it gave it work")


def test_a_cluster_without_workers_is_one_message(monkeypatch):
    """A cluster without workers is an error after a limited wait."""
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 1)
    with scheduler() as address, pytest.raises(LabError, match="no worker that answers"), cluster.backend(address):
        pytest.fail("it gave work to nobody")


def test_a_worker_that_comes_later_with_another_trainer_does_nothing():
    """A later worker with another trainer refuses its folds, because each fold names its code."""
    definition, data = small()
    name = "logistic-regression"
    search, fold = evaluate._search(definition, name, definition.candidates[name]), folds.plan(definition, data)[0]
    with pytest.raises(LabError, match="has other trainer code"):
        evaluate._run(name, search, data, fold, "0" * 64)
    assert len(evaluate._run(name, search, data, fold, cluster.CODE_SHA256).probability) == len(fold.test)
