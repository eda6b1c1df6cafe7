"""The conversion of `trainer.encoding.LevelEncoder` to ONNX."""

from __future__ import annotations

import functools
from typing import Any

from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType

from trainer.encoding import LevelEncoder


@functools.cache
def register() -> None:
    """Make the converter known to skl2onnx."""
    update_registered_converter(LevelEncoder, "LabLevelEncoder", _shape, _convert)


def _shape(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = FloatTensorType([rows, len(operator.raw_operator.levels_)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Gather the feature of each column, compare it with the level of the column, and make a number of the answer."""
    encoder = operator.raw_operator
    places, levels, values, equal = (scope.get_unique_variable_name(f"level_{part}") for part in _PARTS)
    container.add_initializer(places, TensorProto.INT64, [len(encoder.places_)], encoder.places_.tolist())
    container.add_initializer(levels, TensorProto.FLOAT, [len(encoder.levels_)], encoder.levels_.tolist())
    container.add_node("Gather", [operator.inputs[0].full_name, places], [values], axis=1, name=values)
    container.add_node("Equal", [values, levels], [equal], name=equal, op_version=13)
    output = operator.outputs[0].full_name
    container.add_node("Cast", [equal], [output], to=TensorProto.FLOAT, name=output, op_version=13)


_PARTS = ("places", "levels", "values", "equal")
