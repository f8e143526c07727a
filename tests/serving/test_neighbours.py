"""A wrong request fails alone: callers whose requests are answered at the same time get their answers.

Good callers ask without a pause, so that requests wait and Triton merges them. Meanwhile every kind of wrong request is
sent, again and again.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.repository.specs import PIPELINES
from serving.server.server import Server
from tests.asking import SECONDS
from tests.pictures import PHOTO

CALLERS = 6
"""Good callers at a time. Some of their requests are merged with each wrong one."""
VALUES = {
    "IMAGE": PHOTO,
    "PRODUCT_TYPE": b"mug",
    "TEXT": b"a red mug",
    "PRODUCT": b'{"title": "a red mug"}',
}
DTYPES = {"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_}
REGION_BYTES = 64


def element(value: bytes, length: int | None = None) -> bytes:
    """An element of a BYTES tensor, which claims to have ``length`` bytes."""
    return struct.pack("<I", len(value) if length is None else length) + value


@dataclass
class Tensor:
    """An input as it is sent, well formed or not."""

    raw: bytes | None
    shape: list[int] = field(default_factory=lambda: [1, 1])
    datatype: str = "BYTES"
    contents: list[bytes] = field(default_factory=list)
    parameters: dict[str, str | int] = field(default_factory=dict)


Damage = Callable[[bytes, random.Random], Tensor]
"""Makes a wrong tensor of a good value."""
DAMAGE: dict[str, Damage] = {
    "a length above the data": lambda value, rng: Tensor(element(value, len(value) + rng.randint(1, 1000))),
    "a length of 4 GiB": lambda value, rng: Tensor(element(value, 0xFFFFFFFF)),
    "a length above the data of the last row": lambda value, rng: Tensor(
        element(value) + element(value, len(value) + rng.randint(1, 9)), [2, 1]
    ),
    "a length below the data": lambda value, rng: Tensor(element(value, rng.randrange(len(value)))),
    "cut data": lambda value, rng: Tensor(element(value)[: rng.randrange(len(value) + 4)]),
    "random bytes": lambda value, rng: Tensor(rng.randbytes(rng.randint(5, 50))),
    "no bytes": lambda value, rng: Tensor(b""),
    "no data": lambda value, rng: Tensor(None),
    "two elements for a row": lambda value, rng: Tensor(element(value) * 2),
    "one element for two rows": lambda value, rng: Tensor(element(value), [2, 1]),
    "more than a batch": lambda value, rng: Tensor(element(b"") * 65, [65, 1]),
    "no batch": lambda value, rng: Tensor(element(value), [1]),
    "no shape": lambda value, rng: Tensor(element(value), []),
    "two columns": lambda value, rng: Tensor(element(value) * 2, [1, 2]),
    "no columns": lambda value, rng: Tensor(b"", [1, 0]),
    "a negative batch": lambda value, rng: Tensor(element(value), [-1, 1]),
    "a negative size": lambda value, rng: Tensor(element(value), [1, -1]),
    "another dtype": lambda value, rng: Tensor(b"1234", datatype="FP32"),
    "an unknown dtype": lambda value, rng: Tensor(element(value), datatype="TEXT"),
    "contents of two elements": lambda value, rng: Tensor(None, contents=[value, value]),
    "contents and raw data": lambda value, rng: Tensor(element(value), contents=[value]),
    "an unknown region": lambda value, rng: Tensor(
        None, parameters={"shared_memory_region": "nowhere", "shared_memory_byte_size": 9}
    ),
    "a region that is too small": lambda value, rng: Tensor(
        None, parameters={"shared_memory_region": "neighbours", "shared_memory_byte_size": REGION_BYTES + 1}
    ),
    "a length above its region": lambda value, rng: Tensor(
        None, parameters={"shared_memory_region": "neighbours", "shared_memory_byte_size": REGION_BYTES}
    ),
}
JSON_DAMAGE: dict[str, tuple[dict[str, Any], int]] = {
    "no data": ({}, 400),
    "two elements": ({"data": ["a", "b"]}, 400),
    "no elements": ({"data": []}, 400),
    "a length above the body": ({"parameters": {"binary_data_size": 1000}}, 400),
    "a number": ({"data": [1]}, 500),
    "an object": ({"data": [{}]}, 500),
    "not a list": ({"data": "a"}, 500),
    "a negative size": ({"data": ["a"], "shape": [-1, 1]}, 500),
    "a shape of strings": ({"data": ["a"], "shape": ["1", "1"]}, 500),
    "an unknown dtype": ({"data": ["a"], "datatype": "TEXT"}, 400),
    "half a character": ({"data": ["\ud800"]}, 500),
}
"""What is put into an input over HTTP, and the answer. docs/contract.md says that 500 is Triton's."""


def message(pipeline: str, **tensors: Tensor) -> Any:
    request = service_pb2.ModelInferRequest(model_name=pipeline)
    for name, tensor in tensors.items():
        given = request.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.contents:
            given.contents.bytes_contents.extend(tensor.contents)
        for key, value in tensor.parameters.items():
            setattr(given.parameters[key], "string_param" if isinstance(value, str) else "int64_param", value)
        if tensor.raw is not None:
            request.raw_input_contents.append(tensor.raw)
    return request


