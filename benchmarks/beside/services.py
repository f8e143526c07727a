"""The ways to the same embeddings, with one interface, so that one load engine can measure them all.

A message is prepared before the clock starts and an answer is parsed after it has stopped. In between, the engine only
sends and receives bytes.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from benchmarks.photos import Sample
from export.in_process import ANSWER, InProcess

START_SECONDS = 90
HttpMessage = tuple[str, bytes, dict[str, str]]
"""Path, body, headers."""
Array = np.ndarray[Any, np.dtype[np.float32]]
Connection = Callable[[Any], Any]
"""Sends a prepared message and returns the answer as it came."""


class Service(ABC):
    pid: int
    """The process that does the work, with its children."""

    def running(self) -> AbstractContextManager[None]:
        """The context of a turn. Outside of it the service uses no CPU time."""
        return nullcontext()

    @abstractmethod
    def message(self, samples: Sequence[Sample]) -> Any:
        """Prepare a request for the embeddings of these samples."""

    @abstractmethod
    def connect(self) -> AbstractContextManager[Connection]:
        """Open the connection of one client."""

    @abstractmethod
    def embeddings(self, answer: Any) -> Array:
        """[B, D]"""


class InThisProcess(Service):
    """The graphs in this process, called with a whole message at once or with one photo after the other."""

    def __init__(self, model: InProcess, one_by_one: bool = False) -> None:
        self.pid = os.getpid()
        self._model, self._one_by_one = model, one_by_one

    def message(self, samples: Sequence[Sample]) -> tuple[list[bytes], list[str]]:
        return [photo for photo, _ in samples], [product_type for _, product_type in samples]

    def connect(self) -> AbstractContextManager[Connection]:
        return nullcontext(self._ask)

    def _ask(self, message: tuple[list[bytes], list[str]]) -> list[dict[str, Array]]:
        if not self._one_by_one:
            return [self._model.embed(*message)]
        return [self._model.embed([photo], [product_type]) for photo, product_type in zip(*message, strict=True)]

    def embeddings(self, answer: list[dict[str, Array]]) -> Array:
        return np.concatenate([part["EMBEDDING"] for part in answer])


class Served(Service):
    """``product_image`` over gRPC."""

    def __init__(self, channel: grpc.Channel, pid: int) -> None:
        self.pid = pid
        self._infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def message(self, samples: Sequence[Sample]) -> bytes:
        request = service_pb2.ModelInferRequest(model_name="product_image")
        columns = {
            "IMAGE": [photo for photo, _ in samples],
            "PRODUCT_TYPE": [product_type.encode() for _, product_type in samples],
        }
        for name, column in columns.items():
            request.inputs.add(name=name, datatype="BYTES", shape=[len(samples), 1])
            request.raw_input_contents.append(serialize_byte_tensor(np.array(column, object)).item())
        for name in ANSWER:
            request.outputs.add(name=name)
        return bytes(request.SerializeToString())

    def connect(self) -> AbstractContextManager[Connection]:
        return nullcontext(self._infer)

    def embeddings(self, answer: bytes) -> Array:
        response = service_pb2.ModelInferResponse.FromString(answer)
        i = [output.name for output in response.outputs].index("EMBEDDING")
        return np.frombuffer(response.raw_output_contents[i], np.float32).reshape(response.outputs[i].shape)


class Http(Service):
    """One photo a request over HTTP/1.1 with a persistent connection. The answer is JSON."""

    def __init__(self, port: int, pid: int) -> None:
        self._port, self.pid = port, pid

    @contextmanager
    def running(self) -> Iterator[None]:
        # LitServe's workers poll for work, which would cost the service that has its turn a tenth of two cores.
        os.killpg(self.pid, signal.SIGCONT)
        yield
        os.killpg(self.pid, signal.SIGSTOP)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.connect()
            assert connection.sock
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def ask(message: HttpMessage) -> bytes:
                connection.request("POST", *message)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise RuntimeError(f"HTTP {response.status}: {body[:200]!r}")
                return body

            yield ask

    def embeddings(self, answer: bytes) -> Array:
        return np.array([json.loads(answer)["embedding"]], np.float32)


class FastApi(Http):
    def message(self, samples: Sequence[Sample]) -> HttpMessage:
        [(photo, product_type)] = samples
        path = "/embed?" + urlencode({"product_type": product_type})
        return path, photo, {"Content-Type": "application/octet-stream"}


class LitServe(Http):
    def message(self, samples: Sequence[Sample]) -> HttpMessage:
        [(photo, product_type)] = samples
        body = {"image": base64.b64encode(photo).decode(), "product_type": product_type}
        return "/embed", json.dumps(body).encode(), {"Content-Type": "application/json"}


@contextmanager
def running(module: str, repository: Path) -> Iterator[tuple[int, int]]:
    """Run a service's module in its own process group: its port and process id. Raises RuntimeError if it fails."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, str(repository), str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        end = time.monotonic() + START_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{module} did not start. Run this to see why: {' '.join(command)}")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        # The group includes the workers.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                os.killpg(process.pid, signal.SIGCONT)
                process.wait(5)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
