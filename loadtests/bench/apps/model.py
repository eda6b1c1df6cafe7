"""Load the fitted pipeline for the scikit-learn servers, which run in the environment .venv-bench."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib


def load() -> tuple[Any, list[str]]:
    """The pipeline and the names of its features, in order; both as `loadtests.bench.model` wrote them."""
    pipeline, features = joblib.load(Path(os.environ["BENCH_PIPELINE"]))
    return pipeline, features
