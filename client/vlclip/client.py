"""The synchronous client: performs the steps of ``_core`` in the caller's thread, or in one thread for each batch."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain
from types import TracebackType
from typing import Any, NoReturn, cast

import grpc
from tritonclient.grpc import service_pb2_grpc

from vlclip import _fork, _wire
from vlclip._connection import TLS, Headers, endpoint
from vlclip._core import Rpc, Session, Sleep, Steps, T
from vlclip._inputs import (
    Errors,
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
from vlclip._retry import DEFAULT_RETRY, Call, Retry, Timeout, TimeoutTypes
from vlclip._tracing import Span
from vlclip._wire import Batches, Pipeline, R, Row
from vlclip.errors import ForkError
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    Health,
    ImageEmbeddings,
    Model,
    TextEmbeddings,
    WholeImageEmbeddings,
)


class Client:
    """A client of one or more VL-CLIP servers, over gRPC. Threads may share it.

    Processes may not, but a process that is forked while no request is in flight may use it: it opens its own
    connections and its own shared memory.

    Client("localhost:8001")                   one server, without TLS
    Client("dns:///vlclip.shop.svc:8001")      all addresses of a name, round robin (a headless service of Kubernetes)
    Client(["10.0.0.1:8001", "10.0.0.2:8001"]) all addresses of a list, round robin
    Client(…, timeout=5)                       5 s for each request, its retries included; see `Timeout`
    Client(…, tls=True)                        TLS; see `TLS` for your own certificate authority and certificates
    Client(…, headers={"authorization": "Bearer 123"}) or a function that returns them, called for each request
    Client(…, compression=True)                gzip, for texts over slow networks; photos are compressed already
    Client(…, retry=None)                      no retries; see `Retry` for the backoff and its limits
    Client(…, shared_memory="system")          items in /dev/shm, for a server on this host; "cuda" for its GPU memory.
                                               Set VLCLIP_SHARED_MEMORY_KEY for both if the server requires a key
    Client(…, max_in_flight=1)                 one batch at a time; the default is 4 concurrent batches for each call

    images        "a.jpg"                      a path: str or Path
                  b"\\xff\\xd8…"                 an encoded file, as bytes or as an open file
                  array, PIL image             pixels, as uint8 [H, W, 3] (RGB) or [H, W]; they are sent as PNG
                  ["a.jpg", b"\\xff\\xd8…"]      an iterable of any length; it is read while batches are sent
    product_type  "mug"                        one type for all images
                  ["mug", "lamp"]              one type for each image

    A call sends its items in batches of the server's maximum size and returns the results in the order of the items.
    The `status` of a row says why an image was not decoded, or that its file could not be read. With
    ``errors="raise"`` the call raises `ItemError` instead. A request that fails after its retries raises a
    `RequestError`: the call cancels its other requests, and ``error.partial`` has the results before the failure. The
    result of no items is empty: [0, D], [0, 4], [0].

    ``client.stream`` has the same methods as iterators over batches, for more items than fit into memory.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "localhost:8001",
        *,
        timeout: TimeoutTypes = None,
        retry: Retry | None = DEFAULT_RETRY,
        tls: bool | TLS = False,
        headers: Headers | None = None,
        compression: bool = False,
        max_in_flight: int = 4,
        shared_memory: Kind | None = None,
    ) -> None:
        timeouts = Timeout.of(timeout, Timeout())
        to = endpoint(address, tls, compression, timeouts.connect)
        self._session = Session(to, timeouts, retry, headers, max_in_flight, shared_memory)
        self._channel: Any = None
        self._stub: Any = None
        self._connecting = threading.Lock()
        self.stream = Stream(self)
        _fork.register(self)

    def embed_images(
        self, images: Images, product_type: Texts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> ImageEmbeddings:
        """Find the product in each image and embed its crop, or the whole image if the product is not found."""
        return self._collect(_wire.PRODUCT_IMAGE, grounded_items(images, product_type, errors), errors, timeout)

    def embed_whole_images(
        self, images: Images, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> WholeImageEmbeddings:
        """Embed each image as a whole, without detection of the product."""
        return self._collect(_wire.WHOLE_IMAGE, image_items(images, errors), errors, timeout)

    def ground(
        self, images: Images, product_type: Texts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> Grounding:
        """Find the product in each image, without embedding it."""
        return self._collect(_wire.GROUND, grounded_items(images, product_type, errors), errors, timeout)

    def embed_texts(self, texts: Texts, *, timeout: TimeoutTypes = None) -> TextEmbeddings:
        """Embed texts in the space of the images: the dot product of two embeddings is their cosine similarity."""
        return self._collect(_wire.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self, products: Products, images: ProductImages | None = None, *, timeout: TimeoutTypes = None
    ) -> EnrichedTexts:
        """Write a text about each product from its metadata, and embed it.

        products  {"product_type": "mug", "title": …, "description": …, …}, or an iterable of them
        images    one for each product, or ``None`` for a product without an image
        """
        return self._collect(_wire.ENRICHED_TEXT, product_items(products, images), "status", timeout)

    def health(self, *, timeout: float = 5.0) -> Health:
        """Whether the server is live and ready, within ``timeout`` seconds and without retries."""
        return self._run(self._session.health(timeout))

    def models(self, *, timeout: float = 5.0) -> tuple[Model, ...]:
        """The pipelines of the contract, and whether the server has them ready."""
        return self._run(self._session.models(timeout))

    def close(self) -> None:
        """Close the connections and cancel all requests. A second call does nothing."""
        if not self._session.closed:
            self._run(self._session.close())
            with self._connecting:
                if self._channel is not None:
                    self._channel.close()

    def __enter__(self) -> Client:
        self._session.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vlclip.Client {self._session.endpoint.label}{' (closed)' if self._session.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Client cannot be pickled: its connections belong to this process. Create one in each process"
        )

    def _after_fork(self) -> None:
        _fork.inherited(self._channel)
        self._channel = self._stub = None
        self._connecting = threading.Lock()
        self._session.after_fork()

    def _collect(self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: TimeoutTypes) -> R:
        parts: list[R] = []
        try:
            parts.extend(self._parts(pipeline, items, errors, timeout))
        except Exception as error:
            _wire.keep_partial(pipeline, parts, error)
            raise
        return _wire.merged(pipeline, parts, 0 if parts else self._run(self._session.embedding_dim(pipeline, timeout)))

    def _parts(
        self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: TimeoutTypes
    ) -> Generator[R, None, None]:
        """The result of each batch, in order."""
        call, span = self._session.call(timeout), self._session.span(pipeline)
        received, failure = 0, None
        try:
            for part in self._answers(pipeline, items, call, span):
                if errors == "raise":
                    _wire.check_items(pipeline, part, received)
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
        max_items = self._run(self._session.max_batch_size(pipeline, call))
        batches = _batches(chain([first], rows), max_items)
        if items.count is not None and items.count <= max_items:
            for batch in batches:  # one batch, or more if its bytes exceed the limit
                yield self._run(self._session.infer(pipeline, batch, call, span))
        else:
            yield from self._concurrent_answers(pipeline, batches, call, span)

    def _concurrent_answers(
        self, pipeline: Pipeline[R], batches: Iterator[list[Row]], call: Call, span: Span
    ) -> Iterator[R]:
        """Sends at most ``max_in_flight`` batches at a time, in a thread each."""
        session, in_flight = self._session, _InFlight()
        waiting: deque[Future[R]] = deque()

        def oldest() -> R:
            if in_flight.in_parent:
                raise ForkError("this call belongs to the parent of this process", advice="Start it again in this one")
            # Python handles a Ctrl-C that arrives just before it waits for a lock only when the wait ends.
            while not wait([waiting[0]], timeout=1.0).done:
                pass
            return waiting.popleft().result()

        with ThreadPoolExecutor(session.max_in_flight, "vlclip") as pool:
            try:
                for batch in batches:
                    if len(waiting) == session.max_in_flight:
                        yield oldest()
                    waiting.append(pool.submit(self._run, session.infer(pipeline, batch, call, span), in_flight))
                while waiting:
                    yield oldest()
            finally:
                in_flight.cancel()

    def _run(self, steps: Steps[T], in_flight: _InFlight | None = None) -> T:
        """Performs the steps of an operation and returns its result."""
        try:
            step = next(steps)
            while True:
                try:
                    result = self._perform(step, in_flight)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)

    def _perform(self, step: Rpc | Sleep, in_flight: _InFlight | None) -> Any:
        if isinstance(step, Sleep):
            (in_flight.cancelled if in_flight else self._session.closing).wait(step.seconds)
            return None
        method = getattr(self._connect(), step.method)
        options = {"timeout": step.timeout, "metadata": step.metadata, "wait_for_ready": step.wait_for_ready}
        try:
            with _fork.in_grpc():
                if in_flight is None:
                    return method(step.request, **options)
                return in_flight.result(method.future(step.request, **options))
        except ValueError as error:  # gRPC's error for a channel that was closed
            if self._session.closed:
                raise self._session.closed_during_call() from error
            raise

    def _connect(self) -> Any:
        """The stub. Its channel is opened at the first request, since gRPC may not be in use before a fork."""
        _fork.check()
        with self._connecting:
            if self._stub is None:
                if self._session.closed:
                    raise self._session.closed_during_call()
                to = self._session.endpoint
                if to.credentials:
                    self._channel = grpc.secure_channel(to.target, to.credentials, to.options, to.compression)
                else:
                    self._channel = grpc.insecure_channel(to.target, to.options, to.compression)
                self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
            return self._stub


class Stream:
    """The methods of `Client` as iterators: they yield the result of each batch, in order, as soon as it arrives.

    for part in client.stream.embed_images(paths, "mug"):
        index.add(part.embedding)

    At most ``max_in_flight`` batches are in memory. Leaving the loop early cancels their requests.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def embed_images(
        self, images: Images, product_type: Texts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> Generator[ImageEmbeddings, None, None]:
        return self._client._parts(_wire.PRODUCT_IMAGE, grounded_items(images, product_type, errors), errors, timeout)

    def embed_whole_images(
        self, images: Images, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> Generator[WholeImageEmbeddings, None, None]:
        return self._client._parts(_wire.WHOLE_IMAGE, image_items(images, errors), errors, timeout)

    def ground(
        self, images: Images, product_type: Texts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> Generator[Grounding, None, None]:
        return self._client._parts(_wire.GROUND, grounded_items(images, product_type, errors), errors, timeout)

    def embed_texts(self, texts: Texts, *, timeout: TimeoutTypes = None) -> Generator[TextEmbeddings, None, None]:
        return self._client._parts(_wire.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self, products: Products, images: ProductImages | None = None, *, timeout: TimeoutTypes = None
    ) -> Generator[EnrichedTexts, None, None]:
        return self._client._parts(_wire.ENRICHED_TEXT, product_items(products, images), "status", timeout)


class _InFlight:
    """The requests that one call has in flight, so that they can be cancelled together."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._process = os.getpid()
        self._rpcs: set[Any] = set()
        self._lock = threading.Lock()

    def result(self, rpc: Any) -> Any:
        """Waits for the response."""
        with self._lock:
            if self.cancelled.is_set():
                rpc.cancel()
            self._rpcs.add(rpc)
        try:
            return rpc.result()
        finally:
            with self._lock:
                self._rpcs.discard(rpc)

    @property
    def in_parent(self) -> bool:
        """Whether this process is a fork of the one that sends the requests."""
        return os.getpid() != self._process

    def cancel(self) -> None:
        if self.in_parent:
            return
        with self._lock:
            self.cancelled.set()
            rpcs = list(self._rpcs)
        for rpc in rpcs:
            rpc.cancel()


def _batches(rows: Iterator[Row], max_items: int) -> Iterator[list[Row]]:
    batches = Batches(max_items)
    for row in rows:
        if batch := batches.add(row):
            yield batch
    yield batches.rest()
