"""FP16 graphs: which part of a leaf computes in FP16, and how such a graph is judged without a GPU.

The part is a module, which becomes FP16 in PyTorch before the trace. So the graph is strongly typed: every tensor has
the dtype of its module, with a ``Cast`` where the dtype changes, and no runtime chooses dtypes. The inputs and outputs
of a leaf stay as in ``serving.repository.specs``.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import dtype, nn

from export.errors import UnsupportedModel


@dataclass(frozen=True)
class Policy:
    """The module of a leaf that computes in FP16."""

    half: str
    """Its name in ``named_modules``."""
    fuse: bool = False
    """Whether its ``fuse()`` folds batch normalizations first, because FP16 cannot hold their variances."""


# By leaf. The figures are the gate's worst cosine or score difference from PyTorch in FP32, with every tensor rounded.

OPEN_CLIP = {
    # 0.9999996 for the mini model, 0.999999 for ViT-B-32 with random weights. Only the division by the length is FP32.
    "encode_image": Policy(half="model.visual"),
    # 0.9999998 and 0.999998.
    "encode_text": Policy(half="model"),
}
YOLO_WORLD = {
    "encode_prompt": OPEN_CLIP["encode_text"],
    # 0.0004 and 0.02 pixels for the mini model, 0.005 and 0.4 pixels for S with random weights. The letterbox and the
    # decoding of boxes stay in FP32, because a step of FP16 is half a pixel at 640. Keeping the head, its contrast with
    # the prompt or the first convolution in FP32 as well does not improve the scores.
    "detect": Policy(half="detector.model", fuse=True),
}
GROUNDING_DINO = {
    # 0.006 of the largest logit at reduced size. The encoder and the decoder stay in FP32: with trained weights, the
    # attention between text and image overflows FP16 (TensorRT issue 3413). BERT stays too: a prompt is encoded once.
    "detect": Policy(half="detector.model.model.backbone.conv_encoder"),
}


def with_policy(module: nn.Module, policy: Policy) -> nn.Module:
    """A copy of ``module`` whose part computes in FP16. Its inputs and outputs are cast.

    Raises:
        UnsupportedModel: the module has no such part, so the policy is for another model.
    """
    copy = deepcopy(module)
    try:
        part: Any = copy.get_submodule(policy.half)
    except AttributeError as error:
        raise UnsupportedModel(
            f"the FP16 policy names {policy.half}, which {type(module).__name__} does not have"
        ) from error
    if policy.fuse:
        part.fuse(verbose=False)
    compute_in_half(part)
    return copy


def compute_in_half(module: nn.Module) -> None:
    """Cast a module's weights and floating-point arguments to FP16, and its results back to FP32."""
    module.to(torch.float16)
    module.register_forward_pre_hook(lambda _, args, kwargs: cast((args, kwargs), torch.float16), with_kwargs=True)
    module.register_forward_hook(lambda _, args, result: cast(result, torch.float32))


def cast(value: Any, to: dtype) -> Any:
    """Cast every floating-point tensor in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return value.to(to) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(item, to) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(cast(item, to) for item in value)
    return value


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the graph computes in FP16. A graph that only stores FP16 weights casts each of them to FP32."""
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return any(
        any(attribute.i == TensorProto.FLOAT16 for attribute in node.attribute)
        if node.op_type == "Cast"
        else not stored.isdisjoint(node.input)
        for node in model.graph.node
    )


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that gives on a CPU the results of ``model`` on a GPU: every FP16 tensor is rounded to FP16.

    ONNX Runtime has no FP16 kernels on an x86 CPU. It computes in FP32 without the casts between two such nodes:
    60000 + 60000 - 60000 is 60000 there, and infinite on a GPU. Here every FP16 node computes in FP32, followed by a
    ``Cast`` to FP16 and back, which no optimizer may remove. A GPU that fuses nodes rounds less often.
    """
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
