"""A graph's version as constant outputs, so that an answer names the models that computed it.

A constant has no batch. So a column of an integer input is multiplied by zero, and the constant is added: plain INT32
arithmetic, which every runtime computes where the rest of the graph runs, in CUDA graphs and TensorRT as well. Shape
and Expand would compute on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import GraphError

INTEGERS = (TensorProto.INT32, TensorProto.INT64)


def stamp(model: onnx.ModelProto, versions: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Add outputs INT32 (B, W) that give the same W numbers for every row. The model is changed, and returned.

    Args:
        versions: the numbers of each output, by its name.

    Raises:
        ValueError: no input is a matrix of integers.
    """
    if not versions:
        return model
    graph = model.graph
    matrices = [value for value in graph.input if len(value.type.tensor_type.shape.dim) == 2]
    integers = [value for value in matrices if value.type.tensor_type.elem_type in INTEGERS]
    if not integers:
        raise ValueError(f"{graph.name} takes no matrix of integers, whose rows a version could follow")
    # The narrowest: one with a single column needs no Gather.
    rows = min(integers, key=lambda value: value.type.tensor_type.shape.dim[1].dim_value)
    batch, width = rows.type.tensor_type.shape.dim
    constants, nodes, column = {"version.zero": np.array([[0]], np.int32)}, [], rows.name
    if width.dim_value != 1:
        constants["version.first"] = np.array([0], np.int64)
        nodes.append(helper.make_node("Gather", [column, "version.first"], ["version.column"], axis=1))
        column = "version.column"
    if rows.type.tensor_type.elem_type != TensorProto.INT32:
        nodes.append(helper.make_node("Cast", [column], ["version.int32"], to=TensorProto.INT32))
        column = "version.int32"
    nodes.append(helper.make_node("Mul", [column, "version.zero"], ["version.zeros"]))
    for name, numbers in versions.items():
        constants[f"version.{name}"] = np.array([numbers], np.int32)
        nodes.append(helper.make_node("Add", ["version.zeros", f"version.{name}"], [name]))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT32, [batch.dim_param, len(numbers)]))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(nodes)
    return model


def restamp(model: onnx.ModelProto, versions: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Change the numbers of outputs that ``stamp`` has added. The model is changed, and returned.

    Raises:
        GraphError: the model has no such output.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    for name, numbers in versions.items():
        if f"version.{name}" not in constants:
            raise GraphError(f"the graph {model.graph.name} has no version in {name}: export the models again")
        constants[f"version.{name}"].CopyFrom(numpy_helper.from_array(np.array([numbers], np.int32), f"version.{name}"))
    return model
