"""FastAPI as in its own tutorial: a pydantic model for the body, and a plain `def` for work that blocks."""

# This file has no `from __future__ import annotations`, because FastAPI needs the class itself.
import numpy as np
from fastapi import FastAPI
from pydantic import create_model

from loadtests.bench.apps.model import load

app = FastAPI()
pipeline, features = load()
Record = create_model("Record", **dict.fromkeys(features, (float | None, ...)))  # type: ignore[call-overload]


@app.post("/predict")
def predict(record: Record) -> dict[str, float]:  # type: ignore[valid-type]
    row = np.array([[getattr(record, name) for name in features]], dtype=float)
    return {"probability": float(pipeline.predict_proba(row)[0, 1])}
