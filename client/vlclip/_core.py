"""The client without I/O: what is sent, and what the answers mean. The two shells around it only send and wait."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from tritonclient.grpc import service_pb2

from vlclip._connection import Endpoint, Headers, metadata, with_key
from vlclip._memory import Kind, SharedMemory, Slot
from vlclip._retry import Budget, Call, Retry, Timeout
from vlclip.errors import ClosedError, ContractError, InvalidInputError, ItemError, RequestError
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    Health,
    ImageEmbeddings,
    Model,
    Result,
    Status,
    TextEmbeddings,
    WholeImageEmbeddings,
)

Row = tuple[bytes, ...]
"""One item: the bytes of each input of its pipeline."""
R = TypeVar("R", bound=Result)

MAX_REQUEST_BYTES = 64 << 20
"""Batches are cut here too, so that memory stays bounded; an item that is larger travels alone."""


@dataclass(frozen=True)
class Pipeline(Generic[R]):
    """A pipeline of the server: all inputs are BYTES [1]; the outputs are the fields of ``result``."""

    name: str
    inputs: tuple[str, ...]
    result: type[R]

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """By the field of the result that they fill."""
        return {field.name: OUTPUTS[field.name] for field in fields(self.result)}


@dataclass(frozen=True)
class Output:
    """A tensor of an answer: ``wire`` is one row's shape in the contract (-1: any), ``shape`` the same in results."""

    name: str
    datatype: str
    dtype: type[np.generic] | type[object]
    wire: tuple[int, ...]
    shape: tuple[int, ...]


PRODUCT_IMAGE = Pipeline("product_image", ("IMAGE", "PRODUCT_TYPE"), ImageEmbeddings)
WHOLE_IMAGE = Pipeline("whole_image", ("IMAGE",), WholeImageEmbeddings)
GROUND = Pipeline("ground", ("IMAGE", "PRODUCT_TYPE"), Grounding)
PRODUCT_TEXT = Pipeline("product_text", ("TEXT",), TextEmbeddings)
ENRICHED_TEXT = Pipeline("enriched_text", ("PRODUCT", "IMAGE"), EnrichedTexts)
PIPELINES: tuple[Pipeline[Any], ...] = (PRODUCT_IMAGE, WHOLE_IMAGE, GROUND, PRODUCT_TEXT, ENRICHED_TEXT)

OUTPUTS = {
    "embedding": Output("EMBEDDING", "FP32", np.float32, (-1,), (-1,)),
    "box_xyxy": Output("BOX", "FP32", np.float32, (4,), (4,)),
    "score": Output("SCORE", "FP32", np.float32, (1,), ()),
    "status": Output("STATUS", "INT32", np.int32, (1,), ()),
    "text": Output("TEXT", "BYTES", object, (1,), ()),
    "rounds": Output("ROUNDS", "INT32", np.int32, (1,), ()),
    "prompts": Output("PROMPTS", "BYTES", object, (1,), ()),
}
"""The tensor behind each field of a result."""


def max_batch_size(pipeline: Pipeline[Any], response: Any) -> int:
    """The largest batch that the server takes, from its ModelConfigResponse."""
    size = int(response.config.max_batch_size)
    if size < 1:
        raise ContractError(
            f"{pipeline.name}: expected a pipeline that batches, but its max_batch_size is {size}. "
            "Correct the server's config.pbtxt"
        )
    return size


class Batches:
    """Cuts rows into batches, in order; only the batch at hand is kept."""

    def __init__(self, max_items: int, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._rows: list[Row] = []
        self._held = 0

    def add(self, row: Row) -> list[Row] | None:
        """A batch, if it is full without ``row``."""
        size = sum(map(len, row))
        full = len(self._rows) == self._max_items or self._held + size > self._max_bytes
        batch = self.rest() if self._rows and full else None
        self._rows.append(row)
        self._held += size
        return batch

    def rest(self) -> list[Row]:
        batch, self._rows, self._held = self._rows, [], 0
        return batch


def infer_request(
    pipeline: Pipeline[Any], batch: Sequence[Row], memory: SharedMemory | None = None
) -> tuple[Any, Slot | None]:
    """The ModelInferRequest of a batch, and where its items lie if they are in shared memory."""
    request = service_pb2.ModelInferRequest(model_name=pipeline.name)
    # KServe v2: the elements of BYTES one after the other, each behind its length (uint32, little-endian).
    columns = [[part for x in column for part in (struct.pack("<I", len(x)), x)] for column in zip(*batch, strict=True)]
    slot = memory.put([part for column in columns for part in column]) if memory else None
    at = slot.offset if slot else 0
    for name, column in zip(pipeline.inputs, columns, strict=True):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(batch), 1])
        if memory and slot:
            size = sum(map(len, column))
            tensor.parameters["shared_memory_region"].string_param = memory.name
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            tensor.parameters["shared_memory_offset"].int64_param = at
            at += size
        else:
            request.raw_input_contents.append(b"".join(column))
    for output in pipeline.outputs.values():
        request.outputs.add(name=output.name)
    return request, slot


def drop_after(request: Any, seconds: float) -> None:
    """Tells a Triton whose queues heed it when nobody waits any more; gRPC's deadline says so to every server."""
    request.parameters["timeout"].int64_param = max(1, round(seconds * 1e6))


