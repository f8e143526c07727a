"""The client without I/O: what is sent, and what the answers mean. A shell around it only sends and waits."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from tritonclient.grpc import service_pb2

from vlclip.errors import ContractError, InvalidInputError
from vlclip.results import Grounding, ImageEmbeddings, Result, TextEmbeddings, WholeImageEmbeddings

Row = tuple[bytes, ...]
"""One item: the bytes of each input of its pipeline."""
R = TypeVar("R", bound=Result)

MAX_REQUEST_BYTES = 64 << 20
"""Batches are cut here too, so that memory stays bounded; an item that is larger travels alone."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton hangs up on a client that pings more often than every 300 s; and only with keepalive switched on
    # does the kernel give up a connection whose peer acknowledges nothing (after keepalive_timeout).
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Find a restarted server soon: gRPC's own waits grow from 1 to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class Pipeline(Generic[R]):
    """A pipeline of the server: all inputs are BYTES [1]; the outputs are the fields of ``result``."""

    name: str
    inputs: tuple[str, ...]
    result: type[R]


@dataclass(frozen=True)
class Output:
    """A tensor of an answer: ``wire`` is one row's shape in the contract (-1: any), ``shape`` the same in results."""

    name: str
    datatype: str
    dtype: type[np.generic]
    wire: tuple[int, ...]
    shape: tuple[int, ...]


PRODUCT_IMAGE = Pipeline("product_image", ("IMAGE", "PRODUCT_TYPE"), ImageEmbeddings)
WHOLE_IMAGE = Pipeline("whole_image", ("IMAGE",), WholeImageEmbeddings)
GROUND = Pipeline("ground", ("IMAGE", "PRODUCT_TYPE"), Grounding)
PRODUCT_TEXT = Pipeline("product_text", ("TEXT",), TextEmbeddings)

OUTPUTS = {
    "embedding": Output("EMBEDDING", "FP32", np.float32, (-1,), (-1,)),
    "box_xyxy": Output("BOX", "FP32", np.float32, (4,), (4,)),
    "score": Output("SCORE", "FP32", np.float32, (1,), ()),
    "status": Output("STATUS", "INT32", np.int32, (1,), ()),
}
"""The tensor behind each field of a result."""


def check_address(address: str) -> str:
    if "://" in address and address.split("://")[0] in ("http", "https", "grpc"):
        raise InvalidInputError(
            f'address: expected "host:port" of the gRPC endpoint, got "{address}". Leave out the scheme'
        )
    return address


def check_timeout(timeout: float) -> float:
    if not (0 < timeout < math.inf):
        raise InvalidInputError(f"timeout: expected seconds above 0, and not infinite, got {timeout!r}")
    return timeout


def max_batch_size(pipeline: Pipeline[Any], response: Any) -> int:
    """The largest batch that the server takes, from its ModelConfigResponse."""
    size = int(response.config.max_batch_size)
    if size < 1:
        raise ContractError(
            f"{pipeline.name}: expected a pipeline that batches, but its max_batch_size is {size}. "
            "Correct the server's config.pbtxt"
        )
    return size


def batches(rows: Iterable[Row], max_items: int, max_bytes: int = MAX_REQUEST_BYTES) -> Iterator[list[Row]]:
    """Cut rows into batches, in order; only the batch at hand is kept."""
    batch: list[Row] = []
    held = 0
    for row in rows:
        size = sum(map(len, row))
        if batch and (len(batch) == max_items or held + size > max_bytes):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += size
    if batch:
        yield batch


def infer_request(pipeline: Pipeline[Any], batch: Sequence[Row], timeout: float) -> Any:
    """The ModelInferRequest of a batch, which Triton drops from its queues after ``timeout`` seconds."""
    request = service_pb2.ModelInferRequest(model_name=pipeline.name)
    for name, column in zip(pipeline.inputs, zip(*batch, strict=True), strict=True):
        request.inputs.add(name=name, datatype="BYTES", shape=[len(batch), 1])
        # KServe v2: the elements of BYTES one after the other, each behind its length (uint32, little-endian).
        request.raw_input_contents.append(b"".join(part for x in column for part in (struct.pack("<I", len(x)), x)))
    for field in fields(pipeline.result):
        request.outputs.add(name=OUTPUTS[field.name].name)
    request.parameters["timeout"].int64_param = max(1, round(timeout * 1e6))
    return request


def read_response(pipeline: Pipeline[R], n: int, response: Any) -> R:
    """The result in the ModelInferResponse to a batch of ``n`` items."""
    came = {
        tensor.name: (tensor.datatype, tuple(tensor.shape), content)
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=False)
    }
    arrays = {}
    for field in fields(pipeline.result):
        output = OUTPUTS[field.name]
        datatype, shape, content = came.get(output.name, ("nothing", (), b""))
        expected = (n, *(shape[1:2] if output.wire == (-1,) else output.wire))
        size = math.prod(shape) * np.dtype(output.dtype).itemsize
        if datatype != output.datatype or shape != expected or len(content) != size:
            wanted = [n, *("D" if d == -1 else d for d in output.wire)]
            raise ContractError(
                f"{pipeline.name}: expected {output.name} {output.datatype} {wanted}, "
                f"got {datatype} {list(shape)} in {len(content)} bytes. Are the client and the server of one version?"
            )
        arrays[field.name] = np.frombuffer(content, output.dtype).reshape(n, *shape[1:][: len(output.shape)])
    return pipeline.result(**arrays)


def merged(pipeline: Pipeline[R], parts: Sequence[R], dim: int = 0) -> R:
    """One result of the parts; with no parts, an empty one, whose embeddings are ``dim`` wide."""
    arrays = {}
    for field in fields(pipeline.result):
        output = OUTPUTS[field.name]
        empty = np.empty((0, *(dim if d == -1 else d for d in output.shape)), output.dtype)
        arrays[field.name] = np.concatenate([getattr(part, field.name) for part in parts] or [empty])
    return pipeline.result(**arrays)
