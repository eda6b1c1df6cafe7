"""The search on an existing Dask cluster."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from lab import problem
from lab.errors import LabError
from trainer import evaluate
from trainer.export import export


def small() -> tuple[problem.Problem, evaluate.Table]:
    stated = problem.parse(
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
    return stated, evaluate.Table(x, y, None)


def test_a_dask_cluster_gives_the_same_results():
    """Scores, out-of-fold probabilities, the picked grid point and the model's bytes are those of this machine."""
    from distributed import LocalCluster

    stated, data = small()
    here = evaluate.evaluate(stated, stated.candidates, data)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        evaluate.backend(cluster.scheduler_address),
    ):
        there = evaluate.evaluate(stated, stated.candidates, data)
        assert cluster.scheduler.transition_counter > 0, "the cluster did nothing"
    for name in stated.candidates:
        assert here[name].folds == there[name].folds
        assert here[name].best == there[name].best
        assert np.array_equal(here[name].oof, there[name].oof)
        assert export(here[name].model, data.x, 0.5, "m") == export(there[name].model, data.x, 0.5, "m")


def test_no_scheduler_is_one_message(monkeypatch):
    """An address where nothing answers: what to do is said."""
    import distributed

    real = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda a, **k: real(a, **{**k, "timeout": "1s"}))
    with pytest.raises(LabError, match="no Dask scheduler answers"), evaluate.backend("tcp://127.0.0.1:9"):
        pass


def test_another_seed_gives_other_scores():
    """The equality above is no triviality."""
    stated, data = small()
    other = msgspec.structs.replace(stated, evaluation=msgspec.structs.replace(stated.evaluation, seed=2))
    name = {"logistic-regression": stated.candidates["logistic-regression"]}
    assert evaluate.evaluate(stated, name, data)["logistic-regression"].folds != (
        evaluate.evaluate(other, name, data)["logistic-regression"].folds
    )