def good(pipeline: str) -> dict[str, Tensor]:
    return {tensor.name: Tensor(element(VALUES[tensor.name])) for tensor in PIPELINES[pipeline].inputs}


def wrong(pipeline: str, seed: int) -> Iterator[tuple[str, Any]]:
    """Each kind of damage at each input, with the other inputs well formed."""
    rng = random.Random(seed)
    for name, (kind, damage) in itertools.product(good(pipeline), DAMAGE.items()):
        tensors = good(pipeline) | {name: damage(VALUES[name], rng)}
        if tensors[name].raw is None:
            # Triton takes either raw data or contents for all inputs of a request.
            tensors |= {other: Tensor(None, contents=[VALUES[other]]) for other in tensors if other != name}
        yield f"{kind} in {name}", message(pipeline, **tensors)


def read(response: Any) -> dict[str, npt.NDArray[Any]]:
    """The outputs that are numbers."""
    return {
        output.name: np.frombuffer(content, DTYPES[output.datatype]).reshape(output.shape)
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
        if output.datatype in DTYPES
    }


class Neighbours:
    """Callers with good requests. ``problems`` has what went wrong for them."""

    def __init__(self, server: Server, pipeline: str) -> None:
        self.server, self.request = server, message(pipeline, **good(pipeline))
        self.answered, self.problems = 0, list[str]()
        self.stopping = threading.Event()
        self.expected = self.ask(self.stub())

    def stub(self) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(self.server.grpc_url, options))

    def ask(self, stub: Any) -> dict[str, npt.NDArray[Any]]:
        while True:
            try:
                return read(stub.ModelInfer(self.request, timeout=SECONDS))
            except grpc.RpcError as error:
                # On a busy machine the server may refuse some. That is not the fault of a neighbour.
                if error.code() is not grpc.StatusCode.UNAVAILABLE or "overloaded" not in error.details():
                    raise

    def call(self) -> None:
        stub = self.stub()
        while not self.stopping.is_set():
            try:
                found = self.ask(stub)
                for name, array in self.expected.items():
                    np.testing.assert_allclose(found[name], array, atol=1e-3, err_msg=name)
            except (grpc.RpcError, AssertionError, KeyError) as error:
                self.problems.append(str(error))
            self.answered += 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        with ThreadPoolExecutor(CALLERS) as threads:
            calls = [threads.submit(self.call) for _ in range(CALLERS)]
            try:
                yield
            finally:
                self.stopping.set()
        for call in calls:
            call.result()


@pytest.fixture
def region(server: Server) -> Iterator[None]:
    """A registered region of shared memory with an element that is longer than the region."""
    headers = {"triton-grpc-protocol-shared-memory-key": server.shared_memory_key}
    with (
        closing(SharedMemory(create=True, size=REGION_BYTES)) as memory,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        assert memory.buf is not None
        memory.buf[:REGION_BYTES] = element(bytes(REGION_BYTES - 4), REGION_BYTES)
        client.register_system_shared_memory("neighbours", f"/{memory.name}", REGION_BYTES, headers=headers)
        yield
        client.unregister_system_shared_memory("neighbours", headers=headers)
        memory.unlink()


def fails(stub: Any, request: Any) -> str:
    """The code of the answer to a wrong request."""
    try:
        stub.ModelInfer(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def post(server: Server, pipeline: str, name: str, damage: Mapping[str, Any]) -> int:
    """The HTTP status of a request in JSON, with ``damage`` in the input ``name``."""
    inputs = [{"name": one.name, "shape": [1, 1], "datatype": "BYTES"} for one in PIPELINES[pipeline].inputs]
    body = [{**one, **(damage if one["name"] == name else {"data": ["mug"]})} for one in inputs]
    with closing(http.client.HTTPConnection(server.http_url, timeout=SECONDS)) as connection:
        connection.request("POST", f"/v2/models/{pipeline}/infer", json.dumps({"inputs": body}))
        return connection.getresponse().status


def harm(server: Server, pipeline: str, seed: int) -> None:
    """Send every wrong request once, and check its answer."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.grpc_url))
    found = {kind: fails(stub, request) for kind, request in wrong(pipeline, seed)}
    assert {kind: code for kind, code in found.items() if code not in ("INVALID_ARGUMENT", "NOT_FOUND")} == {}
    first = PIPELINES[pipeline].inputs[0].name
    answers = {kind: post(server, pipeline, first, damage) for kind, (damage, _) in JSON_DAMAGE.items()}
    assert answers == {kind: status for kind, (_, status) in JSON_DAMAGE.items()}


@pytest.mark.parametrize("number", [100, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_wrong_request_fails_alone(server: Server, region: None, pipeline: str, number: int) -> None:
    """The slow cases have 10,000 good requests in all pipelines together."""
    neighbours = Neighbours(server, pipeline)
    with neighbours.calling():
        for seed in itertools.count():
            harm(server, pipeline, seed)
            if neighbours.answered >= number:
                break
    print(f"{pipeline}: {neighbours.answered} good requests, {len(neighbours.problems)} of them failed")
    assert neighbours.problems == []
