"""The Flask app of most tutorials: read the JSON, make an array, ask scikit-learn."""

from __future__ import annotations

import numpy as np
from flask import Flask, Response, jsonify, request

from loadtests.bench.apps.model import load

app = Flask(__name__)
pipeline, features = load()


@app.post("/predict")
def predict() -> Response:
    record = request.get_json()
    row = np.array([[record[name] for name in features]], dtype=float)
    return jsonify({"probability": float(pipeline.predict_proba(row)[0, 1])})
