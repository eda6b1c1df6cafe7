"""Write a model package as an MLflow model, so that MLflow's own tools load and serve the same model as the API."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lab import card as cards
from lab.card import Card

# The packages that MLflow needs to run the model, besides itself.
RUNTIME = ("numpy", "onnx", "onnxruntime", "pandas")


def write(folder: Path, card: Card, model: bytes) -> None:
    """Write `folder` with model.onnx and card.json, byte for byte, and MLflow's own files beside them.

    MLflow's own loader loads both flavours, `onnx` and `python_function`, so loading the model executes no code from
    the package. The input is one array of shape (rows, features) in the order of the card, NaN for a missing value; a
    DataFrame of numbers with these columns also works. The output has two arrays: `label`, of shape (rows,), at the
    threshold 0.5, and `probabilities`, of shape (rows, 2). The second column has the probabilities that the API gives.
    """
    import mlflow.onnx
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    features = len(card.features)
    inputs = Schema([TensorSpec(np.dtype("float64"), (-1, features))])
    outputs = Schema(
        [
            TensorSpec(np.dtype("int64"), (-1,), name="label"),
            TensorSpec(np.dtype("float32"), (-1, 2), name="probabilities"),
        ]
    )
    mlflow.onnx.save_model(
        onnx.load_model_from_string(model),
        str(folder),
        mlflow_model=Model(run_id=card.lineage.run_id, artifact_path=folder.name),
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        input_example=_example(card),
        pip_requirements=[f"mlflow=={mlflow.__version__}", *(f"{name}=={version(name)}" for name in RUNTIME)],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        metadata={"features": [feature.name for feature in card.features], "threshold": card.threshold},
    )
    (folder / cards.MODEL_FILE).write_bytes(model)
    (folder / cards.CARD_FILE).write_bytes(cards.encode(card))


def _example(card: Card) -> Any:
    """A record of values in the middle of the bounds. It is not a real record, which may be personal data."""
    middles = [(feature.min + feature.max) / 2 for feature in card.features]
    return np.array(
        [[round(m) if f.type == "integer" else m for f, m in zip(card.features, middles, strict=True)]], float
    )
