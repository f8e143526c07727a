"""Halve the size of a graph's file without changing its results.

A checkpoint stored in FP16 gives FP32 weights that FP16 can hold exactly. They are stored as FP16, followed by a
``Cast`` to FP32. Runtimes fold the cast when they load the graph, and compute in FP32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 64
"""Number of elements below which the additional node takes more space than it saves."""


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the FP32 initializers of ``model`` as FP16 if that is exact. The model is changed, and returned.

    Raises:
        ValueError: an initializer is also an input, so that a caller could replace it.
    """
    graph = model.graph
    shared = {tensor.name for tensor in graph.initializer} & {value.name for value in graph.input}
    if shared:
        raise ValueError(f"initializers that are also inputs cannot be stored otherwise: {sorted(shared)}")

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.size < SMALLEST or not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return model
