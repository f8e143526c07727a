"""From a PyTorch module to an ONNX graph that keeps the contract of ``serving.repository.specs``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from export.errors import GraphError, first_line
from export.quiet import quiet_exporters
from serving.repository.specs import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from torch import Tensor, nn

OPSET = 18
FREE_SYMBOLS = ("S",)
"""Symbols that stay free in a graph, beside the batch; every other one becomes a number."""
LARGEST_BATCH = 4096
LARGEST_CANVAS = 8192

Tensors = Sequence["Tensor"]


def export_graph(module: nn.Module, inputs: Tensors, spec: ModelSpec) -> onnx.ModelProto:
    """Traces ``module`` with example ``inputs`` (a batch of at least 2) and returns a clean, checked graph.

    Raises:
        GraphError: it cannot be traced, or its tensors are not those of ``spec``.
    """
    import torch

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
    """torch's exporter tells the reason for its failure in pages; its first line goes to the user."""
    try:
        yield
    except Exception as error:
        raise GraphError(f"PyTorch cannot trace the model: {first_line(error)}") from error


def simplify(graph: ir.Model) -> onnx.ModelProto:
    """Folds constants and drops what does nothing, as torch's exporter would, but leaves BatchNormalization alone.

    Fused into its convolution, it would turn FP16 weights into ones that only FP32 can hold (see
    ``export.compact``). ONNX Runtime and TensorRT fuse it when they load the graph.

    It works on the exporter's own representation, whose weights are PyTorch's: a protobuf would copy them.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common as passes
    from onnxscript import optimizer
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common as rules

    nothing_done = [
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
    ]
    passes.InlinePass()(graph)
    passes.LiftConstantsToInitializersPass()(graph)
    optimizer.fold_constants(graph)
    graph = rewrite(graph, pattern_rewrite_rules=nothing_done)
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
    """Takes outputs away, and the nodes that served them alone."""
    graph = model.graph
    kept = [value for value in graph.output if value.name not in names]
    del graph.output[:]
    graph.output.extend(kept)
    needed = {value.name for value in kept}
    nodes = []
    for node in reversed(graph.node):  # in topological order, so every reader comes before what it reads
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes what the exporter notes about itself: stack traces with the paths of the exporting machine."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if "metadata_props" in holder.DESCRIPTOR.fields_by_name:
            del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    return model


def _dtypes() -> dict[str, int]:
    from onnx import TensorProto

    return {
        "UINT8": TensorProto.UINT8,
        "INT32": TensorProto.INT32,
        "INT64": TensorProto.INT64,
        "FP32": TensorProto.FLOAT,
    }


def read_tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    """A graph's input or output as a spec; the batch must lead and is left out."""
    tensor = value.type.tensor_type
    spelled = {number: name for name, number in _dtypes().items()}
    dims: list[int | str] = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    if not dims or dims[0] != "batch":
        raise GraphError(f"{value.name}: expected a free batch in front, came {dims}")
    return TensorSpec(value.name, spelled.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(dims[1:]))


def check_contract(model: onnx.ModelProto, spec: ModelSpec) -> dict[str, int]:
    """Names, order, dtypes and shapes against ``spec``.

    Returns:
        the numbers that the spec's symbols got, for example ``{"R": 224}``

    Raises:
        GraphError: with the first difference.
    """
    numbers: dict[str, int] = {}
    for kind, wanted, values in (
        ("input", spec.inputs, model.graph.input),
        ("output", spec.outputs, model.graph.output),
    ):
        names = [value.name for value in values]
        if names != [tensor.name for tensor in wanted]:
            raise GraphError(f"expected the {kind}s {[tensor.name for tensor in wanted]}, came {names}")
        for tensor, value in zip(wanted, values, strict=True):
            found = read_tensor(value)
            if found.dtype != tensor.dtype or len(found.shape) != len(tensor.shape):
                raise GraphError(
                    f"{tensor.name}: expected {tensor.dtype} {tensor.shape}, came {found.dtype} {found.shape}"
                )
            for symbol, dim in zip(tensor.shape, found.shape, strict=True):
                expected = symbol if isinstance(symbol, int) or symbol in FREE_SYMBOLS else numbers.get(symbol, dim)
                if dim != expected or (isinstance(dim, str) and dim not in FREE_SYMBOLS):
                    raise GraphError(f"{tensor.name}: expected {symbol} = {expected}, came {dim}")
                if isinstance(symbol, str) and isinstance(dim, int):
                    numbers[symbol] = dim
    return numbers


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> None:
    """Embeds key-value strings, which every runtime shows; what is not a string becomes JSON."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    model.producer_name = "vlclip export"
    model.producer_version = ""
