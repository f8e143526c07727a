"""What the leaves share: the parameters of their config, the inputs of a request, and responses with an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils


def parameters_of(args: Mapping[str, str]) -> dict[str, str]:
    """The parameters of the config in ``args``, which Triton passes to ``initialize``."""
    parameters: dict[str, dict[str, str]] = json.loads(args["model_config"]).get("parameters", {})
    return {name: value["string_value"] for name, value in parameters.items()}


def input_of(request: pb_utils.InferenceRequest, name: str) -> pb_utils.Tensor:
    """An input that the config requires, so that Triton refuses requests without it."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    assert tensor is not None, f"Triton passed no {name}"
    return tensor


def array_of(request: pb_utils.InferenceRequest, name: str) -> npt.NDArray[Any]:
    """An input in the memory of the host: (B, …)."""
    return input_of(request, name).as_numpy()


def column_of(tensor: pb_utils.Tensor) -> list[Any]:
    """The values of an input [N, 1]."""
    values: list[Any] = tensor.as_numpy().ravel().tolist()
    return values


def fail(message: str) -> pb_utils.InferenceResponse:
    """A response that fails its request."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))


def refuse(message: str) -> pb_utils.InferenceResponse:
    """A response that asks the caller to try again later: UNAVAILABLE in gRPC, 503 in HTTP."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.UNAVAILABLE))
