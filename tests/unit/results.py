"""Results of trainings, made without a training, with the values that the gate reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from lab import problem
from lab.card import Recipe
from lab.settings import ROOT
from trainer.results import Result

CANCER = problem.load(ROOT / "params.yaml")


def recipe(name: str) -> Recipe:
    return Recipe(candidate=name, estimator=name, settings={}, grid={}, best={})


def promise(scores: Sequence[float]) -> dict[str, Any]:
    value = float(np.mean(scores))
    return {"value": value, "low": value, "high": value, "method": "folds", "rows": 10}


def result(
    name: str, scores: Sequence[float], fingerprint: str = "", refusal: str = "", data_md5: str = "", **metrics: float
) -> Result:
    """A candidate with these scores in ROC AUC and in recall, and these values of other metrics."""
    promises = {"roc_auc": promise(scores), "recall": promise(scores)}
    promises |= {metric: promise([value]) for metric, value in metrics.items()}
    return msgspec.convert(
        {
            "recipe": msgspec.to_builtins(recipe(name)),
            "fingerprint": fingerprint or name,
            "data_md5": data_md5,
            "code_sha256": "",
            "packages": {},
            "features": list(CANCER.features),
            "folds": {"roc_auc": scores, "recall": scores},
            "rows": 10,
            "prevalence": 0.5,
            "promises": promises,
            "calibration": None,
            "threshold": 0.5,
            "refusal": refusal,
            "model_sha256": "",
            "self_test": {"rows": [], "probabilities": []},
            "feature_reference": {},
            "score_reference": {"edges": [], "shares": [], "missing": 0.0},
        },
        Result,
    )
