"""Requests to a Triton by tritonclient, without our client, and waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

Arrays = dict[str, NDArray[Any]]
SECONDS = 120.0
"""The time-out of everything. No test waits for so long unless it fails."""


def until(is_true: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline, f"not true within {SECONDS} s"
        time.sleep(0.02)


def read_until(wanted: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Wait until the server reports this, and return its reports."""
    reports: list[str] = []

    def is_reported() -> bool:
        reports.append(capfd.readouterr().err)
        return wanted in "".join(reports)

    until(is_reported)
    return "".join(reports)


def to_array(data: Any) -> NDArray[Any]:
    """A list of bytes as a tensor BYTES [N, 1]; an array as it is."""
    return data if isinstance(data, np.ndarray) else np.array(data, dtype=object)[:, None]


def ask_grpc(url: str, model: str, outputs: list[str] | None = None, **inputs: Any) -> Arrays:
    with tritonclient.grpc.InferenceServerClient(url) as client:
        return _ask(tritonclient.grpc, client, model, outputs, inputs, client_timeout=SECONDS)


def ask_http(url: str, model: str, outputs: list[str] | None = None, **inputs: Any) -> Arrays:
    with tritonclient.http.InferenceServerClient(url, network_timeout=SECONDS) as client:
        return _ask(tritonclient.http, client, model, outputs, inputs)


def _ask(protocol: Any, client: Any, model: str, outputs: list[str] | None, inputs: Any, **options: Any) -> Arrays:
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
