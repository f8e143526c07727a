"""The synchronous client: it sends what ``_core`` prepares and waits for the answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from vlclip import _core
from vlclip._connection import TLS, Headers, endpoint
from vlclip._core import Batches, Pipeline, R, Row, Session
from vlclip._inputs import (
    Images,
    Items,
    ProductImages,
    Products,
    Texts,
    grounded_items,
    image_items,
    product_items,
    text_items,
)
from vlclip._memory import Kind
from vlclip._retry import DEFAULT_RETRY, Call, Retry, Timeout, Tries
from vlclip._tracing import Span
from vlclip.errors import (
    CancelledError,
    ClosedError,
    DeadlineError,
    RequestError,
    UnavailableError,
    translated,
)
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    Health,
    ImageEmbeddings,
    Model,
    TextEmbeddings,
    WholeImageEmbeddings,
)

Errors = Literal["status", "raise"]


class Client:
    """A connection to VL-CLIP servers, by their gRPC endpoint. Threads may share it.

    Client("localhost:8001")                   plain
    Client("dns:///vlclip.shop.svc:8001")      every address of a name, in turn (a headless service of Kubernetes)
    Client(["10.0.0.1:8001", "10.0.0.2:8001"]) every address of a list, in turn
    Client(…, timeout=5)                       a request has 5 s, its retries included; see `Timeout` for more
    Client(…, tls=True)                        encrypted; see `TLS` for authorities and certificates of your own
    Client(…, headers={"authorization": "Bearer …"})   or a function that returns them, asked before each request
    Client(…, compression=True)                gzip: for texts over slow lines; photos are compressed already
    Client(…, retry=None)                      no second try; see `Retry` for what is tried again, and how often
    Client(…, shared_memory="system")          for a server on this host: items lie in /dev/shm; or "cuda", on its GPU.
                                               `serving start` wants a key: VLCLIP_SHARED_MEMORY_KEY, the same for both
    Client(…, max_in_flight=1)                 one batch after the other; by default a call keeps 4 on their way

    images        "a.jpg"                      a path: str or Path
                  b"\\xff\\xd8…"                 an encoded file, or one that is open for reading
                  array, PIL image             pixels: uint8 [H, W, 3] or [H, W]; they travel as PNG
                  ["a.jpg", b"\\xff\\xd8…"]      or an iterable of any length, read as it is sent
    product_type  "mug"                        for every image
                  ["mug", "lamp"]              for each image its own

    Items are sent in batches as large as the server takes, and the results have their order. An image that cannot
    be decoded has a status that says why in its row; with ``errors="raise"`` it raises an ``ItemError``. A request
    that fails for good raises a ``RequestError``, and what its call still had on the way is cancelled; what had come
    before is its ``partial``. No items, no rows: [0, D], [0, 4], [0].

    ``client.stream`` has the same methods, which give the result of each batch as it comes: for more items than
    memory should hold.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "localhost:8001",
        *,
        timeout: float | Timeout | None = None,
        retry: Retry | None = DEFAULT_RETRY,
        tls: bool | TLS = False,
        headers: Headers | None = None,
        compression: bool = False,
        max_in_flight: int = 4,
        shared_memory: Kind | None = None,
    ) -> None:
        within = Timeout.of(timeout, Timeout())
        to = endpoint(address, tls, compression, within.connect)
        self._session = Session(to, within, retry, headers, max_in_flight, shared_memory)
        if to.credentials:
            self._channel = grpc.secure_channel(to.target, to.credentials, to.options, to.compression)
        else:
            self._channel = grpc.insecure_channel(to.target, to.options, to.compression)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.stream = Stream(self)

    def embed_images(
        self,
        images: Images,
        product_type: Texts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> ImageEmbeddings:
        """Find the product in each image and embed its crop; where it is not found, the whole image."""
        return self._collect(_core.PRODUCT_IMAGE, grounded_items(images, product_type), errors, timeout)

    def embed_whole_images(
        self, images: Images, *, errors: Errors = "status", timeout: float | Timeout | None = None
    ) -> WholeImageEmbeddings:
        """Embed each image as it is: plain CLIP."""
        return self._collect(_core.WHOLE_IMAGE, image_items(images), errors, timeout)

    def ground(
        self,
        images: Images,
        product_type: Texts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> Grounding:
        """Find the product in each image, without embedding it."""
        return self._collect(_core.GROUND, grounded_items(images, product_type), errors, timeout)

    def embed_texts(self, texts: Texts, *, timeout: float | Timeout | None = None) -> TextEmbeddings:
        """Embed texts in the space of the images: the product of two embeddings is their cosine."""
        return self._collect(_core.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self, products: Products, images: ProductImages | None = None, *, timeout: float | Timeout | None = None
    ) -> EnrichedTexts:
        """Make a clear text about each product, and embed it.

        products  {"product_type": "mug", "title": …, "description": …, …}, or an iterable of them
        images    one for each product, ``None`` where there is none
        """
        return self._collect(_core.ENRICHED_TEXT, product_items(products, images), "status", timeout)

    def health(self, *, timeout: float = 5.0) -> Health:
        """What the server says of itself; never waits longer than ``timeout`` seconds, and never for a server."""
        call = self._session.single_call(timeout)
        try:
            live = self._ask(self._stub.ServerLive, service_pb2.ServerLiveRequest(), "health", call)
            ready = self._ask(self._stub.ServerReady, service_pb2.ServerReadyRequest(), "health", call)
            said = self._ask(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), "health", call)
        except (UnavailableError, DeadlineError):
            return Health(live=False, ready=False)
        return _core.read_health(live, ready, said)

    def models(self, *, timeout: float = 5.0) -> tuple[Model, ...]:
        """The pipelines of the contract, and which of them this server has ready."""
        call = self._session.single_call(timeout)
        found = []
        for pipeline in _core.PIPELINES:
            request: Any = service_pb2.ModelReadyRequest(name=pipeline.name)
            if not (self._ask(self._stub.ModelReady, request, pipeline.name, call)).ready:
                found.append(Model(pipeline.name, ready=False))
                continue
            request = service_pb2.ModelMetadataRequest(name=pipeline.name)
            metadata = self._ask(self._stub.ModelMetadata, request, pipeline.name, call)
            request = service_pb2.ModelConfigRequest(name=pipeline.name)
            config = self._ask(self._stub.ModelConfig, request, pipeline.name, call)
            found.append(_core.read_model(pipeline, metadata, config))
        return tuple(found)

    def close(self) -> None:
        """Close the connection and end what is on its way; a second time does nothing."""
        session = self._session
        if session.closed:
            return
        session.closing.set()
        if session.memory:
            unregistered = not session.memory.registered
            if session.memory.registered and session.memory.idle:
                method, request = session.memory.unregister(self._stub)
                with suppress(grpc.RpcError):
                    method(request, timeout=1, metadata=session.metadata())
                    unregistered = True
            session.memory.close(unregistered)
        self._channel.close()

    def __enter__(self) -> Client:
        self._session.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vlclip.Client {self._session.label}{' (closed)' if self._session.closed else ''}>"

    def _collect(self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: float | Timeout | None) -> R:
        parts: list[R] = []
        try:
            parts.extend(self._parts(pipeline, items, errors, timeout))
        except Exception as error:
            received = [*parts, *filter(None, [getattr(error, "partial", None)])]
            error.partial = _core.merged(pipeline, received) if received else None  # type: ignore[attr-defined]
            raise
        return _core.merged(pipeline, parts, 0 if parts else self._embedding_dim(pipeline, timeout))

    def _parts(
        self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: float | Timeout | None
    ) -> Iterator[R]:
        """The result of each batch, in order."""
        call, span = self._session.call(timeout), Span(pipeline.name, self._session.label)
        received, failure = 0, None
        try:
            for part in self._answers(pipeline, items, call, span):
                if errors == "raise":
                    _core.check_items(pipeline, part, received)
                received += len(part)
                yield part
        except Exception as error:
            failure = error
            raise
        finally:
            span.end(received, failure)

    def _answers(self, pipeline: Pipeline[R], items: Items, call: Call, span: Span) -> Iterator[R]:
        rows = items.rows()
        first = next(rows, None)
        if first is None:
            return
        max_items = self._max_batch_size(pipeline, call)
        batches = _cut([first], rows, max_items)
        if items.known is not None and items.known <= max_items:
            for batch in batches:  # one, unless it is cut by bytes
                yield self._answer(pipeline, batch, call, span, None)
        else:
            yield from self._in_flight(pipeline, batches, call, span)

    def _in_flight(self, pipeline: Pipeline[R], batches: Iterator[list[Row]], call: Call, span: Span) -> Iterator[R]:
        """At most ``max_in_flight`` batches are on their way, a thread for each."""
        flight = _Flight()
        waiting: deque[Future[R]] = deque()
        with ThreadPoolExecutor(self._session.max_in_flight, "vlclip") as pool:
            try:
                for batch in batches:
                    if len(waiting) == self._session.max_in_flight:
                        yield waiting.popleft().result()
                    waiting.append(pool.submit(self._answer, pipeline, batch, call, span, flight))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                flight.cancel()

    def _answer(self, pipeline: Pipeline[R], batch: list[Row], call: Call, span: Span, flight: _Flight | None) -> R:
        """Sends a batch until there is an answer, or no reason to send it again."""
        session = self._session
        if session.memory and not session.memory.registered:
            self._share(call)
        request, slot = _core.infer_request(pipeline, batch, session.memory)
        call.batches += 1
        response = None
        try:
            try:
                response = self._send(self._stub.ModelInfer, request, pipeline.name, call, span, flight)
            except RequestError as error:
                if not session.lost_memory(error):
                    raise
                self._share(call)
                response = self._send(self._stub.ModelInfer, request, pipeline.name, call, span, flight)
        finally:
            if session.memory and slot:
                session.memory.release(slot, answered=response is not None)
        return session.read(pipeline, len(batch), response)

    def _share(self, call: Call) -> None:
        """Tells the server of the shared memory."""
        memory = self._session.memory
        assert memory
        memory.watch(self._session.endpoint, self._session.metadata())
        try:
            self._ask(*memory.register(self._stub), "shared memory", call)
        except RequestError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:  # by another thread
                raise
        memory.registered = True

    def _ask(self, method: Any, request: Any, what: str, call: Call) -> Any:
        return self._send(method, request, what, call, None, None)

    def _send(self, method: Any, request: Any, what: str, call: Call, span: Span | None, flight: _Flight | None) -> Any:
        session, tries = self._session, call.request()
        while True:
            session.check_open()
            tries.begin()
            if isinstance(request, service_pb2.ModelInferRequest):
                _core.drop_after(request, tries.left)
            headers = session.metadata() + (span.headers if span else [])
            try:
                with translated(what, session.label, tries.allowed, tries.count):
                    if flight is None:
                        response = method(request, timeout=tries.left, metadata=headers)
                    else:
                        response = flight.result(method.future(request, timeout=tries.left, metadata=headers))
            except ValueError as error:  # gRPC's, of a channel that was closed in the meantime
                session.check_open()
                raise error
            except RequestError as error:
                self._prepare_next(error, tries, flight)
                if span:
                    span.tried(error)
            else:
                call.budget.answered()
                return response

    def _prepare_next(self, error: RequestError, tries: Tries, flight: _Flight | None) -> None:
        """Waits until the request may be sent again; raises where it may not."""
        session = self._session
        if session.closed:
            raise ClosedError(f"this client of {session.label} was closed during the call") from error
        wait = tries.wait_before_next(error)
        if wait is None:
            raise error
        (flight.ended if flight else session.closing).wait(wait)
        if flight and flight.ended.is_set():
            raise CancelledError("the call ended before this request did") from error
        seconds = tries.left_to_connect(error)
        if seconds <= 0:
            raise error
        try:  # to connect: gRPC would rather fail the next try at once
            self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=seconds, wait_for_ready=True)
        except grpc.RpcError as failure:
            if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise error from None
        except ValueError:  # closed in the meantime, which the next try says
            pass

    def _max_batch_size(self, pipeline: Pipeline[Any], call: Call) -> int:
        known = self._session.max_batch_size
        if pipeline.name not in known:
            request = service_pb2.ModelConfigRequest(name=pipeline.name)
            known[pipeline.name] = _core.max_batch_size(
                pipeline, self._ask(self._stub.ModelConfig, request, pipeline.name, call)
            )
        return known[pipeline.name]

    def _embedding_dim(self, pipeline: Pipeline[Any], timeout: float | Timeout | None) -> int:
        """D, one for all pipelines. Only an answer tells it: the answer to an empty item, if there was none before."""
        session = self._session
        if session.dim is None and pipeline is not _core.GROUND:
            call = session.call(timeout)
            self._max_batch_size(pipeline, call)
            empty = (b"",) * len(pipeline.inputs)
            self._answer(pipeline, [empty], call, Span(pipeline.name, session.label), None)
        return session.dim or 0


