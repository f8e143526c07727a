"""The pipelines' tensors in KServe v2: how a batch becomes a request, and how a response becomes a result."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from vlclip._memory import SharedMemory, Slot
from vlclip.errors import ContractError, ItemError
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    ImageEmbeddings,
    Result,
    Status,
    TextEmbeddings,
    WholeImageEmbeddings,
)

Row = tuple[bytes, ...]
"""One item: the bytes of each input of its pipeline."""
R = TypeVar("R", bound=Result)


class Unreadable(bytes):
    """Stands for an image that could not be read. Its content is empty, so the server returns a row without it."""


MAX_REQUEST_BYTES = 64 << 20
"""The most bytes in a batch, which bounds memory. A larger item is sent alone."""


@dataclass(frozen=True)
class Pipeline(Generic[R]):
    """A pipeline of the server. Every input is BYTES [1]; the outputs are the fields of ``result``."""

    name: str
    inputs: tuple[str, ...]
    result: type[R]

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """The output tensor of each field of the result."""
        return {field.name: OUTPUTS[field.name] for field in fields(self.result)}


@dataclass(frozen=True)
class Output:
    """An output tensor: ``wire`` is the shape of one row in the contract (-1: any), ``shape`` the same in results."""

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
    "truncated": Output("TRUNCATED", "BOOL", np.bool_, (1,), ()),
    "version": Output("VERSION", "INT32", object, (4,), ()),
}
"""The tensor behind each field of a result."""


class Batches:
    """Groups rows into batches, in order, and holds only the batch that is being filled."""

    def __init__(self, max_items: int, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._rows: list[Row] = []
        self._bytes = 0

    def add(self, row: Row) -> list[Row] | None:
        """Adds a row. Returns the batch before it if ``row`` does not fit into that batch."""
        size = sum(map(len, row))
        full = len(self._rows) == self._max_items or self._bytes + size > self._max_bytes
        batch = self.rest() if self._rows and full else None
        self._rows.append(row)
        self._bytes += size
        return batch

    def rest(self) -> list[Row]:
        """The rows that no batch has yet."""
        batch, self._rows, self._bytes = self._rows, [], 0
        return batch


def infer_request(
    pipeline: Pipeline[Any], batch: Sequence[Row], memory: SharedMemory | None = None
) -> tuple[Any, Slot | None]:
    """The ModelInferRequest of a batch, and the slot of its items if they were written to shared memory."""
    request = service_pb2.ModelInferRequest(model_name=pipeline.name)
    # A BYTES tensor in KServe v2 holds each element after its length (uint32, little-endian).
    columns = [[part for x in column for part in (struct.pack("<I", len(x)), x)] for column in zip(*batch, strict=True)]
    slot = memory.put([part for column in columns for part in column]) if memory else None
    offset = slot.offset if slot else 0
    for name, column in zip(pipeline.inputs, columns, strict=True):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(batch), 1])
        if memory and slot:
            size = sum(map(len, column))
            tensor.parameters["shared_memory_region"].string_param = memory.name
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            tensor.parameters["shared_memory_offset"].int64_param = offset
            offset += size
        else:
            request.raw_input_contents.append(b"".join(column))
    for output in pipeline.outputs.values():
        request.outputs.add(name=output.name)
    return request, slot


def set_queue_timeout(request: Any, seconds: float) -> None:
    """Sets Triton's own time-out, in addition to gRPC's: a queue may drop the request when it has passed."""
    request.parameters["timeout"].int64_param = max(1, round(seconds * 1e6))


def describe_models(response: Any) -> tuple[str, str]:
    """The version that a pipeline's rows have now, and its label, from its ModelConfigResponse."""
    parameters = response.config.parameters
    return parameters["version"].string_value, parameters["label"].string_value


def max_batch_size(pipeline: Pipeline[Any], response: Any) -> int:
    """The largest batch that the server accepts, from its ModelConfigResponse."""
    size = int(response.config.max_batch_size)
    if size < 1:
        raise ContractError(
            f"{pipeline.name}: expected a pipeline with batches, but its max_batch_size is {size}. "
            "Correct the server's config.pbtxt"
        )
    return size


