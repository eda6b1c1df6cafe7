"""Make packages with ONNX's own helpers: a sound one, and parts of unsound ones."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    StringStringEntryProto,
    TensorProto,
    helper,
    numpy_helper,
)

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
WEIGHTS = np.array([[-1.0, 1.0], [-0.5, 0.5]], np.float32)
NAME = "small"
Nodes = list[NodeProto]


def constant(name: str, value: Any, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def dense(source: str = "features", target: str = "probabilities") -> Nodes:
    """The sound model: a logistic regression of two features."""
    return [
        helper.make_node("MatMul", [source, "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], [target], axis=-1),
    ]


def graph(nodes: Nodes, *constants: TensorProto, width: Any = 2, rows: Any = "n", kind: int = FLOAT) -> GraphProto:
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("features", FLOAT, [rows, width])],
        [helper.make_tensor_value_info("probabilities", kind, None)],
        [constant("weights", WEIGHTS), *constants],
    )


def proto(body: GraphProto, **more: Any) -> ModelProto:
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 21), ("ai.onnx.ml", 3), ("com.microsoft", 1), ("evil", 1))]
    return helper.make_model(body, ir_version=10, opset_imports=opsets, producer_name="t", **more)


def model(nodes: Nodes, *constants: TensorProto, **more: Any) -> bytes:
    return written(proto(graph(nodes, *constants, **more)))


def written(model: ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def after(*nodes: NodeProto, constants: tuple[TensorProto, ...] = ()) -> bytes:
    """The sound model, whose answer `p` these nodes turn into `probabilities`."""
    return model([*dense(target="p"), *nodes], *constants)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


SOUND = model(dense())


def package(onnx: bytes, values: dict[str, Any] | None = None) -> tuple[bytes, bytes]:
    """The files of a package; the card has the hash of the model."""
    card = copy.deepcopy(values if values is not None else card_values())
    card["model_sha256"] = hashlib.sha256(onnx).hexdigest()
    return msgspec.json.encode(card), onnx


def expected(rows: list[list[float]]) -> list[float]:
    scores = np.array(rows) @ WEIGHTS
    return (1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))).tolist()


def card_values() -> dict[str, Any]:
    """A card of two features, from -9 to 9, as JSON values; both are real and neither may be missing."""
    rows = [[1.0, 2.0], [-3.0, 0.5], [0.25, -4.0], [0.0, 0.0]]
    bins = {"edges": [0.0, 1.0], "shares": [1.0], "missing": 0.0}
    feature = {"label": "x", "min": -9.0, "max": 9.0, "type": "real", "nullable": False}
    texts = ("git_commit", "data_md5", "params_sha256", "code_sha256", "fingerprint", "run_id")
    return {
        "schema_version": 1,
        "problem": NAME,
        "title": "Small",
        "features": [{"name": "a", **feature}, {"name": "b", **feature}],
        "classes": {"negative": "no", "positive": "yes"},
        "threshold": 0.5,
        "metrics": {"roc_auc": {"mean": 1.0, "sd": 0.0}},
        "operating": {"threshold": 0.5, "recall": 1.0, "precision": 1.0, "specificity": 1.0},
        "feature_reference": {"a": bins, "b": bins},
        "score_reference": bins,
        "self_test": {"rows": rows, "probabilities": expected(rows)},
        "recipe": {"candidate": "c", "estimator": "e", "settings": {}, "grid": {}, "best": {}},
        "lineage": {**dict.fromkeys(texts, ""), "git_dirty": False, "packages": {}},
        "params": {},
        "model_sha256": "",
    }


def outside(name: str = "weights", place: str = ".env") -> TensorProto:
    """Weights whose bytes are in another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "16")):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    return tensor


def tree(*nodes: tuple[int, int, float]) -> bytes:
    """A tree: by node, its children where the first feature is at most a value and where not; (0, 0, _) is a leaf."""
    leaves = [number for number, (yes, no, _) in enumerate(nodes) if yes == no == 0]
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * len(nodes),
        nodes_nodeids=list(range(len(nodes))),
        nodes_featureids=[0] * len(nodes),
        nodes_modes=["LEAF" if yes == no == 0 else "BRANCH_LEQ" for yes, no, _ in nodes],
        nodes_values=[value for _, _, value in nodes],
        nodes_truenodeids=[yes for yes, _, _ in nodes],
        nodes_falsenodeids=[no for _, no, _ in nodes],
        class_treeids=[0] * len(leaves),
        class_nodeids=leaves,
        class_ids=[1] * len(leaves),
        class_weights=[0.5] * len(leaves),
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )
    return model([node])


LEAF = (0, 0, 0.0)
# Round and round between nodes 1 and 2, but only where the first feature is between 7.9 and 8.2.
CIRCLE = tree((4, 1, 7.9), (2, 5, 8.2), (1, 6, 8.5), *[LEAF] * 4)


def on(value: float, result: float = np.nan) -> bytes:
    """A model that passes every check and gives `result` where the first feature is `value`."""
    rows = [
        node("Gather", "features first", "f", axis=1),
        node("Equal", "f value", "e"),
        node("Where", "e odd p", "probabilities"),
    ]
    return after(*rows, constants=(constant("first", [0], np.int64), constant("value", value), constant("odd", result)))


def put(folder: Path, version: int, files: tuple[bytes, bytes]) -> Path:
    """Write the package in the form in which the API stores it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.msgpack"
    path.write_bytes(msgspec.msgpack.encode({"version": version, "card": files[0], "model": files[1]}))
    return path
