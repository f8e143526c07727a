"""From a PyTorch module to an ONNX graph with the tensors of ``serving.repository.specs``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto
from onnx_ir.passes import common
from onnxscript import optimizer
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, rewrite
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn

from export.errors import GraphError, first_line
from export.quiet import quiet_exporters
from serving.repository.specs import ModelSpec, TensorSpec

OPSET = 18
FREE_SYMBOLS = ("S",)
"""Symbols that stay free in a graph, in addition to the batch. Every other symbol becomes a number."""
LARGEST_BATCH = 4096
LARGEST_CANVAS = 8192

Tensors = Sequence["Tensor"]


def export_graph(module: nn.Module, inputs: Tensors, spec: ModelSpec) -> onnx.ModelProto:
    """Trace ``module`` with example ``inputs``, a batch of at least 2, and return a clean, checked graph.

    Raises:
        GraphError: the module cannot be traced, or its tensors are not those of ``spec``.
    """
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention has no ONNX form
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    free = {symbol: torch.export.Dim(symbol, min=16, max=LARGEST_CANVAS) for symbol in FREE_SYMBOLS}
    shapes = tuple(
        {0: batch} | {axis: free[dim] for axis, dim in enumerate(tensor.shape, 1) if dim in free}
        for tensor in spec.inputs
    )
    with torch.no_grad(), quiet_exporters(), traced_or_refused():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            optimize=False,  # see simplify()
            verbose=False,
        )
    assert program is not None
    with quiet_exporters():
        model = strip(simplify(program.model))
    check_contract(model, spec)
    return model


@contextmanager
def traced_or_refused() -> Iterator[None]:
    """Raise GraphError with the first line of torch's explanation, which has many pages."""
    try:
        yield
    except Exception as error:
        raise GraphError(f"PyTorch cannot trace the model: {first_line(error)}") from error


class TileBooleans(RewriteRuleClassBase):
    """Tile integers in place of booleans, for which ONNX Runtime has no CUDA kernel.

    Grounding DINO repeats its text masks for every head. See ``tests/export/test_cuda_kernels.py``.
    """

    def pattern(self, op: Any, x: ir.Value, repeats: ir.Value) -> Any:
        return op.Tile(x, repeats, _outputs=["tiled"])

    def check(self, op: Any, *_: Any, **values: Any) -> MatchResult:
        found = MatchResult()
        return found if values["tiled"].dtype == ir.DataType.BOOL else found.fail("not boolean")

    def rewrite(self, op: Any, x: ir.Value, repeats: ir.Value, **_: Any) -> Any:
        numbers = op.Tile(op.Cast(x, to=ir.DataType.INT32), repeats)
        return op.Cast(numbers, to=ir.DataType.BOOL)


def simplify(graph: ir.Model) -> onnx.ModelProto:
    """Fold constants and remove nodes without effect, like torch's exporter, but keep BatchNormalization.

    The exporter would fuse it into its convolution, whose weights FP16 could then no longer hold exactly (see
    ``export.compact``). ONNX Runtime and TensorRT fuse it when they load the graph.

    This works on the exporter's own representation, which shares PyTorch's weights. A protobuf would copy them.
    """
    tile_booleans: Any = TileBooleans
    rewrites = [
        rules.no_op_cast_rule,
        rules.no_op_expand_rule,
        rules.no_op_transpose_rule,
        rules.transpose_transpose_rule,
        rules.reshape_reshape_rule,
        rules.unsqueeze_unsqueeze_rule,
        rules.collapse_slice_rule,
        rules.collapse_slice2_rule,
        rules.cast_cast_rule,
        rules.mul_by_1_rule,
        rules.div_by_1_rule,
        rules.add_0_rule,
        rules.sub_0_rule,
        rules.dropout_inference_rule,
        rules.materialize_reshape_shape_rule,
        tile_booleans.rule(),
    ]
    passes: Any = common
    passes.InlinePass()(graph)
    passes.LiftConstantsToInitializersPass()(graph)
    optimizer.fold_constants(graph)
    graph = rewrite(graph, pattern_rewrite_rules=rewrites)
    optimizer.fold_constants(graph)
    for run in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        run(graph)
    return ir.to_proto(graph)


def drop_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Remove outputs, and the nodes that only they need."""
    graph = model.graph
    kept = [value for value in graph.output if value.name not in names]
    del graph.output[:]
    graph.output.extend(kept)
    needed = {value.name for value in kept}
    nodes = []
    for node in reversed(graph.node):  # in reverse topological order: consumers before producers
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's notes: stack traces with the paths of the exporting machine."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if "metadata_props" in holder.DESCRIPTOR.fields_by_name:
            del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    return model


def _dtypes() -> dict[str, int]:
    return {
        "UINT8": TensorProto.UINT8,
        "INT32": TensorProto.INT32,
        "INT64": TensorProto.INT64,
        "FP32": TensorProto.FLOAT,
    }


def read_tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    """A graph's input or output as a spec, without the batch, which must be the first dimension."""
    tensor = value.type.tensor_type
    spelled = {number: name for name, number in _dtypes().items()}
    dims: list[int | str] = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    if not dims or dims[0] != "batch":
        raise GraphError(f"{value.name}: expected a free batch as the first dimension, got {dims}")
    return TensorSpec(value.name, spelled.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(dims[1:]))


def check_contract(model: onnx.ModelProto, spec: ModelSpec) -> dict[str, int]:
    """Compare names, order, dtypes and shapes with ``spec``.

    Returns:
        the numbers of the spec's symbols, for example ``{"R": 224}``

    Raises:
        GraphError: the first difference.
    """
    numbers: dict[str, int] = {}
    for kind, wanted, values in (
        ("input", spec.inputs, model.graph.input),
        ("output", spec.outputs, model.graph.output),
    ):
        names = [value.name for value in values]
        if names != [tensor.name for tensor in wanted]:
            raise GraphError(f"expected the {kind}s {[tensor.name for tensor in wanted]}, got {names}")
        for tensor, value in zip(wanted, values, strict=True):
            found = read_tensor(value)
            if found.dtype != tensor.dtype or len(found.shape) != len(tensor.shape):
                raise GraphError(
                    f"{tensor.name}: expected {tensor.dtype} {tensor.shape}, got {found.dtype} {found.shape}"
                )
            for symbol, dim in zip(tensor.shape, found.shape, strict=True):
                expected = symbol if isinstance(symbol, int) or symbol in FREE_SYMBOLS else numbers.get(symbol, dim)
                if dim != expected or (isinstance(dim, str) and dim not in FREE_SYMBOLS):
                    raise GraphError(f"{tensor.name}: expected {symbol} = {expected}, got {dim}")
                if isinstance(symbol, str) and isinstance(dim, int):
                    numbers[symbol] = dim
    return numbers


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> None:
    """Embed key-value strings. Values that are not strings are stored as JSON."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    model.producer_name = "vlclip export"
    model.producer_version = ""
