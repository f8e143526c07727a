"""The asynchronous client, for asyncio: the twin of ``client``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from vlclip import _core
from vlclip._connection import TLS, Headers, endpoint
from vlclip._core import Batches, Pipeline, R, Row, Session
from vlclip._inputs import (
    AsyncImages,
    AsyncProductImages,
    AsyncProducts,
    AsyncTexts,
    Items,
    grounded_items,
    image_items,
    product_items,
    text_items,
)
from vlclip._memory import Kind
from vlclip._retry import DEFAULT_RETRY, Call, Retry, Timeout, Tries
from vlclip._tracing import Span
from vlclip.client import Errors
from vlclip.errors import ClosedError, DeadlineError, RequestError, UnavailableError, translated
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
    """`Client` for asyncio: the same arguments, methods and errors, and iterables may be asynchronous.

    async with AsyncClient("localhost:8001") as client:
        found = await client.embed_images(["mug.jpg"], "mug")
        async for part in client.stream.embed_texts(texts):
            ...

    One client serves any number of tasks of one event loop. Cancelling a task cancels its requests on the server.
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
        self._channel: Any = None
        self._stub: Any = None
        self.stream = AsyncStream(self)

    async def embed_images(
        self,
        images: AsyncImages,
        product_type: AsyncTexts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> ImageEmbeddings:
        """Find the product in each image and embed its crop; where it is not found, the whole image."""
        return await self._collect(_core.PRODUCT_IMAGE, grounded_items(images, product_type), errors, timeout)

    async def embed_whole_images(
        self, images: AsyncImages, *, errors: Errors = "status", timeout: float | Timeout | None = None
    ) -> WholeImageEmbeddings:
        """Embed each image as it is: plain CLIP."""
        return await self._collect(_core.WHOLE_IMAGE, image_items(images), errors, timeout)

    async def ground(
        self,
        images: AsyncImages,
        product_type: AsyncTexts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> Grounding:
        """Find the product in each image, without embedding it."""
        return await self._collect(_core.GROUND, grounded_items(images, product_type), errors, timeout)

    async def embed_texts(self, texts: AsyncTexts, *, timeout: float | Timeout | None = None) -> TextEmbeddings:
        """Embed texts in the space of the images: the product of two embeddings is their cosine."""
        return await self._collect(_core.PRODUCT_TEXT, text_items(texts), "status", timeout)

    async def enrich(
        self,
        products: AsyncProducts,
        images: AsyncProductImages | None = None,
        *,
        timeout: float | Timeout | None = None,
    ) -> EnrichedTexts:
        """Make a clear text about each product, and embed it; see `Client.enrich`."""
        return await self._collect(_core.ENRICHED_TEXT, product_items(products, images), "status", timeout)

    async def health(self, *, timeout: float = 5.0) -> Health:
        """What the server says of itself; never waits longer than ``timeout`` seconds, and never for a server."""
        call = self._session.single_call(timeout)
        try:
            live = await self._send(self._connect().ServerLive, service_pb2.ServerLiveRequest(), "health", call)
            ready = await self._send(self._connect().ServerReady, service_pb2.ServerReadyRequest(), "health", call)
            said = await self._send(self._connect().ServerMetadata, service_pb2.ServerMetadataRequest(), "health", call)
        except (UnavailableError, DeadlineError):
            return Health(live=False, ready=False)
        return _core.read_health(live, ready, said)

    async def models(self, *, timeout: float = 5.0) -> tuple[Model, ...]:
        """The pipelines of the contract, and which of them this server has ready."""
        call = self._session.single_call(timeout)
        found = []
        for pipeline in _core.PIPELINES:
            request: Any = service_pb2.ModelReadyRequest(name=pipeline.name)
            if not (await self._send(self._connect().ModelReady, request, pipeline.name, call)).ready:
                found.append(Model(pipeline.name, ready=False))
                continue
            request = service_pb2.ModelMetadataRequest(name=pipeline.name)
            metadata = await self._send(self._connect().ModelMetadata, request, pipeline.name, call)
            request = service_pb2.ModelConfigRequest(name=pipeline.name)
            config = await self._send(self._connect().ModelConfig, request, pipeline.name, call)
            found.append(_core.read_model(pipeline, metadata, config))
        return tuple(found)

    async def close(self) -> None:
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
                    await method(request, timeout=1, metadata=session.metadata())
                    unregistered = True
            session.memory.close(unregistered)
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        self._session.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<vlclip.AsyncClient {self._session.label}{' (closed)' if self._session.closed else ''}>"

    def _connect(self) -> Any:
        """gRPC's channels belong to the loop in which they are made: this one's to that of the first request."""
        if self._channel is None:
            to = self._session.endpoint
            if to.credentials:
                self._channel = grpc.aio.secure_channel(to.target, to.credentials, to.options, to.compression)
            else:
                self._channel = grpc.aio.insecure_channel(to.target, to.options, to.compression)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    async def _collect(self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: float | Timeout | None) -> R:
        parts: list[R] = []
        try:
            async for part in self._parts(pipeline, items, errors, timeout):
                parts.append(part)
        except Exception as error:
            received = [*parts, *filter(None, [getattr(error, "partial", None)])]
            error.partial = _core.merged(pipeline, received) if received else None  # type: ignore[attr-defined]
            raise
        return _core.merged(pipeline, parts, 0 if parts else await self._embedding_dim(pipeline, timeout))

    async def _parts(
        self, pipeline: Pipeline[R], items: Items, errors: Errors, timeout: float | Timeout | None
    ) -> AsyncIterator[R]:
        """The result of each batch, in order; at most ``max_in_flight`` of them are on their way, a task for each."""
        call, span = self._session.call(timeout), Span(pipeline.name, self._session.label)
        waiting: deque[asyncio.Task[R]] = deque()
        received, failure = 0, None

        async def oldest() -> R:
            part = await waiting[0]
            waiting.popleft()
            if errors == "raise":
                _core.check_items(pipeline, part, received)
            return part

        try:
            async for batch in self._batches(pipeline, items, call):
                if len(waiting) == self._session.max_in_flight:
                    part = await oldest()
                    received += len(part)
                    yield part
                waiting.append(asyncio.create_task(self._answer(pipeline, batch, call, span)))
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
                batches = Batches(await self._max_batch_size(pipeline, call))
            if batch := batches.add(row):
                yield batch
        if batches is not None:
            yield batches.rest()

    async def _answer(self, pipeline: Pipeline[R], batch: list[Row], call: Call, span: Span) -> R:
        """Sends a batch until there is an answer, or no reason to send it again."""
        session = self._session
        if session.memory and not session.memory.registered:
            await self._share(call)
        request, slot = _core.infer_request(pipeline, batch, session.memory)
        call.batches += 1
        response = None
        try:
            try:
                response = await self._send(self._connect().ModelInfer, request, pipeline.name, call, span)
            except RequestError as error:
                if not session.lost_memory(error):
                    raise
                await self._share(call)
                response = await self._send(self._connect().ModelInfer, request, pipeline.name, call, span)
        finally:
            if session.memory and slot:
                session.memory.release(slot, answered=response is not None)
        return session.read(pipeline, len(batch), response)

    async def _share(self, call: Call) -> None:
        """Tells the server of the shared memory."""
        memory = self._session.memory
        assert memory
        memory.watch(self._session.endpoint, self._session.metadata())
        method, request = memory.register(self._connect())
        try:
            await self._send(method, request, "shared memory", call)
        except RequestError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:  # by another task
                raise
        memory.registered = True

    async def _send(self, method: Any, request: Any, what: str, call: Call, span: Span | None = None) -> Any:
        session, tries = self._session, call.request()
        while True:
            session.check_open()
            tries.begin()
            if isinstance(request, service_pb2.ModelInferRequest):
                _core.drop_after(request, tries.left)
            headers = session.metadata() + (span.headers if span else [])
            try:
                with translated(what, session.label, tries.allowed, tries.count):
                    response = await method(request, timeout=tries.left, metadata=headers)
            except (asyncio.CancelledError, grpc.aio.UsageError) as error:
                if session.closed:  # gRPC cancels what a closed channel has on its way
                    raise self._closed_during() from error
                raise
            except RequestError as error:
                await self._prepare_next(error, tries)
                if span:
                    span.tried(error)
            else:
                call.budget.answered()
                return response

    async def _prepare_next(self, error: RequestError, tries: Tries) -> None:
        """Waits until the request may be sent again; raises where it may not."""
        if self._session.closed:
            raise self._closed_during() from error
        wait = tries.wait_before_next(error)
        if wait is None:
            raise error
        await asyncio.sleep(wait)
        if self._session.closed:
            raise self._closed_during() from error
        seconds = tries.left_to_connect(error)
        if seconds <= 0:
            raise error
        try:  # to connect: gRPC would rather fail the next try at once
            await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=seconds, wait_for_ready=True)
        except grpc.RpcError as failure:
            if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise error from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if not self._session.closed:
                raise

    def _closed_during(self) -> ClosedError:
        return ClosedError(f"this client of {self._session.label} was closed during the call")

    async def _max_batch_size(self, pipeline: Pipeline[Any], call: Call) -> int:
        known = self._session.max_batch_size
        if pipeline.name not in known:
            request = service_pb2.ModelConfigRequest(name=pipeline.name)
            known[pipeline.name] = _core.max_batch_size(
                pipeline, await self._send(self._connect().ModelConfig, request, pipeline.name, call)
            )
        return known[pipeline.name]

    async def _embedding_dim(self, pipeline: Pipeline[Any], timeout: float | Timeout | None) -> int:
        """D, one for all pipelines. Only an answer tells it: the answer to an empty item, if there was none before."""
        session = self._session
        if session.dim is None and pipeline is not _core.GROUND:
            call = session.call(timeout)
            await self._max_batch_size(pipeline, call)
            empty = (b"",) * len(pipeline.inputs)
            await self._answer(pipeline, [empty], call, Span(pipeline.name, session.label))
        return session.dim or 0


class AsyncStream:
    """`AsyncClient`'s methods as asynchronous iterators: the result of each batch, in order, as soon as it is there.

    At most ``max_in_flight`` batches are in memory. To leave a loop early, close the iterator (``aclose()``), or
    leave it to the event loop.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def embed_images(
        self,
        images: AsyncImages,
        product_type: AsyncTexts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> AsyncIterator[ImageEmbeddings]:
        return self._client._parts(_core.PRODUCT_IMAGE, grounded_items(images, product_type), errors, timeout)

    def embed_whole_images(
        self, images: AsyncImages, *, errors: Errors = "status", timeout: float | Timeout | None = None
    ) -> AsyncIterator[WholeImageEmbeddings]:
        return self._client._parts(_core.WHOLE_IMAGE, image_items(images), errors, timeout)

    def ground(
        self,
        images: AsyncImages,
        product_type: AsyncTexts,
        *,
        errors: Errors = "status",
        timeout: float | Timeout | None = None,
    ) -> AsyncIterator[Grounding]:
        return self._client._parts(_core.GROUND, grounded_items(images, product_type), errors, timeout)

    def embed_texts(
        self, texts: AsyncTexts, *, timeout: float | Timeout | None = None
    ) -> AsyncIterator[TextEmbeddings]:
        return self._client._parts(_core.PRODUCT_TEXT, text_items(texts), "status", timeout)

    def enrich(
        self,
        products: AsyncProducts,
        images: AsyncProductImages | None = None,
        *,
        timeout: float | Timeout | None = None,
    ) -> AsyncIterator[EnrichedTexts]:
        return self._client._parts(_core.ENRICHED_TEXT, product_items(products, images), "status", timeout)
