"""Storing FP32 weights as FP16 where that is exact, on graphs of two nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.compact import compact


def affine(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """y = x * a + b"""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 128])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 128])
    nodes = [helper.make_node("Mul", ["x", "a"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "affine", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


HALF = np.random.default_rng(0).normal(size=128).astype(np.float16).astype(np.float32)
STORED = {
    "exact": (HALF, TensorProto.FLOAT16),
    "not exact": (HALF + np.float32(1e-6), TensorProto.FLOAT),
    "one value not exact": (np.where(np.arange(128) == 7, np.float32(0.1), HALF), TensorProto.FLOAT),
    "too large for fp16": (HALF * np.float32(2.0**20), TensorProto.FLOAT),
    "infinite": (np.full(128, np.inf, np.float32), TensorProto.FLOAT16),
}


@pytest.mark.parametrize(("a", "stored"), STORED.values(), ids=STORED)
def test_only_exact_values_are_stored_as_fp16(a: np.ndarray, stored: int) -> None:
    model = affine({"a": a, "b": np.full(128, 0.1, np.float32)})
    x = np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)
    before = run(model, x)
    small = compact(model)
    first = next(tensor for tensor in small.graph.initializer if tensor.name.startswith("a"))
    assert first.data_type == stored
    assert np.array_equal(run(small, x), before, equal_nan=True)


def test_small_and_whole_numbers_are_left_alone() -> None:
    model = affine({"a": np.ones(1, np.float32), "b": HALF})
    model.graph.initializer.append(numpy_helper.from_array(np.arange(200), "unused"))
    kinds = [tensor.data_type for tensor in compact(model).graph.initializer]
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64]


def test_initializers_that_are_inputs_are_refused() -> None:
    model = affine({"a": HALF, "b": HALF})
    model.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [128]))
    with pytest.raises(ValueError, match="also inputs"):
        compact(model)
