"""The four ways to the same embeddings, behind one face, so that one load generator can ask them all.

A message is made before the clock starts and an answer is read after it has stopped, so that while it runs the
generator only sends bytes and receives bytes.
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
from typing import Any, Protocol
from urllib.parse import urlencode

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from benchmarks.in_process import ANSWER, InProcess

START_SECONDS = 90
Ask = tuple[bytes, str]
"""A photo's file and its product type."""
HttpMessage = tuple[str, bytes, dict[str, str]]
"""Path, body, headers."""


class Service(Protocol):
    pid: int
    """The process that does the work, with its children."""

    def awake(self) -> AbstractContextManager[None]:
        """Around its turn; between turns it takes no time from the others."""

    def message(self, asks: Sequence[Ask]) -> Any:
        """What asks for these embeddings, ready to be sent."""

    def connect(self) -> AbstractContextManager[Callable[[Any], Any]]:
        """A connection of one client: a message → the answer, as it came."""

    def embeddings(self, answer: Any) -> np.ndarray:
        """[B, D]"""


class Here:
    """The graphs in this process, on a whole message at once or one photo after the other."""

    def __init__(self, model: InProcess, one_by_one: bool = False) -> None:
        self.pid = os.getpid()
        self._model, self._one_by_one = model, one_by_one

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def message(self, asks: Sequence[Ask]) -> tuple[list[bytes], list[str]]:
        return [photo for photo, _ in asks], [product_type for _, product_type in asks]

    def connect(self) -> AbstractContextManager[Callable[[Any], Any]]:
        return nullcontext(self._ask)

    def _ask(self, message: tuple[list[bytes], list[str]]) -> list[dict[str, np.ndarray]]:
        if not self._one_by_one:
            return [self._model.embed(*message)]
        return [self._model.embed([photo], [product_type]) for photo, product_type in zip(*message, strict=True)]

    def embeddings(self, answer: list[dict[str, np.ndarray]]) -> np.ndarray:
        return np.concatenate([part["EMBEDDING"] for part in answer])


class Served:
    """``product_image`` over gRPC."""

    def __init__(self, channel: grpc.Channel, pid: int) -> None:
        self.pid = pid
        self._infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def message(self, asks: Sequence[Ask]) -> bytes:
        request = service_pb2.ModelInferRequest(model_name="product_image")
        columns = {
            "IMAGE": [photo for photo, _ in asks],
            "PRODUCT_TYPE": [product_type.encode() for _, product_type in asks],
        }
        for name, column in columns.items():
            request.inputs.add(name=name, datatype="BYTES", shape=[len(asks), 1])
            request.raw_input_contents.append(serialize_byte_tensor(np.array(column, object)).item())
        for name in ANSWER:
            request.outputs.add(name=name)
        return request.SerializeToString()

    def connect(self) -> AbstractContextManager[Callable[[bytes], bytes]]:
        return nullcontext(self._infer)

    def embeddings(self, answer: bytes) -> np.ndarray:
        response = service_pb2.ModelInferResponse.FromString(answer)
        i = [output.name for output in response.outputs].index("EMBEDDING")
        return np.frombuffer(response.raw_output_contents[i], np.float32).reshape(response.outputs[i].shape)


class Http(ABC):
    """One photo a request over HTTP/1.1 with a kept connection; JSON comes back."""

    def __init__(self, port: int, pid: int) -> None:
        self._port, self.pid = port, pid

    @contextmanager
    def awake(self) -> Iterator[None]:
        # LitServe's workers ask for work without a rest, which costs whoever has the turn a tenth of two cores.
        os.killpg(self.pid, signal.SIGCONT)
        yield
        os.killpg(self.pid, signal.SIGSTOP)

    @abstractmethod
    def message(self, asks: Sequence[Ask]) -> HttpMessage: ...

    @contextmanager
    def connect(self) -> Iterator[Callable[[HttpMessage], bytes]]:
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

    def embeddings(self, answer: bytes) -> np.ndarray:
        return np.array([json.loads(answer)["embedding"]], np.float32)


class FastApi(Http):
    def message(self, asks: Sequence[Ask]) -> HttpMessage:
        [(photo, product_type)] = asks
        path = "/embed?" + urlencode({"product_type": product_type})
        return path, photo, {"Content-Type": "application/octet-stream"}


class LitServe(Http):
    def message(self, asks: Sequence[Ask]) -> HttpMessage:
        [(photo, product_type)] = asks
        body = {"image": base64.b64encode(photo).decode(), "product_type": product_type}
        return "/embed", json.dumps(body).encode(), {"Content-Type": "application/json"}


@contextmanager
def running(module: str, repository: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Run a service's module in processes of its own; the port that it listens on, and its process id.

    Raises RuntimeError if it does not come up.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, "--repository", str(repository), "--port", str(port), *options]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        end = time.monotonic() + START_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{module} did not come up: {' '.join(command)} says why")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        # Its workers as well, which are in its group.
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
