"""A client's conversation with its servers, without I/O.

Every operation is a generator. It yields each step that needs I/O and receives the step's result or error, as the
auth flows of httpx do. `Client` performs the steps in a thread, `AsyncClient` in an event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from vlclip import _wire
from vlclip._connection import Endpoint, Headers, metadata, with_key
from vlclip._memory import Kind, SharedMemory
from vlclip._retry import Budget, Call, Retry, Timeout, TimeoutTypes, Tries
from vlclip._tracing import Span
from vlclip._wire import GROUND, PIPELINES, Pipeline, R, Row
from vlclip.errors import ClosedError, DeadlineError, InvalidInputError, RequestError, UnavailableError, translated
from vlclip.results import Health, Model

T = TypeVar("T")


@dataclass(frozen=True)
class Rpc:
    """Send a request; the step's result is the response."""

    method: str
    request: Any
    timeout: float
    metadata: list[tuple[str, str]] = field(default_factory=list)
    wait_for_ready: bool = False


@dataclass(frozen=True)
class Sleep:
    """Wait; the step has no result."""

    seconds: float


Steps = Generator[Rpc | Sleep, Any, T]


class Session:
    """The state of one client and the operations that both kinds of client share."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: Timeout,
        retry: Retry | None,
        headers: Headers | None,
        max_in_flight: int,
        shared_memory: Kind | None,
    ) -> None:
        if not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise InvalidInputError(f"expected 1 or more, got {max_in_flight!r}", argument="max_in_flight")
        if not (retry is None or isinstance(retry, Retry)):
            raise InvalidInputError(f"expected a vlclip.Retry or None, got {retry!r}", argument="retry")
        if shared_memory and endpoint.several:
            raise InvalidInputError("expected the address of one server, on this host", argument="shared_memory")
        if not callable(headers):
            metadata(headers)  # refuses invalid ones before the first call
        self.endpoint = endpoint
        self.timeout = timeout
        self.budget = Budget(retry)
        self.headers = with_key(headers) if shared_memory else headers
        self.max_in_flight = max_in_flight
        self.closing = threading.Event()
        self._max_batch_size: dict[str, int] = {}
        self._dim: int | None = None
        self._memory_kind = shared_memory
        self._memory = SharedMemory(shared_memory) if shared_memory else None
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        return self.closing.is_set()

    def after_fork(self) -> None:
        """Replaces, in a child process, what belongs to the parent and what its threads may have locked."""
        closed, self.closing = self.closed, threading.Event()
        if closed:
            self.closing.set()
        self.budget, self._lock = Budget(self.budget.retry), threading.Lock()
        if self._memory:
            self._memory.leave_to_parent()
            self._memory = None

    def check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"this client of {self.endpoint.label} is closed: create a new one")

    def closed_during_call(self) -> ClosedError:
        return ClosedError(f"this client of {self.endpoint.label} was closed during the call")

    def call(self, timeout: TimeoutTypes) -> Call:
        self.check_open()
        return Call(Timeout.of(timeout, self.timeout), self.budget)

    def span(self, pipeline: Pipeline[Any]) -> Span:
        return Span(pipeline.name, self.endpoint.label)

    def health(self, seconds: float) -> Steps[Health]:
        call = self._call_without_retry(seconds)
        try:
            live = yield from self._send("ServerLive", service_pb2.ServerLiveRequest(), "health", call)
            ready = yield from self._send("ServerReady", service_pb2.ServerReadyRequest(), "health", call)
            server = yield from self._send("ServerMetadata", service_pb2.ServerMetadataRequest(), "health", call)
        except (UnavailableError, DeadlineError):
            return Health(live=False, ready=False)
        return Health(live=live.live, ready=ready.ready, server=server.name, version=server.version)

    def models(self, seconds: float) -> Steps[tuple[Model, ...]]:
        call = self._call_without_retry(seconds)
        models = []
        for pipeline in PIPELINES:
            name = pipeline.name
            ready = yield from self._send("ModelReady", service_pb2.ModelReadyRequest(name=name), name, call)
            if not ready.ready:
                models.append(Model(name, ready=False))
                continue
            config = yield from self._send("ModelConfig", service_pb2.ModelConfigRequest(name=name), name, call)
            models.append(Model(name, True, *_wire.describe_models(config), _wire.max_batch_size(pipeline, config)))
        return tuple(models)

    def max_batch_size(self, pipeline: Pipeline[Any], call: Call) -> Steps[int]:
        name = pipeline.name
        if name not in self._max_batch_size:
            config = yield from self._send("ModelConfig", service_pb2.ModelConfigRequest(name=name), name, call)
            self._max_batch_size[name] = _wire.max_batch_size(pipeline, config)
        return self._max_batch_size[name]

    def embedding_dim(self, pipeline: Pipeline[Any], timeout: TimeoutTypes) -> Steps[int]:
        """D of all pipelines. Only a response tells it, so an empty item is sent if there was no response yet."""
        if self._dim is None and pipeline is not GROUND:
            call = self.call(timeout)
            yield from self.max_batch_size(pipeline, call)
            yield from self.infer(pipeline, [(b"",) * len(pipeline.inputs)], call, self.span(pipeline))
        return self._dim or 0

    def infer(self, pipeline: Pipeline[R], batch: list[Row], call: Call, span: Span) -> Steps[R]:
        """Sends a batch, with retries, and reads the response."""
        memory = self._own_memory()
        if memory and not memory.registered:
            yield from self._register(memory, call)
        request, slot = _wire.infer_request(pipeline, batch, memory)
        call.batches += 1
        response = None
        try:
            try:
                response = yield from self._send("ModelInfer", request, pipeline.name, call, span)
            except RequestError as error:
                # A server that was restarted no longer knows the region.
                if not memory or "shared memory region" not in str(error):
                    raise
                yield from self._register(memory, call)
                response = yield from self._send("ModelInfer", request, pipeline.name, call, span)
        finally:
            if memory and slot:
                memory.release(slot, answered=response is not None)
        part = _wire.with_unreadable(_wire.read_response(pipeline, len(batch), response), batch)
        if hasattr(part, "embedding"):
            self._dim = part.embedding.shape[1]
        return part

    def close(self) -> Steps[None]:
        """Releases the shared memory, if there is any."""
        self.closing.set()
        memory = self._memory
        if memory is None:
            return
        unregistered = not memory.registered
        if memory.registered and memory.idle:
            with suppress(grpc.RpcError, ClosedError):
                yield Rpc(*memory.unregistration(), timeout=1, metadata=metadata(self.headers))
                unregistered = True
        memory.close(unregistered)

    def _call_without_retry(self, seconds: float) -> Call:
        self.check_open()
        return Call(Timeout(seconds, seconds, seconds), Budget(None))

    def _own_memory(self) -> SharedMemory | None:
        """The shared memory of this process, if the client uses any. After a fork it is created here."""
        with self._lock:
            if self._memory is None and self._memory_kind:
                self._memory = SharedMemory(self._memory_kind)
            return self._memory

    def _register(self, memory: SharedMemory, call: Call) -> Steps[None]:
        memory.watch(self.endpoint, metadata(self.headers))
        try:
            yield from self._send(*memory.registration(), "shared memory", call)
        except RequestError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:  # another thread or task was faster
                raise
        memory.registered = True

    def _send(self, method: str, request: Any, what: str, call: Call, span: Span | None = None) -> Steps[Any]:
        tries = call.request()
        while True:
            self.check_open()
            tries.begin()
            if method == "ModelInfer":
                _wire.set_queue_timeout(request, tries.left)
            headers = metadata(self.headers) + (span.headers if span else [])
            try:
                with translated(what, self.endpoint.label, tries.allowed, tries.count):
                    response = yield Rpc(method, request, tries.left, headers)
            except RequestError as error:
                yield from self._prepare_retry(error, tries)
                if span:
                    span.retried(error)
            else:
                call.budget.succeeded()
                return response

    def _prepare_retry(self, error: RequestError, tries: Tries) -> Steps[None]:
        """Waits until the request can be sent again. Raises ``error`` if there is no further try."""
        if self.closed:
            raise self.closed_during_call() from error
        backoff = tries.backoff(error)
        if backoff is None:
            raise error
        yield Sleep(backoff)
        if self.closed:
            raise self.closed_during_call() from error
        seconds = tries.left_to_connect(error)
        if seconds <= 0:
            raise error
        # Without a connection gRPC fails the next try at once, so wait for a connection first.
        try:
            with translated("connection", self.endpoint.label, seconds):
                yield Rpc("ServerLive", service_pb2.ServerLiveRequest(), seconds, wait_for_ready=True)
        except DeadlineError:
            raise error from None
        except RequestError:
            pass  # there is a connection, or the next try finds the same error