def read_response(pipeline: Pipeline[R], n: int, response: Any) -> R:
    """The result in the ModelInferResponse to a batch of ``n`` items. Raises ContractError."""
    received = {
        tensor.name: (tensor.datatype, tuple(tensor.shape), content)
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=False)
    }
    arrays = {}
    for field, output in pipeline.outputs.items():
        datatype, shape, content = received.get(output.name, ("nothing", (), b""))
        expected = (n, *(shape[1:2] if output.wire == (-1,) else output.wire))
        array = _array(output, content) if datatype == output.datatype and shape == expected else None
        if array is None or array.size != math.prod(shape):
            contract = [n, *("D" if d == -1 else d for d in output.wire)]
            raise ContractError(
                f"{pipeline.name}: expected {output.name} {output.datatype} {contract}, "
                f"got {datatype} {list(shape)} in {len(content)} bytes. Use a client and a server of the same version"
            )
        is_version = output.dtype is object and datatype == "INT32"
        arrays[field] = (
            _versions(array.reshape(shape)) if is_version else array.reshape(n, *shape[1:][: len(output.shape)])
        )
    return pipeline.result(**arrays)


def with_unreadable(part: R, batch: Sequence[Row]) -> R:
    """The result of a batch, with the client's own status for images that could not be read."""
    rows = [row for row, items in enumerate(batch) if isinstance(items[0], Unreadable)]
    if rows:
        status = part.status.copy()  # type: ignore[attr-defined]
        status[rows] = Status.UNREADABLE
        part = replace(part, status=status)  # type: ignore[call-arg]
    return part


def _array(output: Output, content: bytes) -> npt.NDArray[Any] | None:
    """The values in a tensor's content, or ``None`` if the content does not end with a whole value."""
    if output.datatype == "BYTES":
        texts = _texts(content)
        return None if texts is None else np.array(texts, object)
    dtype = np.dtype({"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_}[output.datatype])
    return None if len(content) % dtype.itemsize else np.frombuffer(content, dtype)


def _versions(digests: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
    """The digests of each row as text, eight hexadecimal digits for each: int32 [N, 4] → str [N]."""
    rows = list(map(tuple, digests.tolist()))
    texts = {row: "-".join(f"{digest:08x}" for digest in row) for row in set(rows)}
    return np.array([texts[row] for row in rows], object)


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
    """One result from its parts. Without parts it is empty, and its embeddings are [0, dim]."""
    arrays = {}
    for field, output in pipeline.outputs.items():
        if len(parts) == 1:
            arrays[field] = getattr(parts[0], field).copy()  # a copy is writeable, as concatenated parts are
        elif parts:
            arrays[field] = np.concatenate([getattr(part, field) for part in parts])
        else:
            arrays[field] = np.empty((0, *(dim if d == -1 else d for d in output.shape)), output.dtype)
    return pipeline.result(**arrays)


def keep_partial(pipeline: Pipeline[R], parts: Sequence[R], error: Exception) -> None:
    """Sets ``error.partial`` to the result of the items before the failure, or to ``None``."""
    received = [*parts, *filter(None, [getattr(error, "partial", None)])]
    error.partial = merged(pipeline, received) if received else None  # type: ignore[attr-defined]


def check_items(pipeline: Pipeline[R], part: R, before: int) -> None:
    """Raises ItemError for the first image that was not decoded. ``before`` items precede this batch."""
    if not hasattr(part, "status") or pipeline is ENRICHED_TEXT:
        return
    for row, status in enumerate(part.status):
        if status >= Status.NOT_AN_IMAGE:
            reason = Status(status).name.lower().replace("_", " ")
            error = ItemError(f"{pipeline.name}: image {before + row} is {reason}", before + row, Status(status))
            error.partial = part
            raise error
