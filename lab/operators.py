"""The check of a model's ONNX file: an allow-list of the operators that scikit-learn's classifiers need.

The allow-list excludes operators that read another file, and operators with a run time that depends on more than the
number of rows: ONNX Runtime reads any file that a model names as the location of its weights, and a loop may run for
ever. An allow-list also excludes operators that are harmful in ways that are not known yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, shape_inference

from lab.errors import LabError

# The operators that skl2onnx writes for scikit-learn's classifiers, and others of the same kind. The output shape of
# each depends on the shapes of its inputs alone, except for those in SHAPED.
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
# Positions of the inputs whose values determine the output shape. These inputs must be constants, or for
# ConstantOfShape the shape of another tensor. Time and memory then depend on the number of rows that a client sends,
# and not on the values in them.
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
# ONNX's message types that are allowed, without the suffix `Proto`. The others are for functions, sparse tensors,
# training and sequences.
_MESSAGES = """
    Model OperatorSetId StringStringEntry Graph Node Attribute Tensor ValueInfo Type Type.Tensor TensorShape
    TensorShape.Dimension
"""
MESSAGES = frozenset(_MESSAGES.split())
REAL = (TensorProto.FLOAT, TensorProto.DOUBLE)
REMEDY = "train a classifier with an ONNX file that does not have this, and promote that classifier"


def inspect(model: bytes) -> None:
    """Raise LabError unless the file holds only allowed content. The model is not run, and no other file is opened.

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
        raise LabError("model.onnx is not an ONNX file", REMEDY) from error
    # The file must be equal to the bytes that this parser writes, so that it has no unknown or repeated field: another
    # parser may read such a field in another way.
    proto.DiscardUnknownFields()
    try:
        serialized = proto.SerializeToString(deterministic=True)
    except EncodeError as error:  # a parsed model can always be serialized unless memory runs out
        raise MemoryError from error
    if not model or serialized != model:
        raise LabError("model.onnx is not in the standard encoding: it has unknown or repeated fields", REMEDY)
    return proto


def _messages(message: Message) -> Iterator[Message]:
    """The message and all messages in it, at any depth."""
    queue = [message]
    while queue:
        message = queue.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                queue.extend(value if field.is_repeated else [value])


def _check_nodes(graph: GraphProto) -> None:
    names = {tensor.name for tensor in graph.initializer} | {place.name for place in graph.input}
    if len(names) != len(graph.initializer) + len(graph.input):
        raise LabError("model.onnx gives the same name to two inputs or constants", REMEDY)
    fixed, shapes = {tensor.name for tensor in graph.initializer}, set[str]()
    for node in graph.node:
        domain = node.domain or "ai.onnx"
        if node.op_type not in ALLOWED.get(domain, ()):
            raise LabError(f"model.onnx uses the operator {domain}.{node.op_type}"[:200], REMEDY)
        constants = fixed | shapes if node.op_type == "ConstantOfShape" else fixed
        shape_inputs = [node.input[place] for place in SHAPED.get(node.op_type, ()) if place < len(node.input)]
        if not constants.issuperset(filter(None, shape_inputs)):
            raise LabError(f"model.onnx computes the output shape of {node.op_type} from its input", REMEDY)
        if node.op_type.startswith("TreeEnsemble"):
            _check_trees(node)
        if names.intersection(node.output):
            raise LabError(f"model.onnx has two results with the name {node.output[0]!r}", REMEDY)
        names.update(node.output)
        if node.op_type in ("Constant", "Shape"):
            (fixed if node.op_type == "Constant" else shapes).update(node.output)


def _check_trees(node: NodeProto) -> None:
    """Raise LabError unless every branch leads to a node with a greater number.

    Otherwise the tree may have a cycle, which ONNX Runtime would follow for ever.
    """
    attributes = {attribute.name: attribute.ints for attribute in node.attribute}
    numbers, modes = attributes.get("nodes_nodeids", []), [a.strings for a in node.attribute if a.name == "nodes_modes"]
    below = [attributes.get(f"nodes_{side}nodeids", []) for side in ("true", "false")]
    if len(attributes) != len(node.attribute) or any(len(each) != len(numbers) for each in (*below, *modes)):
        raise LabError("model.onnx holds a tree whose lists do not match", REMEDY)
    for number, mode, yes, no in zip(numbers, *modes, *below, strict=True):
        if mode != b"LEAF" and not number < min(yes, no):
            raise LabError("model.onnx holds a tree with a cycle", REMEDY)


def _check_divisions(proto: ModelProto) -> None:
    """Raise LabError if the model divides integers: the least integer divided by -1 crashes the process.

    The self-test cannot find such a crash, because it depends on the values in a request.
    """
    proto.graph.ClearField("value_info")  # these types are claims of the file; the true ones are inferred below
    graph = shape_inference.infer_shapes(proto).graph
    real = {tensor.name for tensor in graph.initializer if tensor.data_type in REAL}
    real |= {v.name for v in (*graph.input, *graph.value_info) if v.type.tensor_type.elem_type in REAL}
    for node in graph.node:
        # Both inputs of a division have the same type, so the type of one is enough.
        if node.op_type == "Div" and not real.intersection(node.input):
            raise LabError("model.onnx divides integers", REMEDY)