def read_response(pipeline: Pipeline[R], n: int, response: Any) -> R:
    """The result in the ModelInferResponse to a batch of ``n`` items."""
    came = {
        tensor.name: (tensor.datatype, tuple(tensor.shape), content)
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=False)
    }
    arrays = {}
    for field, output in pipeline.outputs.items():
        datatype, shape, content = came.get(output.name, ("nothing", (), b""))
        expected = (n, *(shape[1:2] if output.wire == (-1,) else output.wire))
        array = _array(output, content) if datatype == output.datatype and shape == expected else None
        if array is None or array.size != math.prod(shape):
            wanted = [n, *("D" if d == -1 else d for d in output.wire)]
            raise ContractError(
                f"{pipeline.name}: expected {output.name} {output.datatype} {wanted}, "
                f"got {datatype} {list(shape)} in {len(content)} bytes. Are the client and the server of one version?"
            )
        arrays[field] = array.reshape(n, *shape[1:][: len(output.shape)])
    return pipeline.result(**arrays)


def _array(output: Output, content: bytes) -> np.ndarray | None:
    """The values in a tensor's content; ``None`` where it holds no whole number of them."""
    if output.dtype is object:
        texts = _texts(content)
        return None if texts is None else np.array(texts, object)
    return None if len(content) % np.dtype(output.dtype).itemsize else np.frombuffer(content, output.dtype)


def _texts(content: bytes) -> list[str] | None:
    texts, at = [], 0
    while at < len(content):
        if at + 4 > len(content):
            return None
        (size,) = struct.unpack_from("<I", content, at)
        at += 4 + size
        texts.append(content[at - size : at].decode("utf-8", "replace"))
    return texts if at == len(content) else None


def merged(pipeline: Pipeline[R], parts: Sequence[R], dim: int = 0) -> R:
    """One result of the parts; with no parts, an empty one, whose embeddings are ``dim`` wide."""
    arrays = {}
    for field, output in pipeline.outputs.items():
        if len(parts) == 1:
            arrays[field] = getattr(parts[0], field).copy()  # which can be written to, as those of several parts can
        elif parts:
            arrays[field] = np.concatenate([getattr(part, field) for part in parts])
        else:
            arrays[field] = np.empty((0, *(dim if d == -1 else d for d in output.shape)), output.dtype)
    return pipeline.result(**arrays)


def check_items(pipeline: Pipeline[R], part: R, before: int) -> None:
    """Raises for the first image of a batch that could not be decoded; ``before`` items came before the batch."""
    if not hasattr(part, "status") or pipeline is ENRICHED_TEXT:
        return
    for row, status in enumerate(part.status):
        if status >= Status.NOT_AN_IMAGE:
            reason = Status(status).name.lower().replace("_", " ")
            error = ItemError(f"{pipeline.name}: image {before + row} is {reason}", before + row, Status(status))
            error.partial = part
            raise error


def read_health(live: Any, ready: Any, metadata: Any) -> Health:
    return Health(live=live.live, ready=ready.ready, server=metadata.name, version=metadata.version)


def read_model(pipeline: Pipeline[Any], metadata: Any, config: Any) -> Model:
    return Model(pipeline.name, True, tuple(metadata.versions), max_batch_size(pipeline, config))


class Session:
    """What a client knows and may do; its shell asks before everything that it sends."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: Timeout,
        retry: Retry | None,
        headers: Headers | None,
        max_in_flight: int,
        shared_memory: Kind | None,
    ) -> None:
        if max_in_flight < 1:
            raise InvalidInputError(f"max_in_flight: expected 1 or more, got {max_in_flight}")
        if shared_memory and endpoint.several:
            raise InvalidInputError("shared_memory: expected the address of one server, on this host")
        self.endpoint = endpoint
        self.timeout = timeout
        self.budget = Budget(retry)
        self.headers = with_key(headers) if shared_memory else headers
        self.max_in_flight = max_in_flight
        self.max_batch_size: dict[str, int] = {}
        self.dim: int | None = None
        self.closing = threading.Event()
        self.memory = SharedMemory(shared_memory) if shared_memory else None

    @property
    def closed(self) -> bool:
        return self.closing.is_set()

    @property
    def label(self) -> str:
        return self.endpoint.label

    def call(self, timeout: float | Timeout | None) -> Call:
        self.check_open()
        return Call(Timeout.of(timeout, self.timeout), self.budget)

    def single_call(self, seconds: float) -> Call:
        """One whose requests are not tried again."""
        self.check_open()
        return Call(Timeout(seconds, seconds, seconds), Budget(None))

    def check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"this client of {self.label} is closed: make a new one")

    def metadata(self) -> list[tuple[str, str]]:
        return metadata(self.headers)

    def lost_memory(self, error: RequestError) -> bool:
        """Whether a server refused a request because it was started again and knows nothing of the region."""
        return self.memory is not None and "shared memory region" in str(error)

    def read(self, pipeline: Pipeline[R], n: int, response: Any) -> R:
        part = read_response(pipeline, n, response)
        if hasattr(part, "embedding"):
            self.dim = part.embedding.shape[1]
        return part
