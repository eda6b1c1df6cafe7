"""BentoML as in its documentation: a service class with a typed method."""

import bentoml
import numpy as np

from loadtests.bench.apps.model import load


@bentoml.service(workers=2)
class Classifier:
    def __init__(self) -> None:
        self.pipeline, _ = load()

    @bentoml.api
    def predict(self, rows: list[list[float | None]]) -> list[float]:
        scores: list[float] = self.pipeline.predict_proba(np.array(rows, dtype=float))[:, 1].tolist()
        return scores
