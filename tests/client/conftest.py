"""A KServe v2 server over real gRPC on a loopback port, with arithmetic in place of the models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

import vlclip
from tests.client.command import Run
from vlclip import cli

PIPELINES = {
    "product_image": ("EMBEDDING", "BOX", "SCORE", "STATUS", "TRUNCATED", "VERSION"),
    "whole_image": ("EMBEDDING", "STATUS", "VERSION"),
    "ground": ("BOX", "SCORE", "STATUS", "TRUNCATED", "VERSION"),
    "product_text": ("EMBEDDING", "TRUNCATED", "VERSION"),
    "enriched_text": ("TEXT", "EMBEDDING", "ROUNDS", "STATUS", "PROMPTS", "TRUNCATED", "VERSION"),
}


def unpacked(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor."""
    return list(deserialize_bytes_tensor(raw))


def never() -> bool:
    return False


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Embeds an item as [its number, length of its product type, 0, …], so that each result shows its item.

    Items are decimal numbers. Anything else is not an image: zeros and STATUS 2. Tests set the attributes below.
    """

    def __init__(self, encrypted: grpc.ServerCredentials | None = None) -> None:
        self.max_batch_size = 4
        self.dim = 3
        self.is_ready = True
        self.version = [0xE1, 0x1E1, 0x2E1, 0x7FFFFFFF]
        self.fail: grpc.StatusCode | None = None
        self.details = "as the test wants it"
        self.fail_on = b""  # only a batch with this item fails
        self.fail_times = 1 << 30
        self.refuse_every = 0  # each n-th request is UNAVAILABLE
        self.hold: dict[bytes, Callable[[], bool]] = {}  # a batch waits, by its first item, until this is true
        self.tamper: Callable[[Any], None] = lambda response: None
        self.keep_requests = True
        self.infer_requests: list[Any] = []
        self.time_left: list[float] = []
        self.metadata: list[dict[str, str]] = []
        self.config_requests = self.received = self.refused = self.answered = 0
        self.in_flight = self.most_in_flight = 0
        self.cancelled = threading.Event()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.encrypted_port = self._server.add_secure_port("localhost:0", encrypted) if encrypted else None
        self._server.start()

    def stop(self, grace: float | None = None) -> None:
        self._server.stop(grace).wait()
        self._pool.shutdown()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition on the attributes is true."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=60)

    def wake(self) -> None:
        """Makes the batches that are held look at their conditions again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def batches(self) -> list[list[bytes]]:
        """The items of each request, in the order in which they arrived."""
        return [unpacked(request.raw_input_contents[0]) for request in self.infer_requests]

    def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="fake", version="1.0")

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=self.is_ready and request.name != "ground")

    def ServerReady(self, request: Any, context: Any) -> Any:
        if self.fail is not None:
            context.abort(self.fail, self.details)
        return service_pb2.ServerReadyResponse(ready=self.is_ready)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self.config_requests += 1
        if request.name not in PIPELINES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        response = service_pb2.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = self.max_batch_size
        response.config.parameters["version"].string_value = "-".join(f"{digest:08x}" for digest in self.version)
        response.config.parameters["label"].string_value = "version 2: mini + mini, 2026-11-28, fp32"
        return response

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        """Refuses, as Triton 26.04 and newer do without `--allow-client-shm=true`."""
        details = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
        context.abort(grpc.StatusCode.UNIMPLEMENTED, details)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        with self._changed:
            if self.keep_requests:
                self.infer_requests.append(request)
            self.time_left.append(context.time_remaining())
            self.metadata.append(dict(context.invocation_metadata()))
            self.received += 1
            refused = self.refuse_every > 0 and self.received % self.refuse_every == 0
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
        try:
            items, *prompts = map(unpacked, request.raw_input_contents)
            self._wait(items[0] if items else b"", context)
            failing = self.fail is not None and (not self.fail_on or self.fail_on in items)
            with self._changed:
                failing = failing and self.fail_times > 0
                self.fail_times -= failing
                self.refused += refused
                self.answered += not failing and not refused
            if failing:
                context.abort(self.fail, self.details)
            if refused:
                context.abort(grpc.StatusCode.UNAVAILABLE, "refused")
            assert len(items) <= self.max_batch_size, "a batch larger than the server accepts"
            response = self._answer(request, items, prompts[0] if prompts else [b""] * len(items))
            self.tamper(response)
            return response
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def _wait(self, first: bytes, context: Any) -> None:
        """Holds the batch as ``hold`` says, or until the client cancels it."""
        released = self.hold.get(first)
        if released is None:
            return

        context.add_callback(self.wake)
        with self._changed:
            self._changed.wait_for(lambda: released() or not context.is_active())
        if not context.is_active():
            self.cancelled.set()

    def _answer(self, request: Any, items: list[bytes], prompts: list[bytes]) -> Any:
        n = len(items)
        number = np.array([float(item) if item.isdigit() else -1 for item in items], np.float32)
        embedding = np.zeros((n, self.dim), np.float32)
        embedding[:, 0] = np.maximum(number, 0)
        embedding[:, 1] = [len(prompt) for prompt in prompts]
        tensors: dict[str, tuple[str, npt.NDArray[Any]]] = {
            "EMBEDDING": ("FP32", embedding),
            "BOX": ("FP32", number[:, None] + np.arange(4, dtype=np.float32)),
            "SCORE": ("FP32", np.full((n, 1), 0.5, np.float32)),
            "STATUS": ("INT32", np.where(number < 0, 2, 0).astype(np.int32)[:, None]),
            "ROUNDS": ("INT32", np.ones((n, 1), np.int32)),
            "TEXT": ("BYTES", np.array(items, object)[:, None]),
            "PROMPTS": ("BYTES", np.array([b"v1"] * n, object)[:, None]),
            "TRUNCATED": ("BOOL", np.array([len(item) > 40 for item in items])[:, None]),
            "VERSION": ("INT32", np.tile(np.array(self.version, np.int32), (n, 1))),
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        assert {output.name for output in request.outputs} <= set(PIPELINES[request.model_name])
        for output in request.outputs:
            datatype, array = tensors[output.name]
            response.outputs.add(name=output.name, datatype=datatype, shape=array.shape)
            content = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
            response.raw_output_contents.append(content)
        return response


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    server = FakeTriton()
    yield server
    server.stop()


@pytest.fixture
def client(triton: FakeTriton) -> Iterator[vlclip.Client]:
    with vlclip.Client(triton.address) as client:
        yield client


@pytest.fixture
def run(triton: FakeTriton, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `vlclip` with the address of ``triton``."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        code = cli.main([*map(str, arguments), "--address", triton.address])
        return code, *capsys.readouterr()

    return run
