"""A server of KServe v2 over real gRPC on a loopback port, with arithmetic in place of the models."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

PIPELINES = {
    "product_image": ("EMBEDDING", "BOX", "SCORE", "STATUS"),
    "whole_image": ("EMBEDDING", "STATUS"),
    "ground": ("BOX", "SCORE", "STATUS"),
    "product_text": ("EMBEDDING",),
    "enriched_text": ("TEXT", "EMBEDDING", "ROUNDS", "STATUS", "PROMPTS"),
}


def unpacked(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor."""
    items, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        items.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return items


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Embeds an item as [its number, length of its product type, 0, …]: what it is tells its place.

    Items are decimal numbers; anything else is no image: zeros, and STATUS 2. Change the attributes to misbehave.
    """

    def __init__(self, *encrypted: grpc.ServerCredentials) -> None:
        self.max_batch_size = 4
        self.dim = 3
        self.is_ready = True
        self.fail: grpc.StatusCode | None = None
        self.details = "as the test wants it"
        self.fail_on = b""  # only a batch with this item fails
        self.fail_times = 1 << 30
        self.unavailable = 0.0  # share of the requests
        self.answered = self.refused = 0
        self.keep_requests = True
        self._random = random.Random(0)
        self.delay: dict[bytes, float] = {}  # seconds, by the first item of a batch
        self.tamper = lambda response: None
        self.infer_requests: list[service_pb2.ModelInferRequest] = []
        self.time_left: list[float] = []
        self.metadata: list[dict[str, str]] = []
        self.config_requests = 0
        self.cancelled = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self.pool, options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.encrypted_ports = [self._server.add_secure_port("localhost:0", each) for each in encrypted]
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self.pool.shutdown()

    @property
    def batches(self) -> list[list[bytes]]:
        """The items of each request, in the order in which they came."""
        return [unpacked(request.raw_input_contents[0]) for request in self.infer_requests]

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ServerMetadata(self, request, context):
        return service_pb2.ServerMetadataResponse(name="fake", version="1.0")

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=self.is_ready and request.name != "ground")

    def ModelMetadata(self, request, context):
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1", "2"])

    def ServerReady(self, request, context):
        if self.fail is not None:
            context.abort(self.fail, "as the test wants it")
        return service_pb2.ServerReadyResponse(ready=self.is_ready)

    def ModelConfig(self, request, context):
        self.config_requests += 1
        if request.name not in PIPELINES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        response = service_pb2.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = self.max_batch_size
        return response

    def SystemSharedMemoryRegister(self, request, context):
        """Refuses, as Triton 26.04 and newer do without `--allow-client-shm=true`."""
        details = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
        context.abort(grpc.StatusCode.UNIMPLEMENTED, details)

    def ModelInfer(self, request, context):
        with self._lock:
            if self.keep_requests:
                self.infer_requests.append(request)
            self.time_left.append(context.time_remaining())
            self.metadata.append(dict(context.invocation_metadata()))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        items, *prompts = map(unpacked, request.raw_input_contents)
        self._sleep(self.delay.get(items[0], 0) if items else 0, context)
        with self._lock:
            self._at_once -= 1
        if self.fail is not None and (not self.fail_on or self.fail_on in items) and self.fail_times > 0:
            self.fail_times -= 1
            context.abort(self.fail, self.details)
        with self._lock:
            refused = self._random.random() < self.unavailable
            self.refused += refused
            self.answered += not refused
        if refused:
            context.abort(grpc.StatusCode.UNAVAILABLE, "in a mood")
        assert len(items) <= self.max_batch_size, "a batch larger than the server takes"
        response = self._answer(request, items, prompts[0] if prompts else [b""] * len(items))
        self.tamper(response)
        return response

    def _sleep(self, seconds: float, context) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and context.is_active():
            time.sleep(0.005)
        if not context.is_active():
            self.cancelled.set()

    def _answer(self, request, items: list[bytes], prompts: list[bytes]) -> service_pb2.ModelInferResponse:
        n = len(items)
        number = np.array([float(item) if item.isdigit() else -1 for item in items], np.float32)
        embedding = np.zeros((n, self.dim), np.float32)
        embedding[:, 0] = np.maximum(number, 0)
        embedding[:, 1] = [len(prompt) for prompt in prompts]
        tensors: dict[str, tuple[str, np.ndarray]] = {
            "EMBEDDING": ("FP32", embedding),
            "BOX": ("FP32", number[:, None] + np.arange(4, dtype=np.float32)),
            "SCORE": ("FP32", np.full((n, 1), 0.5, np.float32)),
            "STATUS": ("INT32", np.where(number < 0, 2, 0).astype(np.int32)[:, None]),
            "ROUNDS": ("INT32", np.ones((n, 1), np.int32)),
            "TEXT": ("BYTES", np.array([len(item).to_bytes(4, "little") + item for item in items], object)[:, None]),
            "PROMPTS": ("BYTES", np.array([b"\x02\0\0\0v1"] * n, object)[:, None]),
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        assert {output.name for output in request.outputs} <= set(PIPELINES[request.model_name])
        for output in request.outputs:
            datatype, array = tensors[output.name]
            response.outputs.add(name=output.name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(b"".join(array.flat) if datatype == "BYTES" else array.tobytes())
        return response


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    server = FakeTriton()
    yield server
    server.stop()
