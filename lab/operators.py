"""What a model's ONNX file may hold: the operators that scikit-learn's classifiers need, and nothing that reads a file
or runs for longer than the number of rows tells.

ONNX Runtime reads any file that a model names as the place of its weights, and a loop may have as many rounds as it
likes. Both are refused by what is allowed, not by what is known to be bad.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, shape_inference

from lab.errors import LabError

# What skl2onnx writes for scikit-learn's classifiers, and operators of the same kind. The shape of what each one gives
# depends on the shapes of its inputs alone, but for SHAPED.
_ONNX = """
    Abs Add And ArgMax ArgMin Cast Clip Concat Constant ConstantOfShape CumSum Div Equal Erf Exp Flatten Gather Gemm
    Greater GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pow Reciprocal ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Shape Sigmoid Slice Softmax Sqrt Sub Sum Tanh
    TopK Transpose Where
"""
_ML = """
    ArrayFeatureExtractor Binarizer Imputer LinearClassifier LinearRegressor Normalizer Scaler SVMClassifier
    SVMRegressor TreeEnsembleClassifier TreeEnsembleRegressor
"""
ALLOWED = {"ai.onnx": frozenset(_ONNX.split()), "ai.onnx.ml": frozenset(_ML.split()), "com.microsoft": {"CDist"}}
# Inputs, by position, whose values say which shape the output has. They must be constant, or for ConstantOfShape the
# shape of another tensor: then time and memory grow with the number of rows, and with nothing else that a client sends.
SHAPED = {
    "ConstantOfShape": (0,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "TopK": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
}
# ONNX's messages without their suffix `Proto`; others hold functions, sparse tensors, training, sequences.
_MESSAGES = """
    Model OperatorSetId StringStringEntry Graph Node Attribute Tensor ValueInfo Type Type.Tensor TensorShape
    TensorShape.Dimension
"""
MESSAGES = frozenset(_MESSAGES.split())
REAL = (TensorProto.FLOAT, TensorProto.DOUBLE)
REMEDY = "train a classifier whose ONNX has none, and promote that"


def inspect(model: bytes) -> None:
    """Raise LabError unless the file holds only what is allowed. Nothing that it names is opened or run.

    Raises MemoryError where memory is limited and the file needs more.
    """
    proto = _parse(model)
    for message in _messages(proto):
        kind = message.DESCRIPTOR.full_name.removeprefix("onnx.").replace("Proto", "")
        if kind not in MESSAGES or (kind == "Graph" and message is not proto.graph):
            raise LabError(f"model.onnx holds a {'graph in a graph' if kind == 'Graph' else kind}", REMEDY)
        if isinstance(message, TensorProto) and (message.external_data or message.data_location):
            raise LabError(f"model.onnx keeps {message.name or 'a tensor'!r} in another file", REMEDY)
    _check_nodes(proto.graph)
    _check_divisions(proto)


def _parse(model: bytes) -> ModelProto:
    try:
        proto: ModelProto = ModelProto.FromString(model)
    except DecodeError as error:
        if "alloc failed" in str(error):
            raise MemoryError from error
        raise LabError("model.onnx is no ONNX file", REMEDY) from error
    # Two readers may differ over a field that is unknown or given twice, so there must be none.
    proto.DiscardUnknownFields()
    try:
        written = proto.SerializeToString(deterministic=True)
    except EncodeError as error:  # what was parsed can be written, if there is memory
        raise MemoryError from error
    if not model or written != model:
        raise LabError("model.onnx is not written as ONNX is written", REMEDY)
    return proto


def _messages(message: Message) -> Iterator[Message]:
    """The message and all that it holds, however deep."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _check_nodes(graph: GraphProto) -> None:
    known = {tensor.name for tensor in graph.initializer} | {place.name for place in graph.input}
    if len(known) != len(graph.initializer) + len(graph.input):
        raise LabError("model.onnx gives one name to two inputs or constants", REMEDY)
    fixed, shapes = {tensor.name for tensor in graph.initializer}, set[str]()
    for node in graph.node:
        domain = node.domain or "ai.onnx"
        if node.op_type not in ALLOWED.get(domain, ()):
            raise LabError(f"model.onnx uses the operator {domain}.{node.op_type}"[:200], REMEDY)
        allowed = fixed | shapes if node.op_type == "ConstantOfShape" else fixed
        asked = [node.input[place] for place in SHAPED.get(node.op_type, ()) if place < len(node.input)]
        if not allowed.issuperset(filter(None, asked)):
            raise LabError(f"model.onnx computes the shape of what {node.op_type} gives", REMEDY)
        if node.op_type.startswith("TreeEnsemble"):
            _check_trees(node)
        if known.intersection(node.output):
            raise LabError(f"model.onnx gives {node.output[0]!r} twice", REMEDY)
        known.update(node.output)
        if node.op_type in ("Constant", "Shape"):
            (fixed if node.op_type == "Constant" else shapes).update(node.output)


def _check_trees(node: NodeProto) -> None:
    """Every branch must lead to nodes with greater numbers: ONNX Runtime walks a tree with a circle in it for ever."""
    given = {attribute.name: attribute.ints for attribute in node.attribute}
    numbers, modes = given.get("nodes_nodeids", []), [a.strings for a in node.attribute if a.name == "nodes_modes"]
    below = [given.get(f"nodes_{side}nodeids", []) for side in ("true", "false")]
    if len(given) != len(node.attribute) or any(len(each) != len(numbers) for each in (*below, *modes)):
        raise LabError("model.onnx holds a tree whose lists do not fit each other", REMEDY)
    for number, mode, yes, no in zip(numbers, *modes, *below, strict=True):
        if mode != b"LEAF" and not number < min(yes, no):
            raise LabError("model.onnx holds a tree that is none", REMEDY)


def _check_divisions(proto: ModelProto) -> None:
    """Nothing but real numbers is divided: the least whole number by -1 ends the process, on that request only."""
    proto.graph.ClearField("value_info")  # the file's own word for what is inferred here
    graph = shape_inference.infer_shapes(proto).graph
    real = {tensor.name for tensor in graph.initializer if tensor.data_type in REAL}
    real |= {v.name for v in (*graph.input, *graph.value_info) if v.type.tensor_type.elem_type in REAL}
    for node in graph.node:
        # Both have one type, so that it is enough to know one.
        if node.op_type == "Div" and not real.intersection(node.input):
            raise LabError("model.onnx divides whole numbers", REMEDY)
