"""Halves a graph's file without changing a single bit of what it computes.

A checkpoint stored in FP16 gives FP32 weights that FP16 holds exactly. Those are stored as FP16 with a ``Cast`` to
FP32 behind them. Runtimes fold the cast when they load the graph: computation stays in FP32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SMALLEST = 64
"""Elements; below, the node costs more than it saves."""


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes the FP32 initializers of ``model`` FP16 wherever that is exact, and returns it.

    In place: a copy of a large model would not fit beside it.

    Raises:
        ValueError: the graph has initializers that are also inputs: a caller could replace them.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

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
