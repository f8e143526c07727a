"""The synchronous client: it sends what ``_core`` prepares and waits for the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from vlclip import _core
from vlclip._core import Pipeline, R, Row
from vlclip._inputs import Images, Texts, grounded_rows, image_rows, text_rows
from vlclip.errors import ClosedError, DeadlineError, InvalidInputError, UnavailableError, translated
from vlclip.results import Grounding, ImageEmbeddings, TextEmbeddings, WholeImageEmbeddings


class Client:
    """A connection to a VL-CLIP server, by its gRPC endpoint. Threads may share it.

    Client("localhost:8001")                   plain
    Client("localhost:8001", timeout=5)        no request waits longer than 5 s, unless its call says otherwise
    Client("localhost:8001", max_in_flight=1)  one batch after the other; by default a call keeps 4 on their way

    images        "a.jpg"                      a path: str or Path
                  b"\\xff\\xd8…"                 an encoded file
                  ["a.jpg", b"\\xff\\xd8…"]      or an iterable of any length, read as it is sent
    product_type  "mug"                        for every image
                  ["mug", "lamp"]              for each image its own

    Items are sent in batches as large as the server takes, and the results have their order. An image that cannot
    be decoded raises nothing: its row has the status that says why. A request that fails raises a ``RequestError``,
    and what its call still had on the way is cancelled. No items, no rows: [0, D], [0, 4], [0].
    """

    def __init__(self, address: str = "localhost:8001", *, timeout: float = 30.0, max_in_flight: int = 4) -> None:
        if max_in_flight < 1:
            raise InvalidInputError(f"max_in_flight: expected 1 or more, got {max_in_flight}")
        self._address = _core.check_address(address)
        self._timeout = _core.check_timeout(timeout)
        self._max_in_flight = max_in_flight
        self._channel = grpc.insecure_channel(address, options=_core.CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._max_batch_size: dict[str, int] = {}
        self._dim: int | None = None
        self._closed = False

    def embed_images(self, images: Images, product_type: Texts, *, timeout: float | None = None) -> ImageEmbeddings:
        """Find the product in each image and embed its crop; where it is not found, the whole image."""
        return self._run(_core.PRODUCT_IMAGE, grounded_rows(images, product_type), timeout)

    def embed_whole_images(self, images: Images, *, timeout: float | None = None) -> WholeImageEmbeddings:
        """Embed each image as it is: plain CLIP."""
        return self._run(_core.WHOLE_IMAGE, image_rows(images), timeout)

    def embed_texts(self, texts: Texts, *, timeout: float | None = None) -> TextEmbeddings:
        """Embed texts in the space of the images: the product of two embeddings is their cosine."""
        return self._run(_core.PRODUCT_TEXT, text_rows(texts), timeout)

    def ground(self, images: Images, product_type: Texts, *, timeout: float | None = None) -> Grounding:
        """Find the product in each image, without embedding it."""
        return self._run(_core.GROUND, grounded_rows(images, product_type), timeout)

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether a server is there and says that it is ready; never waits longer than ``timeout`` seconds."""
        request = service_pb2.ServerReadyRequest()
        try:
            return bool(self._call(self._stub.ServerReady, request, "ready", timeout).ready)
        except (UnavailableError, DeadlineError):
            return False

    def close(self) -> None:
        """Close the connection and cancel what is on its way; a second time does nothing."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vlclip.Client {self._address}{' (closed)' if self._closed else ''}>"

    def _run(self, pipeline: Pipeline[R], rows: Iterator[Row], timeout: float | None) -> R:
        self._check_open()
        timeout = self._timeout if timeout is None else _core.check_timeout(timeout)
        first = next(rows, None)
        if first is None:
            return _core.merged(pipeline, [], self._embedding_dim(pipeline, timeout))
        return _core.merged(pipeline, list(self._parts(pipeline, chain([first], rows), timeout)))

    def _parts(self, pipeline: Pipeline[R], rows: Iterable[Row], timeout: float) -> Iterator[R]:
        """The result of each batch, in order; at most ``max_in_flight`` batches are on their way."""
        calls: deque[tuple[int, Any]] = deque()
        try:
            for batch in _core.batches(rows, self._server_max_batch_size(pipeline, timeout)):
                if len(calls) == self._max_in_flight:
                    yield self._wait(pipeline, *calls[0], timeout)
                    calls.popleft()
                request = _core.infer_request(pipeline, batch, timeout)
                calls.append((len(batch), self._call(self._stub.ModelInfer.future, request, pipeline.name, timeout)))
            while calls:
                yield self._wait(pipeline, *calls[0], timeout)
                calls.popleft()
        finally:
            for _, call in calls:
                call.cancel()

    def _wait(self, pipeline: Pipeline[R], n: int, call: Any, timeout: float) -> R:
        with translated(pipeline.name, self._address, timeout):
            response = call.result()
        part = _core.read_response(pipeline, n, response)
        if isinstance(part, ImageEmbeddings | WholeImageEmbeddings | TextEmbeddings):
            self._dim = part.embedding.shape[1]
        return part

    def _server_max_batch_size(self, pipeline: Pipeline[Any], timeout: float) -> int:
        if pipeline.name not in self._max_batch_size:
            request = service_pb2.ModelConfigRequest(name=pipeline.name)
            response = self._call(self._stub.ModelConfig, request, pipeline.name, timeout)
            self._max_batch_size[pipeline.name] = _core.max_batch_size(pipeline, response)
        return self._max_batch_size[pipeline.name]

    def _embedding_dim(self, pipeline: Pipeline[Any], timeout: float) -> int:
        """D, one for all pipelines. Only an answer tells it: the answer to an empty item, if there was none before."""
        if self._dim is None and pipeline is not _core.GROUND:
            list(self._parts(pipeline, [(b"",) * len(pipeline.inputs)], timeout))
        return self._dim or 0

    def _call(self, method: Any, request: Any, what: str, timeout: float) -> Any:
        self._check_open()
        with translated(what, self._address, timeout):
            return method(request, timeout=timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this client of {self._address} is closed: make a new vlclip.Client")