class Stream:
    """`Client`'s methods as iterators: the result of each batch, in order, as soon as it is there.

    for part in client.stream.embed_images(paths, "mug"):
        index.add(part.embedding)

    At most ``max_in_flight`` batches are in memory. Ending the loop early cancels them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def embed_images(
        self,
        images: Images,
        product_type: Texts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> Iterator[ImageEmbeddings]:
        return self._client._parts(_core.PRODUCT_IMAGE, grounded_items(images, product_type), errors, timeout)

    def embed_whole_images(
        self, images: Images, *, errors: Errors = "status", timeout: float | Timeout | None = None
    ) -> Iterator[WholeImageEmbeddings]:
        return self._client._parts(_core.WHOLE_IMAGE, image_items(images), errors, timeout)

    def ground(
        self,
        images: Images,
        product_type: Texts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> Iterator[Grounding]:
        return self._client._parts(_core.GROUND, grounded_items(images, product_type), errors, timeout)

    def embed_texts(self, texts: Texts, *, timeout: float | Timeout | None = None) -> Iterator[TextEmbeddings]:
        return self._client._parts(_core.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self, products: Products, images: ProductImages | None = None, *, timeout: float | Timeout | None = None
    ) -> Iterator[EnrichedTexts]:
        return self._client._parts(_core.ENRICHED_TEXT, product_items(products, images), "status", timeout)


class _Flight:
    """The requests that one call has on their way, to be cancelled together."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._calls: set[Any] = set()
        self._lock = threading.Lock()

    def result(self, call: Any) -> Any:
        with self._lock:
            if self.ended.is_set():
                call.cancel()
            self._calls.add(call)
        try:
            return call.result()
        finally:
            with self._lock:
                self._calls.discard(call)

    def cancel(self) -> None:
        with self._lock:
            self.ended.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()


def _cut(first: list[Row], rows: Iterable[Row], max_items: int) -> Iterator[list[Row]]:
    batches = Batches(max_items)
    for source in (first, rows):
        for row in source:
            if batch := batches.add(row):
                yield batch
    yield batches.rest()
