"""The client against a KServe v2 server over real gRPC: its requests, its results and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vlclip
from serving.repository import specs
from tests.client.conftest import FakeTriton, never
from tests.client.twins import first_column, numbers
from vlclip import Status
from vlclip._wire import Batches


def images(n: int) -> list[bytes]:
    return [number.encode() for number in numbers(n)]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        pytest.param(1, [1], id="one"),
        pytest.param(3, [3], id="less than a batch"),
        pytest.param(4, [4], id="exactly a batch"),
        pytest.param(5, [4, 1], id="a batch and one"),
        pytest.param(11, [4, 4, 3], id="several batches"),
    ],
)
def test_items_are_split_by_the_servers_batch_size_and_keep_their_order(
    triton: FakeTriton, client: vlclip.Client, n: int, sizes: list[int]
) -> None:
    result = client.embed_images(images(n), "mug")

    assert sorted(map(len, triton.batches), reverse=True) == sizes
    np.testing.assert_array_equal(result.embedding, [[i, len("mug"), 0] for i in range(n)])
    np.testing.assert_array_equal(result.box_xyxy, [[i, i + 1, i + 2, i + 3] for i in range(n)])
    np.testing.assert_array_equal(result.score, [0.5] * n)
    np.testing.assert_array_equal(result.status, [Status.GROUNDED] * n)
    assert len(result) == n
    assert [array.dtype.name for array in (result.embedding, result.status)] == ["float32", "int32"]
    assert result.embedding.flags.writeable


TEXT_SHAPES = {"embedding": (0, 3), "truncated": (0,), "version": (0,)}
BOX_SHAPES = {"box_xyxy": (0, 4), "score": (0,), "status": (0,), "truncated": (0,), "version": (0,)}
IMAGE_SHAPES = TEXT_SHAPES | BOX_SHAPES


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(lambda c, none: c.embed_images(none, "mug"), IMAGE_SHAPES, id="embed_images, one product type"),
        pytest.param(lambda c, none: c.embed_images(none, []), IMAGE_SHAPES, id="embed_images, no product types"),
        pytest.param(
            lambda c, none: c.embed_whole_images(none),
            {"embedding": (0, 3), "status": (0,), "version": (0,)},
            id="embed_whole_images",
        ),
        pytest.param(lambda c, none: c.embed_texts(none), TEXT_SHAPES, id="embed_texts"),
        pytest.param(lambda c, none: c.ground(none, "mug"), BOX_SHAPES, id="ground"),
    ],
)
@pytest.mark.parametrize("none", [pytest.param(list, id="list"), pytest.param(lambda: iter(()), id="iterator")])
def test_no_items_give_an_empty_result_of_the_right_shape(
    triton: FakeTriton,
    client: vlclip.Client,
    call: Callable[[vlclip.Client, Any], Any],
    expected: dict[str, tuple[int, ...]],
    none: Callable[[], Any],
) -> None:
    for _ in range(2):
        assert {name: array.shape for name, array in vars(call(client, none())).items()} == expected
        assert len(triton.infer_requests) == ("embedding" in expected)  # one request in all, to learn D


def test_each_row_has_the_version_of_the_models_that_made_it(triton: FakeTriton, client: vlclip.Client) -> None:
    """Also if they change between the batches of a call. Only the encoder decides what can be compared."""
    first = client.embed_texts(["1"])
    triton.tamper = lambda response: setattr(triton, "version", [0xE2, *triton.version[1:]])
    both = client.stream.embed_images((image for image in images(8)), "mug")
    versions = [text for part in both for text in part.version]
    assert first.version.tolist() == ["000000e1-000001e1-000002e1-7fffffff"]
    assert sorted(set(versions)) == ["000000e1-000001e1-000002e1-7fffffff", "000000e2-000001e1-000002e1-7fffffff"]
    assert vlclip.comparable(first.version, versions[0])
    assert not vlclip.comparable(first.version, versions)
    assert vlclip.comparable("000000e1-ffffffff-00000000-00000000", first.version, [])
    assert not vlclip.comparable("000000e2-000001e1-000002e1-7fffffff", first.version)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda path: b"7", id="bytes"),
        pytest.param(lambda path: bytearray(b"7"), id="bytearray"),
        pytest.param(lambda path: memoryview(b"7"), id="memoryview"),
        pytest.param(lambda path: path, id="Path"),
        pytest.param(lambda path: str(path), id="path as str"),
        pytest.param(lambda path: [path], id="list"),
        pytest.param(lambda path: (image for image in [b"7"]), id="generator"),
    ],
)
def test_forms_of_images(tmp_path: Path, client: vlclip.Client, given: Callable[[Path], Any]) -> None:
    path = tmp_path / "7.jpg"
    path.write_bytes(b"7")
    assert first_column(client.embed_whole_images(given(path))) == [7]
    assert first_column(client.embed_images(given(path), "mug")) == [7]
    assert client.ground(given(path), ["mug"]).box_xyxy[:, 0].tolist() == [7]


def test_bytes_are_sent_unchanged(triton: FakeTriton, client: vlclip.Client) -> None:
    files = [b"", b"\x00\xff\x00", b"12", bytes(range(256)) + b"\x00"]
    result = client.embed_whole_images(files)
    assert triton.batches == [files]
    assert [Status(s) for s in result.status] == [2, 2, 0, 2]


@pytest.mark.parametrize(
    ("texts", "sent"),
    [
        pytest.param("red mug", [b"red mug"], id="one text is not its letters"),
        pytest.param(["", "tasse à café", "马克杯"], [b"", "tasse à café".encode(), "马克杯".encode()], id="UTF-8"),
    ],
)
def test_texts(triton: FakeTriton, client: vlclip.Client, texts: Any, sent: list[bytes]) -> None:
    assert len(client.embed_texts(texts)) == len(sent)
    assert triton.batches == [sent]


def test_each_product_type_stays_with_its_image_across_batches(client: vlclip.Client) -> None:
    types = ["x" * (i % 7) for i in range(10)]
    for given in (types, iter(types), tuple(types)):
        result = client.embed_images(iter(images(10)), given)
        assert result.embedding[:, :2].tolist() == [[i, i % 7] for i in range(10)]


def test_results_are_in_order_if_later_batches_are_answered_first(triton: FakeTriton, client: vlclip.Client) -> None:
    triton.hold = {b"0": lambda: triton.answered == 2, b"4": lambda: triton.answered == 1}
    assert first_column(client.embed_texts(numbers(12))) == list(range(12))


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_batches_in_flight_are_limited(triton: FakeTriton, max_in_flight: int) -> None:
    def held_until(received: int) -> Callable[[], bool]:
        return lambda: triton.received >= received

    triton.max_batch_size = 1
    # No batch is answered before the client has sent as many as it may.
    triton.hold = {str(i).encode(): held_until(min(i + max_in_flight, 12)) for i in range(12)}
    with vlclip.Client(triton.address, max_in_flight=max_in_flight) as client:
        client.embed_texts(numbers(12))
    assert triton.most_in_flight == max_in_flight


def test_a_generator_is_read_while_batches_are_sent(triton: FakeTriton, client: vlclip.Client) -> None:
    sent_when_read = []

    def generator() -> Iterator[bytes]:
        for item in images(60):
            sent_when_read.append(triton.received)
            yield item

    assert len(client.embed_whole_images(generator())) == 60
    # Before item i is read, all batches before it were sent, except the 4 in flight and the one that is filled.
    assert all(sent >= i // 4 - 5 for i, sent in enumerate(sent_when_read))


def test_the_batch_size_is_asked_once_for_each_pipeline(triton: FakeTriton, client: vlclip.Client) -> None:
    for _ in range(3):
        client.embed_texts(["1"])
        client.embed_whole_images([b"1"])
    assert triton.config_requests == 2


def test_the_items_and_the_bytes_of_a_batch_are_limited() -> None:
    batches = Batches(max_items=3, max_bytes=10)
    full = [batches.add((bytes(size),)) for size in (6, 6, 3, 11, 1, 2, 3, 4)]
    assert [[len(row[0]) for row in batch] for batch in full if batch] == [[6], [6, 3], [11], [1, 2, 3]]
    assert batches.rest() == [(bytes(4),)]


def test_responses_may_exceed_grpcs_default_of_4_mib(triton: FakeTriton, client: vlclip.Client) -> None:
    triton.max_batch_size, triton.dim = 1024, 4096
    assert client.embed_texts(numbers(600)).embedding.shape == (600, 4096)


def test_the_deadline_is_sent_to_grpc_and_to_triton(triton: FakeTriton, client: vlclip.Client) -> None:
    for seconds in (1000, 500):
        client.embed_texts("1", timeout=seconds)
        triton_seconds = triton.infer_requests[-1].parameters["timeout"].int64_param / 1e6
        assert (triton_seconds, triton.time_left[-1]) == pytest.approx((seconds, seconds), abs=100)


def test_a_failed_batch_cancels_the_others(triton: FakeTriton, client: vlclip.Client) -> None:
    triton.fail, triton.fail_on = grpc.StatusCode.INTERNAL, b"0"
    triton.hold = {b"0": lambda: triton.received == 2, b"4": never}
    with pytest.raises(vlclip.ServerError):
        client.embed_texts(numbers(8))
    assert triton.cancelled.wait(60)


def test_health(triton: FakeTriton, client: vlclip.Client) -> None:
    assert client.health() == vlclip.Health(live=True, ready=True, server="fake", version="1.0")
    triton.is_ready = False
    assert client.health() == vlclip.Health(live=True, ready=False, server="fake", version="1.0")
    triton.fail = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(vlclip.AccessError):
        client.health()
    triton.stop()
    assert client.health(timeout=1) == vlclip.Health(live=False, ready=False)


def test_the_statuses_are_those_of_the_server() -> None:
    own = {"UNREADABLE": 100}
    assert {status.name: status.value for status in Status} == {one.name: one.value for one in specs.Status} | own
