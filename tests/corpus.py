"""Packages that an API must not serve: each one is sound except for one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    StringStringEntryProto,
    TensorProto,
    helper,
)

from tests.hostile import (
    CIRCLE,
    FLOAT,
    INT,
    LEAF,
    SOUND,
    Nodes,
    after,
    card_values,
    constant,
    dense,
    graph,
    model,
    node,
    outside,
    package,
    proto,
    tree,
    written,
)


def _with(change: Callable[[ModelProto], Any]) -> bytes:
    onnx_model = proto(graph(dense()))
    change(onnx_model)
    return written(onnx_model)


def _external() -> dict[str, bytes]:
    """Models with weights in another file, at every place where a tensor can stand."""

    def initializer(onnx_model: ModelProto) -> None:
        onnx_model.graph.initializer[0].CopyFrom(outside())

    def no_location(onnx_model: ModelProto) -> None:
        onnx_model.graph.initializer[0].ClearField("data_location")
        onnx_model.graph.initializer[0].external_data.append(StringStringEntryProto(key="location", value=".env"))

    def only_location(onnx_model: ModelProto) -> None:
        onnx_model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    def sparse(onnx_model: ModelProto) -> None:
        onnx_model.graph.sparse_initializer.add().values.CopyFrom(outside("s"))

    def training(onnx_model: ModelProto) -> None:
        onnx_model.training_info.add().initialization.initializer.append(outside())

    def function(onnx_model: ModelProto) -> None:
        body = [helper.make_node("Constant", [], ["y"], value=outside())]
        onnx_model.functions.append(helper.make_function("evil", "F", [], ["y"], body, [helper.make_opsetid("", 21)]))

    def tensors(onnx_model: ModelProto) -> None:
        attribute = onnx_model.graph.node[0].attribute.add(name="x", type=AttributeProto.TENSORS)
        attribute.tensors.append(outside())

    def hidden(onnx_model: ModelProto) -> None:  # in a field that the attribute's type does not point to
        onnx_model.graph.node[1].attribute[0].t.CopyFrom(outside())

    def branch(onnx_model: ModelProto) -> None:
        inner = helper.make_graph([], "i", [], [helper.make_tensor_value_info("w", FLOAT, None)], [outside("w")])
        onnx_model.graph.node.append(helper.make_node("If", ["features"], ["u"], then_branch=inner, else_branch=inner))

    changes = [initializer, no_location, only_location, sparse, training, function, tensors, hidden, branch]
    models = {f"external data: {change.__name__}": _with(change) for change in changes}
    absolute = _with(lambda made: made.graph.initializer[0].CopyFrom(outside(place="/etc/passwd")))
    in_node = model([helper.make_node("Constant", [], ["c"], value=outside()), *dense()])
    return {**models, "external data: absolute": absolute, "external data: constant": in_node}


def _loop(trips: Any) -> tuple[Nodes, list[TensorProto]]:
    """A loop that passes its value on `trips` times, a number or the name of a value."""
    body = helper.make_graph(
        [node("Identity", "go", "go_on"), node("Identity", "v", "v_next")],
        "body",
        [helper.make_tensor_value_info(n, k, []) for n, k in (("i", INT), ("go", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("v", FLOAT, None)],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", FLOAT, None),
        ],
    )
    constants = [constant("yes", True, np.bool_)]
    if not isinstance(trips, str):
        constants.append(constant("trips", trips, np.int64))
    loop = helper.make_node("Loop", ["trips", "yes", "features"], ["looped"], body=body)
    return [loop, *dense("looped")], constants


def _control_flow() -> dict[str, bytes]:
    endless, constants = _loop(2**62)
    graph_of_loop, more = _loop("trips")
    first = [
        node("ReduceMax", "features", "greatest", keepdims=0),
        helper.make_node("Cast", ["greatest"], ["trips"], to=INT),
    ]
    inner = helper.make_graph(
        [node("Identity", "features", "o")], "i", [], [helper.make_tensor_value_info("o", FLOAT, None)]
    )
    step = helper.make_graph(
        [node("Identity", "s", "t")],
        "step",
        [helper.make_tensor_value_info("s", FLOAT, None)],
        [helper.make_tensor_value_info("t", FLOAT, None)],
    )
    mapped = [
        node("SequenceConstruct", "features", "q"),
        helper.make_node("SequenceMap", ["q"], ["m"], body=step),
        node("ConcatFromSequence", "m", "x", axis=0),
    ]
    body = [helper.make_node("Softmax", ["x"], ["y"])]
    function = helper.make_function("evil", "Softmax", ["x"], ["y"], body, [helper.make_opsetid("", 21)])
    shadow = helper.make_function("", "Softmax", ["x"], ["y"], body, [helper.make_opsetid("", 21)])
    call = [dense()[0], helper.make_node("Softmax", ["scores"], ["probabilities"], domain="evil")]
    return {
        "endless loop": model(endless, *constants),
        "loop that a request sets": model([*first, *graph_of_loop], *more),
        "if": model(
            [helper.make_node("If", ["yes"], ["x"], then_branch=inner, else_branch=inner), *dense("x")], constants[0]
        ),
        "scan": model([helper.make_node("Scan", ["features"], ["x"], body=step, num_scan_inputs=1), *dense("x")]),
        "sequence map": model([*mapped, *dense("x")]),
        "function": written(_functions(call, function)),
        "function for a known operator": written(_functions(dense(), shadow)),
        "function that is not called": written(_functions(dense(), function)),
        "graph in an unused attribute": _with(
            lambda made: made.graph.node[0].attribute.add(name="g").g.CopyFrom(inner)
        ),
        "custom domain": model(call),
        "unknown operator": model([dense()[0], node("Sooftmax", "scores", "probabilities")]),
        "operator that reads files": model(
            [helper.make_node("EPContext", ["features"], ["x"], domain="com.microsoft"), *dense()]
        ),
        "random": model([node("RandomNormalLike", "features", "x"), *dense("x")]),
    }


def _functions(nodes: Nodes, *functions: FunctionProto) -> ModelProto:
    return proto(graph(nodes), functions=functions)


def _heavy() -> dict[str, bytes]:
    """Small files that need much memory, time or stack."""
    big = constant("big", [20_000, 20_000], np.int64)
    square = constant("square", [600, 600], np.int64)
    # They depend on the features, or the runtime would compute them once, when it loads the model.
    chain = [node("ReduceMax", "features", "most", keepdims=0), node("Mul", "most zero", "nil")]
    chain += [node("ConstantOfShape", "square", "square_0"), node("Add", "square_0 nil", "m0")]
    chain += [node("MatMul", f"m{i} m0", f"m{i + 1}") for i in range(3_000)]
    used = [node("ReduceMax", "m3000", "z", keepdims=0), node("Add", "p z", "probabilities")]
    zero = constant("zero", 0)

    def added(name: str) -> Nodes:
        """The sound model on the features and the greatest value of this."""
        return [node("ReduceMax", name, "z", keepdims=0), node("Add", "features z", "x"), *dense("x")]

    greatest = [node("ReduceMax", "features", "greatest", keepdims=0), node("Cast", "greatest", "k", to=INT)]
    return {
        "1.6 GB of zeros": model([node("ConstantOfShape", "big", "zeros"), *added("zeros")], big),
        "1.6 GB by broadcasting": model(
            [node("ConstantOfShape", "long", "l"), node("Transpose", "l", "t"), node("Add", "l t", "s"), *added("s")],
            constant("long", [20_000, 1], np.int64),
        ),
        "1.6 GB by Expand": model([node("Expand", "zero big", "e"), *added("e")], big, zero),
        "memory for the rows": model(
            [node("MatMul", "features wide", "w"), node("Mul", "w zero", "nil"), *added("nil")],
            *(constant("wide", np.zeros((2, 200_000))), zero),
        ),
        "hours of multiplying": model([*dense(target="p"), *chain, *used], square, zero),
        "zeros as a request asks": after(
            *greatest,
            node("Reshape", "k one", "shape"),
            node("ConstantOfShape", "shape", "zeros"),
            node("ReduceSum", "zeros", "z", keepdims=0),
            node("Add", "p z", "probabilities"),
            constants=(constant("one", [1], np.int64),),
        ),
        "slice as a request asks": after(
            *greatest,
            node("Reshape", "k one", "end"),
            node("Slice", "line start end", "some"),
            node("ReduceSum", "some", "z", keepdims=0),
            node("Add", "p z", "probabilities"),
            constants=(constant("one", [1], np.int64), constant("start", [0], np.int64), constant("line", [0.0] * 9)),
        ),
        "a division that ends the process": after(
            node("Gather", "features first", "f", axis=1),
            node("Cast", "f", "whole", to=INT),
            node("Div", "least whole", "d"),
            node("Cast", "d", "real", to=FLOAT),
            node("Mul", "real zero", "z"),
            node("Add", "p z", "probabilities"),
            constants=(constant("first", [0], np.int64), constant("least", -(2**63), np.int64), zero),
        ),
        "slice as the number of rows asks": after(
            node("Shape", "features", "rows", end=1),
            node("Slice", "line rows end", "some"),
            node("ReduceSum", "some", "z", keepdims=0),
            node("Add", "p z", "probabilities"),
            constants=(constant("end", [9_999], np.int64), constant("line", [0.0] * 9_999)),
        ),
        "shape by another name": after(
            *greatest,
            node("Reshape", "k one", "bent"),
            node("Reshape", "p bent", "probabilities"),
            constants=(constant("one", [1], np.int64),),
        ),
        "tree without end": CIRCLE,
        "tree deeper than the stack": _deep(20_000),
    }


def _deep(branches: int) -> bytes:
    return tree(*(node for i in range(branches) for node in ((2 * i + 1, 2 * i + 2, -8.5), LEAF)), LEAF)


def _bytes() -> dict[str, bytes]:
    """Files that are not ONNX, or not only ONNX."""
    unknown = SOUND + b"\xfa\x7f\x03abc"
    return {
        "nothing": b"",
        "rubbish": b"\x80\x04K\x01.",
        "half": SOUND[: len(SOUND) // 2],
        "ONNX Runtime's own format": b"\x18\x00\x00\x00ORTM" + bytes(200),
        "a field that ONNX does not have": unknown,
        "two models in one": SOUND + model(_loop(2**62)[0]),
        "a graph that is empty": written(ModelProto(ir_version=10)),
        "33 MB": SOUND + bytes(33 * 2**20),
    }


def _interface() -> dict[str, bytes]:
    """Models whose input or output differs from that of the API."""
    two = graph(dense())
    two.input.append(helper.make_tensor_value_info("more", FLOAT, ["n", 2]))
    default = graph(dense())
    default.input.append(helper.make_tensor_value_info("weights", FLOAT, [2, 2]))
    double = graph([node("Cast", "features", "f", to=FLOAT), *dense("f")])
    double.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    axis = constant("axis", [0], np.int64)
    return {
        "three inputs for two features": model(
            [node("Slice", "features start end axes", "f"), *dense("f")],
            *(constant(n, [v], np.int64) for n, v in (("start", 0), ("end", 2), ("axes", 1))),
            width=3,
        ),
        "inputs of any width": model(dense(), width="w"),
        "a batch of one": model(dense(), rows=1),
        "a second input": written(proto(two)),
        "a constant that is an input": written(proto(default)),
        "an input of float64": written(proto(double)),
        "another output": model([*dense()[:1], helper.make_node("Softmax", ["scores"], ["chances"])]),
        "classes in place of probabilities": model(
            [*dense(target="p"), node("Cast", "p", "probabilities", to=INT)], kind=INT
        ),
        "one row for any batch": after(node("ReduceMean", "p axis", "probabilities", keepdims=1), constants=(axis,)),
        "one column": after(
            node("ReduceMax", "p axis", "probabilities", keepdims=1), constants=(constant("axis", [1], np.int64),)
        ),
        "three columns": after(node("Concat", "p p", "probabilities", axis=1)),
        "turned": after(node("Transpose", "p", "probabilities")),
        "rows that know of each other": after(
            node("ReduceSum", "scores axis", "s"),
            node("Mul", "s tiny", "t"),
            node("Add", "p t", "probabilities"),
            constants=(axis, constant("tiny", 1e-4)),
        ),
    }


def _figures() -> dict[str, bytes]:
    """Models whose outputs are not probabilities."""

    def added(value: float) -> bytes:
        return after(node("Add", "p odd", "probabilities"), constants=(constant("odd", value),))

    def where(limit: float) -> bytes:
        return after(
            node("ReduceMax", "features one", "m", keepdims=1),
            node("Greater", "m limit", "g"),
            node("Where", "g odd p", "probabilities"),
            constants=(constant("one", [1], np.int64), constant("limit", limit), constant("odd", np.nan)),
        )

    return {
        "NaN": added(np.nan),
        "infinity": added(np.inf),
        "two": added(1.5),
        "less than nothing": added(-2.0),
        "a little more": added(0.001),
        "NaN at the bounds": where(8.5),
    }


MODELS = {**_external(), **_control_flow(), **_heavy(), **_bytes(), **_interface(), **_figures()}


def _cards() -> dict[str, bytes]:
    def with_(**changes: Any) -> dict[str, Any]:
        return {**card_values(), **changes}

    def features(**changes: Any) -> dict[str, Any]:
        first, second = card_values()["features"]
        return with_(features=[{**first, **changes}, second])

    def test(rows: Any, probabilities: Any) -> dict[str, Any]:
        return with_(self_test={"rows": rows, "probabilities": probabilities})

    def reference(**changes: Any) -> dict[str, Any]:
        bins = {"edges": [0.0, 1.0], "shares": [1.0], "missing": 0.0}
        return with_(feature_reference={"a": {**bins, **changes}, "b": bins})

    good = card_values()
    first, second = good["features"]
    rows, probabilities = good["self_test"]["rows"], good["self_test"]["probabilities"]
    operating, bins = good["operating"], good["score_reference"]
    values = {
        "another problem": with_(problem="breast-cancer-wisconsin"),
        "a path for a name": with_(problem="../../tmp/x"),
        "no features": with_(features=[], feature_reference={}),
        "fewer features than inputs": with_(
            features=[first],
            feature_reference={"a": bins},
            self_test={"rows": [r[:1] for r in rows], "probabilities": probabilities},
        ),
        "more features than inputs": with_(
            features=[first, second, {**first, "name": "c"}],
            feature_reference={"a": bins, "b": bins, "c": bins},
            self_test={"rows": [[*r, 0.0] for r in rows], "probabilities": probabilities},
        ),
        "a feature twice": with_(features=[first, first], feature_reference={"a": bins}),
        "a feature without a name": features(name=""),
        "a feature with an odd name": features(name="a\u0000b"),
        "min above max": features(min=9.0, max=-9.0),
        "min equal to max": features(min=1.0, max=1.0),
        "bounds beyond float32": features(max=1e300),
        "bounds beyond float64": msgspec.json.encode(with_()).replace(b'"max":9.0', b'"max":1e999', 1),
        "whole bounds beyond 2**53": features(type="integer", max=1e17),
        "no whole number within the bounds": features(type="integer", min=0.2, max=0.8),
        "equal classes": with_(classes={"negative": "yes", "positive": "yes"}),
        "a threshold above 1": with_(threshold=1.5),
        "a threshold below 0": with_(threshold=-0.5),
        "no threshold": with_(threshold=None),
        "an operating point beyond 1": with_(operating={**operating, "recall": 7.0}),
        "no self-test": test([], []),
        "a self-test that fails": test(rows, [0.1, *probabilities[1:]]),
        "a self-test of another width": test([[*r, 1.0] for r in rows], probabilities),
        "a self-test out of bounds": test([[99.0, 0.0]], [1.0]),
        "a self-test with a hole": test([[None, 0.0]], [0.5]),
        "fewer probabilities than rows": test(rows, probabilities[:2]),
        "a probability of 2": test(rows, [2.0, *probabilities[1:]]),
        "null as a probability": test(rows, [None, *probabilities[1:]]),
        "eleven thousand rows": test(rows * 2_750, probabilities * 2_750),
        "no reference": with_(feature_reference={}),
        "a reference too many": with_(feature_reference={"a": bins, "b": bins, "c": bins}),
        "edges that descend": reference(edges=[1.0, 0.0]),
        "edges too few": reference(edges=[1.0]),
        "shares of 2": reference(edges=[0.0, 0.5, 1.0], shares=[1.0, 1.0]),
        "shares below 0": reference(edges=[0.0, 0.5, 1.0], shares=[-1.0, 2.0]),
        "a later schema": with_(schema_version=2),
        "no card": b"",
        "no JSON": b"{",
        "NaN in JSON": msgspec.json.encode(with_()).replace(b'"threshold":0.5', b'"threshold":NaN'),
        "no text": b"\xff\xfe",
        "nested without end": msgspec.json.encode(with_()).replace(
            b'"params":{', b'"params":{"x":' + b"[" * 200_000, 1
        ),
        "600 KB": with_(params={"x": "y" * 600_000}),
        "another model's hash": msgspec.json.encode({**good, "model_sha256": "0" * 64}),
    }
    return {name: value if isinstance(value, bytes) else package(SOUND, value)[0] for name, value in values.items()}


CARDS = _cards()
# By name, what must be refused: the card and the model.
_one = card_values()["self_test"]
PACKAGES: dict[str, tuple[bytes, bytes]] = {
    "one row for any batch, and one in the self-test": package(
        MODELS["one row for any batch"],
        {**card_values(), "self_test": {name: values[:1] for name, values in _one.items()}},
    ),
    **{name: package(onnx) for name, onnx in MODELS.items()},
    **{name: (card, SOUND) for name, card in CARDS.items()},
}
