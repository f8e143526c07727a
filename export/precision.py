"""FP16 graphs: which parts of a leaf compute in FP16, and how such a graph is judged where there is no GPU.

The parts are named by module and become FP16 in PyTorch, before the trace. So the graph is strongly typed: every
tensor has the dtype of its module, with a ``Cast`` where that changes, and no runtime chooses for itself. Inputs and
outputs of a leaf stay as ``serving.repository.specs`` has them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from export.errors import UnsupportedModel

if TYPE_CHECKING:
    import onnx
    from torch import dtype, nn


@dataclass(frozen=True)
class Policy:
    """Modules of a leaf, by the names that ``named_modules`` gives them; ``*`` stands for one part of a name."""

    half: tuple[str, ...]
    """Compute in FP16, with all that is in them."""
    islands: tuple[str, ...] = ()
    """Stay in FP32 although they are inside."""
    fuse: str | None = None
    """A module whose own ``fuse()`` folds its batch normalizations first: FP16 has no room for their variances."""


# By leaf. The figures are the gate's worst: cosine or score against PyTorch in FP32, with every tensor rounded.

OPEN_CLIP = {
    # 0.9999996 for the mini model, 0.999999 for ViT-B-32 at random; only the division by the length is FP32.
    "encode_image": Policy(half=("model.visual",)),
    # 0.9999998 and 0.999998.
    "encode_text": Policy(half=("model",)),
}
YOLO_WORLD = {
    "encode_prompt": OPEN_CLIP["encode_text"],
    # 0.0004 and 0.02 pixels for the mini model, 0.005 and 0.4 pixels for S at random. The letterbox and the decoding
    # of boxes are outside: one step of FP16 is half a pixel at 640. Islands win nothing: with the head, its contrast
    # with the prompt or the first convolution in FP32 the scores come no nearer.
    "detect": Policy(half=("detector.model",), fuse="detector.model"),
}
GROUNDING_DINO = {
    # 0.006 of the largest logit at reduced size. Encoder and decoder stay in FP32: with trained weights, the attention
    # between text and image leaves FP16 (TensorRT issue 3413). So does BERT: a prompt is encoded once.
    "detect": Policy(half=("detector.model.model.backbone.conv_encoder",)),
}


def with_policy(module: nn.Module, policy: Policy) -> nn.Module:
    """A copy of ``module`` that computes as the policy says; tensors are cast where they go in and come out.

    Raises:
        UnsupportedModel: a name of the policy that the module does not have: the policy is another model's.
    """
    import torch

    copy = deepcopy(module)
    if policy.fuse:
        copy.get_submodule(policy.fuse).fuse(verbose=False)  # type: ignore[operator]
    for inner, outer, patterns in (
        (torch.float16, torch.float32, policy.half),
        (torch.float32, torch.float16, policy.islands),
    ):
        for pattern in patterns:
            for part in matching(copy, pattern):
                compute_in(part, inner, outer)
    return copy


def matching(module: nn.Module, pattern: str) -> list[nn.Module]:
    wanted = pattern.split(".")
    found = [
        part
        for name, part in module.named_modules()
        if len(names := name.split(".")) == len(wanted) and all(map(fnmatchcase, names, wanted))
    ]
    if not found:
        raise UnsupportedModel(f"the FP16 policy names {pattern}, which {type(module).__name__} does not have")
    return found


def compute_in(module: nn.Module, inner: dtype, outer: dtype) -> None:
    """Turns a module's weights to ``inner``, its floating-point arguments too, and its results back to ``outer``."""
    module.to(inner)
    module.register_forward_pre_hook(lambda _, args, kwargs: cast((args, kwargs), inner), with_kwargs=True)
    module.register_forward_hook(lambda _, args, came: cast(came, outer))


def cast(value: Any, to: dtype) -> Any:
    """Every floating-point tensor in nested lists, tuples and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(to) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(item, to) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(cast(item, to) for item in value)
    return value


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the graph computes in FP16; one that only stores weights so casts each of them to FP32."""
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return any(
        any(attribute.i == TensorProto.FLOAT16 for attribute in node.attribute)
        if node.op_type == "Cast"
        else not stored.isdisjoint(node.input)
        for node in model.graph.node
    )


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that computes on a CPU what ``model`` computes on a GPU: every FP16 tensor is rounded to FP16.

    ONNX Runtime has no FP16 kernels on an x86 CPU. It computes in FP32 and leaves out the casts between two such
    nodes: 60000 + 60000 - 60000 is 60000 there, and infinite on a GPU. Here every FP16 node is one in FP32 with a
    ``Cast`` to FP16 and back behind it, which no optimizer may remove. A GPU that fuses nodes rounds less often.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*typed.graph.value_info, *typed.graph.input, *typed.graph.output]
    half = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16}

    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    graph = emulated.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in half:
                exact, short = f"{name}.exact", f"{name}.short"
                node.output[place] = exact
                nodes.append(helper.make_node("Cast", [exact], [short], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [short], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return emulated
