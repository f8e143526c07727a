"""The asynchronous client: performs the steps of ``_core`` in an event loop of asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Any, NoReturn, cast

import grpc
from tritonclient.grpc import service_pb2_grpc

from vlclip import _fork, _wire
from vlclip._connection import TLS, Headers, endpoint
from vlclip._core import Rpc, Session, Sleep, Steps, T
from vlclip._inputs import (
    AsyncImages,
    AsyncProductImages,
    AsyncProducts,
    AsyncTexts,
    Errors,
    Items,
    grounded_items,
    image_items,
    product_items,
    text_items,
)
from vlclip._memory import Kind
from vlclip._retry import DEFAULT_RETRY, Call, Retry, Timeout, TimeoutTypes
from vlclip._wire import Batches, Pipeline, R, Row
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    Health,
    ImageEmbeddings,
    Model,
    TextEmbeddings,
    WholeImageEmbeddings,
)


class AsyncClient:
    """`Client` for asyncio, with the same arguments, methods and errors. Iterables may be asynchronous.

    async with AsyncClient("localhost:8001") as client:
        found = await client.embed_images(["mug.jpg"], "mug")
        async for part in client.stream.embed_texts(texts):
            ...

    Tasks may share a client, also those of several event loops. Cancelling a task cancels its requests on the server.
    A process cannot use gRPC if it is forked after an AsyncClient was used: see `ForkError`.
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
        self._channels: dict[asyncio.AbstractEventLoop, tuple[Any, Any]] = {}
        self.stream = AsyncStream(self)
        _fork.register(self)

    async def embed_images(
        self, images: AsyncImages, product_type: AsyncTexts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> ImageEmbeddings:
        """Find the product in each image and embed its crop, or the whole image if the product is not found."""
        return await self._collect(_wire.PRODUCT_IMAGE, grounded_items(images, product_type, errors), errors, timeout)

    async def embed_whole_images(
        self, images: AsyncImages, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> WholeImageEmbeddings:
        """Embed each image as a whole, without detection of the product."""
        return await self._collect(_wire.WHOLE_IMAGE, image_items(images, errors), errors, timeout)

    async def ground(
        self, images: AsyncImages, product_type: AsyncTexts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> Grounding:
        """Find the product in each image, without embedding it."""
        return await self._collect(_wire.GROUND, grounded_items(images, product_type, errors), errors, timeout)

    async def embed_texts(self, texts: AsyncTexts, *, timeout: TimeoutTypes = None) -> TextEmbeddings:
        """Embed texts in the space of the images: the dot product of two embeddings is their cosine similarity."""
        return await self._collect(_wire.PRODUCT_TEXT, text_items(texts), "status", timeout)

    async def enrich(
        self, products: AsyncProducts, images: AsyncProductImages | None = None, *, timeout: TimeoutTypes = None
    ) -> EnrichedTexts:
        """Write a text about each product from its metadata, and embed it; see `Client.enrich`."""
        return await self._collect(_wire.ENRICHED_TEXT, product_items(products, images), "status", timeout)

    async def health(self, *, timeout: float = 5.0) -> Health:
        """Whether the server is live and ready, within ``timeout`` seconds and without retries."""
        return await self._run(self._session.health(timeout))

    async def models(self, *, timeout: float = 5.0) -> tuple[Model, ...]:
        """The pipelines of the contract, and whether the server has them ready."""
        return await self._run(self._session.models(timeout))

    async def close(self) -> None:
        """Close the connections and cancel all requests. A second call does nothing."""
        if not self._session.closed:
            await self._run(self._session.close())
            channel, _ = self._channels.get(asyncio.get_running_loop(), (None, None))
            self._channels.clear()  # ends the connections of other event loops
            if channel is not None:
                await channel.close()

    async def __aenter__(self) -> AsyncClient:
        self._session.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<vlclip.AsyncClient {self._session.endpoint.label}{' (closed)' if self._session.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an AsyncClient cannot be pickled: its connections belong to this process. Create one in each process"
        )

    def _after_fork(self) -> None:
        _fork.inherited(self._channels)
        self._channels = {}
        self._session.after_fork()

    async def _collect(self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: TimeoutTypes) -> R:
        parts: list[R] = []
        try:
            async for part in self._parts(pipeline, items, errors, timeout):
                parts.append(part)
        except Exception as error:
            _wire.keep_partial(pipeline, parts, error)
            raise
        dim = 0 if parts else await self._run(self._session.embedding_dim(pipeline, timeout))
        return _wire.merged(pipeline, parts, dim)

    async def _parts(
        self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: TimeoutTypes
    ) -> AsyncGenerator[R, None]:
        """The result of each batch, in order. Sends at most ``max_in_flight`` batches at a time, in a task each."""
        session = self._session
        call, span = session.call(timeout), session.span(pipeline)
        waiting: deque[asyncio.Task[R]] = deque()
        received, failure = 0, None

        async def oldest() -> R:
            part = await waiting[0]
            waiting.popleft()
            if errors == "raise":
                _wire.check_items(pipeline, part, received)
            return part

        try:
            async for batch in self._batches(pipeline, items, call):
                if len(waiting) == session.max_in_flight:
                    part = await oldest()
                    received += len(part)
                    yield part
                waiting.append(asyncio.create_task(self._run(session.infer(pipeline, batch, call, span))))
            while waiting:
                part = await oldest()
                received += len(part)
                yield part
        except BaseException as error:
            failure = error if isinstance(error, Exception) else None
            raise
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            span.end(received, failure)

    async def _batches(self, pipeline: Pipeline[Any], items: Items, call: Call) -> AsyncIterator[list[Row]]:
        batches: Batches | None = None
        async for values in items.values():
            row = await asyncio.to_thread(items.row, *values) if items.blocks(values) else items.row(*values)
            if batches is None:
                batches = Batches(await self._run(self._session.max_batch_size(pipeline, call)))
            if batch := batches.add(row):
                yield batch
        if batches is not None:
            yield batches.rest()

    async def _run(self, steps: Steps[T]) -> T:
        """Performs the steps of an operation and returns its result."""
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._perform(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)

    async def _perform(self, step: Rpc | Sleep) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        method = getattr(self._connect(), step.method)
        options = {"timeout": step.timeout, "metadata": step.metadata, "wait_for_ready": step.wait_for_ready}
        try:
            return await method(step.request, **options)
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:  # gRPC's errors for a channel that was closed
            if self._session.closed:
                raise self._session.closed_during_call() from error
            raise

    def _connect(self) -> Any:
        """The stub for the running event loop, to which its channel belongs."""
        loop = asyncio.get_running_loop()
        if loop not in self._channels:
            _fork.check()
            _fork.always_in_grpc()
            for other in list(self._channels):
                if other.is_closed():
                    self._channels.pop(other, None)
            to = self._session.endpoint
            if to.credentials:
                channel = grpc.aio.secure_channel(to.target, to.credentials, to.options, to.compression)
            else:
                channel = grpc.aio.insecure_channel(to.target, to.options, to.compression)
            self._channels[loop] = channel, service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return self._channels[loop][1]


class AsyncStream:
    """The methods of `AsyncClient` as asynchronous iterators over the results of batches, in order.

    At most ``max_in_flight`` batches are in memory. After leaving a loop early, call the iterator's ``aclose()`` to
    cancel its requests at once.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def embed_images(
        self, images: AsyncImages, product_type: AsyncTexts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> AsyncGenerator[ImageEmbeddings, None]:
        return self._client._parts(_wire.PRODUCT_IMAGE, grounded_items(images, product_type, errors), errors, timeout)

    def embed_whole_images(
        self, images: AsyncImages, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> AsyncGenerator[WholeImageEmbeddings, None]:
        return self._client._parts(_wire.WHOLE_IMAGE, image_items(images, errors), errors, timeout)

    def ground(
        self, images: AsyncImages, product_type: AsyncTexts, *, errors: Errors = "status", timeout: TimeoutTypes = None
    ) -> AsyncGenerator[Grounding, None]:
        return self._client._parts(_wire.GROUND, grounded_items(images, product_type, errors), errors, timeout)

    def embed_texts(self, texts: AsyncTexts, *, timeout: TimeoutTypes = None) -> AsyncGenerator[TextEmbeddings, None]:
        return self._client._parts(_wire.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self, products: AsyncProducts, images: AsyncProductImages | None = None, *, timeout: TimeoutTypes = None
    ) -> AsyncGenerator[EnrichedTexts, None]:
        return self._client._parts(_wire.ENRICHED_TEXT, product_items(products, images), "status", timeout)
