"""Asking a Triton the plain way, with tritonclient and nothing of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

SECONDS = 30.0


def to_array(data: Any) -> np.ndarray:
    """A list of bytes as a tensor BYTES [N, 1]; an array as it is."""
    return data if isinstance(data, np.ndarray) else np.array(data, dtype=object)[:, None]


def ask_grpc(url: str, model: str, outputs: list[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
    with tritonclient.grpc.InferenceServerClient(url) as client:
        return _ask(tritonclient.grpc, client, model, outputs, inputs, client_timeout=SECONDS)


def ask_http(url: str, model: str, outputs: list[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
    with tritonclient.http.InferenceServerClient(url, network_timeout=SECONDS) as client:
        return _ask(tritonclient.http, client, model, outputs, inputs)


def _ask(protocol: Any, client: Any, model: str, outputs: list[str] | None, inputs: Any, **options: Any) -> Any:
    tensors = []
    for name, data in inputs.items():
        array = to_array(data)
        tensor = protocol.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    wanted = [protocol.InferRequestedOutput(name) for name in outputs] if outputs else None
    result = client.infer(model, tensors, outputs=wanted, **options)
    answer = result.get_response()
    described = answer["outputs"] if isinstance(answer, dict) else answer.outputs
    names = [one["name"] if isinstance(one, dict) else one.name for one in described]
    return {name: result.as_numpy(name) for name in names}
