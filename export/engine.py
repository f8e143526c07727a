"""Run a TensorRT plan on this machine's GPU, and check the dtypes that it computes in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch

from export.errors import PlanError
from export.tensorrt import BuiltPlan, check_tensors, logger_of, reason
from serving.repository.specs import ModelSpec

ALIASES = {"FP32": "FLOAT", "FP16": "HALF"}
"""The engine inspector's names of dtypes within formats, and TensorRT's own."""
DTYPES = {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"}


def inspected_dtypes(leaf: str, information: str) -> dict[str, int]:
    """The number of outputs of the engine's fused layers by dtype.

    Args:
        information: the engine inspector's JSON for an engine built with ``ProfilingVerbosity.DETAILED``, as TensorRT
            documents it. In TensorRT 10 a tensor has ``"Format/Datatype"``, for example "Half" or "Row major linear
            FP16 format"; in TensorRT 11 it has ``"Datatype"`` and ``"Format"``.

    Raises:
        PlanError: no layer has a dtype.
    """
    layers = [layer for layer in json.loads(information)["Layers"] if isinstance(layer, dict)]
    outputs = [tensor for layer in layers for tensor in layer.get("Outputs", [])]
    found: Counter[str] = Counter()
    for tensor in outputs:
        words = str(tensor.get("Datatype") or tensor.get("Format/Datatype", "")).upper().strip(".").split()
        found.update([name for word in words if (name := ALIASES.get(word, word)) in DTYPES][:1])
    if not found:
        raise PlanError(f"{leaf}: the engine inspector reports no dtypes: {information[:160]!r}")
    return dict(sorted(found.items()))


def check_precision(leaf: str, network: dict[str, int], engine: dict[str, int]) -> None:
    """Refuse an engine that computes in FP16 if the graph does not, or never does if the graph does."""
    holders = [name for name, dtypes in (("graph", network), ("engine", engine)) if "HALF" in dtypes]
    if len(holders) == 1:
        raise PlanError(
            f"{leaf}: only the {holders[0]} has FP16: the graph's tensors are {network}, the engine's {engine}"
        )


@dataclass
class Engine:
    """A plan that is loaded on this machine's GPU. Call it with the arrays of a batch.

    It follows TensorRT's documentation, and has not run on a GPU yet.

    Raises:
        PlanError: the plan does not load here, its tensors are not those of ``spec``, or it computes in other dtypes
            than the graph.
    """

    trt: ModuleType
    leaf: str
    spec: ModelSpec
    plan: BuiltPlan
    context: Any = field(init=False)

    def __post_init__(self) -> None:
        logger_of(self.trt).errors.clear()
        self.runtime = self.trt.Runtime(logger_of(self.trt))
        self.engine = self.runtime.deserialize_cuda_engine(self.plan.content)
        if self.engine is None:
            raise PlanError(f"{self.leaf}: the plan does not load: {reason(logger_of(self.trt).errors)}")
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        check_tensors(self.leaf, self.spec, {name: self.engine.get_tensor_dtype(name).name for name in names})
        layers = self.engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON)
        check_precision(self.leaf, self.plan.layers, inspected_dtypes(self.leaf, layers))
        self.context = self.engine.create_execution_context()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(value).cuda().contiguous() for name, value in inputs.items()}
        for name, value in tensors.items():
            self.context.set_input_shape(name, tuple(value.shape))
        for spec in self.spec.outputs:
            dtype = {"FP32": torch.float32, "INT32": torch.int32}[spec.dtype]
            tensors[spec.name] = torch.empty(
                tuple(self.context.get_tensor_shape(spec.name)), dtype=dtype, device="cuda"
            )
        for name, value in tensors.items():
            self.context.set_tensor_address(name, value.data_ptr())
        torch.cuda.synchronize()
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise PlanError(f"{self.leaf}: the plan does not run: {reason(logger_of(self.trt).errors)}")
        torch.cuda.synchronize()
        return {spec.name: tensors[spec.name].cpu().numpy() for spec in self.spec.outputs}
