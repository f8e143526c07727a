"""That ONNX Runtime can run every node of the graphs on CUDA, and capture them as CUDA graphs. No GPU is needed.

A node without a CUDA kernel runs on the CPU, with copies around it. Then ONNX Runtime refuses to capture the graph.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from export.graph import export_graph
from serving.repository.manifest import ARTEFACTS, GRAPHS
from serving.repository.specs import ModelSpec, TensorSpec
from tests import toys

FLOATS = {"FLOAT", "FLOAT16"}
NUMBERS = FLOATS | {"INT32", "INT64"}
ANY = NUMBERS | {"UINT8", "BOOL"}
GROUPS = {
    "Abs Add Div Max Min Mul Neg Pow Sub": NUMBERS,
    "CumSum Greater GreaterOrEqual Less LessOrEqual ReduceMax ReduceMin ReduceSum Tile TopK": NUMBERS,
    "BatchNormalization Conv Gemm InstanceNormalization LayerNormalization MatMul MaxPool Resize": FLOATS,
    "ArgMax Ceil Cos Erf Exp Floor Gelu Log Reciprocal ReduceL2 ReduceMean Relu Round": FLOATS,
    "IsNaN Sigmoid Sin Softmax Sqrt Tanh": FLOATS,
    "Cast Concat Expand Flatten Gather GatherElements Identity Reshape Slice Split Squeeze Transpose Unsqueeze": ANY,
    "And Not Or": {"BOOL"},
    "Clip": FLOATS | {"INT64", "UINT8"},
    "Equal": NUMBERS | {"BOOL"},
    "Pad": FLOATS | {"BOOL"},
    "Where": NUMBERS | {"UINT8"},
}
KERNELS = {operator: types for operators, types in GROUPS.items() for operator in operators.split()}
"""The types of the first value that ONNX Runtime's kernels for CUDA take, by operator, as its OperatorKernels.md lists
them for opset 18. GatherND is left out: it has a kernel, which cannot be replayed in a CUDA graph (pull request 32120).
NonZero and loops are left out because they wait for the CPU."""


def nodes_of(model: onnx.ModelProto, folder: Path) -> list[tuple[str, str]]:
    """The operator and the type of each node that is left when the shapes are known, as on a rung of the ladder."""
    source, optimized = folder / "source.onnx", folder / "optimized.onnx"
    onnx.save(model, source)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(optimized)
    for name, size in (("batch", 2), ("S", 448)):
        options.add_free_dimension_override_by_name(name, size)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    left = onnx.shape_inference.infer_shapes(onnx.load(optimized))
    values = [*left.graph.value_info, *left.graph.input, *left.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {constant.name: constant.data_type for constant in left.graph.initializer}
    first = [node.input[1 if node.op_type == "Where" else 0] for node in left.graph.node]
    return [
        (node.op_type, TensorProto.DataType.Name(types[name]))
        for node, name in zip(left.graph.node, first, strict=True)
    ]


def without_kernel(model: onnx.ModelProto, folder: Path) -> set[tuple[str, str]]:
    return {(operator, type_) for operator, type_ in nodes_of(model, folder) if type_ not in KERNELS.get(operator, ())}


class Repeat(torch.nn.Module):
    """Repeats a mask, as Grounding DINO does for its heads."""

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens > 0).repeat(1, 2).float()  # (B, T) → (B, 2 T)


def test_a_mask_is_repeated_on_a_gpu(tmp_path: Path) -> None:
    spec = ModelSpec((TensorSpec("TOKENS", "INT64", ("T",)),), (TensorSpec("EMBEDDING", "FP32", ("D",)),))
    tokens = torch.tensor([[0, 1, 2], [3, 0, 0]])
    graph = export_graph(Repeat(), [tokens], spec)
    assert "Tile" in {operator for operator, _ in nodes_of(graph, tmp_path)}
    assert without_kernel(graph, tmp_path) == set()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"TOKENS": tokens.numpy()})
    assert found.tolist() == Repeat()(tokens).tolist()


@pytest.mark.parametrize("leaf", [leaf for leaf, artefact in ARTEFACTS.items() if artefact in GRAPHS])
def test_every_node_has_a_kernel(exported: Path, tmp_path: Path, leaf: str) -> None:
    assert without_kernel(onnx.load(exported / leaf / "1" / "model.onnx"), tmp_path) == set()


def test_what_a_gpu_cannot_run_is_found(tmp_path: Path) -> None:
    """A text tower that pools as open_clip does."""
    body = """(int64[batch,4] TOKENS, float[batch,4,8] X) => (float[batch,8] Y) {
        last = ArgMax<axis=1, keepdims=1>(TOKENS)
        Y = GatherND<batch_dims=1>(X, last)
    }"""
    assert without_kernel(toys.to_onnx("pool", body), tmp_path) == {("ArgMax", "INT64"), ("GatherND", "FLOAT")}
