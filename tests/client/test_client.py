"""The client against a KServe v2 server over real gRPC: what goes out, what comes back, in which order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

import vlclip
from serving.repository import specs
from vlclip import Status


@pytest.fixture
def client(triton):
    with vlclip.Client(triton.address, timeout=10) as client:
        yield client


def numbers(n):
    return [str(i).encode() for i in range(n)]


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
def test_items_are_split_by_the_servers_batch_size_and_keep_their_order(triton, client, n, sizes):
    result = client.embed_images(numbers(n), "mug")

    assert sorted(map(len, triton.batches), reverse=True) == sizes
    np.testing.assert_array_equal(result.embedding, [[i, len("mug"), 0] for i in range(n)])
    np.testing.assert_array_equal(result.box_xyxy, [[i, i + 1, i + 2, i + 3] for i in range(n)])
    np.testing.assert_array_equal(result.score, [0.5] * n)
    np.testing.assert_array_equal(result.status, [Status.GROUNDED] * n)
    assert len(result) == n
    assert (result.embedding.dtype, result.status.dtype) == (np.float32, np.int32)
    assert result.embedding.flags.writeable


def shapes(result):
    return {name: array.shape for name, array in vars(result).items()}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(
            lambda c, none: c.embed_images(none, "mug"),
            {"embedding": (0, 3), "box_xyxy": (0, 4), "score": (0,), "status": (0,)},
            id="embed_images, one product type",
        ),
        pytest.param(
            lambda c, none: c.embed_images(none, []),
            {"embedding": (0, 3), "box_xyxy": (0, 4), "score": (0,), "status": (0,)},
            id="embed_images, no product types",
        ),
        pytest.param(
            lambda c, none: c.embed_whole_images(none), {"embedding": (0, 3), "status": (0,)}, id="embed_whole_images"
        ),
        pytest.param(lambda c, none: c.embed_texts(none), {"embedding": (0, 3)}, id="embed_texts"),
        pytest.param(
            lambda c, none: c.ground(none, "mug"), {"box_xyxy": (0, 4), "score": (0,), "status": (0,)}, id="ground"
        ),
    ],
)
@pytest.mark.parametrize("none", [pytest.param(list, id="list"), pytest.param(lambda: iter(()), id="iterator")])
def test_no_items_give_an_empty_result_of_the_right_shape(triton, client, call, expected, none):
    assert shapes(call(client, none())) == expected
    asked = len(triton.infer_requests)
    assert asked == ("embedding" in expected)  # D has to be learnt once

    assert shapes(call(client, none())) == expected
    assert len(triton.infer_requests) == asked


def test_no_request_for_no_items_once_anything_was_embedded(triton, client):
    client.embed_texts("1")
    assert client.embed_images([], "mug").embedding.shape == (0, 3)
    assert len(triton.infer_requests) == 1


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
def test_forms_of_images(tmp_path, client, given):
    path: Path = tmp_path / "7.jpg"
    path.write_bytes(b"7")
    assert client.embed_whole_images(given(path)).embedding[:, 0].tolist() == [7]
    assert client.embed_images(given(path), "mug").embedding[:, 0].tolist() == [7]
    assert client.ground(given(path), ["mug"]).box_xyxy[:, 0].tolist() == [7]


def test_bytes_arrive_as_they_were_given(triton, client):
    images = [b"", b"\x00\xff\x00", b"12", bytes(range(256)) + b"\x00"]
    result = client.embed_whole_images(images)
    assert triton.batches == [images]
    assert [Status(s) for s in result.status] == [2, 2, 0, 2]


@pytest.mark.parametrize(
    ("texts", "sent"),
    [
        pytest.param("red mug", [b"red mug"], id="one text is not its letters"),
        pytest.param(["", "tasse à café", "马克杯"], [b"", "tasse à café".encode(), "马克杯".encode()], id="UTF-8"),
    ],
)
def test_texts(triton, client, texts, sent):
    assert len(client.embed_texts(texts)) == len(sent)
    assert triton.batches == [sent]


def test_one_product_type_each_stays_with_its_image_across_batches(client):
    types = ["x" * (i % 7) for i in range(10)]
    for given in (types, iter(types), tuple(types)):
        result = client.embed_images(iter(numbers(10)), given)
        assert result.embedding[:, :2].tolist() == [[i, i % 7] for i in range(10)]


def test_order_is_kept_where_later_batches_answer_first(triton, client):
    triton.delay = {b"0": 0.3, b"4": 0.15}
    assert client.embed_texts(map(str, range(12))).embedding[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_batches_on_their_way_are_bounded(triton, max_in_flight):
    triton.max_batch_size = 1
    triton.delay = dict.fromkeys(numbers(12), 0.03)
    with vlclip.Client(triton.address, max_in_flight=max_in_flight) as client:
        client.embed_texts(map(str, range(12)))
    assert triton.most_at_once == max_in_flight


def test_a_generator_is_read_as_it_is_sent(triton, client):
    read = []
    sent_when_read = []

    def images():
        for item in numbers(60):
            read.append(item)
            sent_when_read.append(len(triton.infer_requests))
            yield item

    client.embed_whole_images(images())
    assert len(read) == 60
    # Before item i is read, all but the 4 batches on their way and the one at hand were sent.
    assert all(sent >= i // 4 - 5 for i, sent in enumerate(sent_when_read))


def test_the_batch_size_is_asked_once_for_each_pipeline(triton, client):
    for _ in range(3):
        client.embed_texts(["1"])
        client.embed_whole_images([b"1"])
    assert triton.config_requests == 2


def test_batches_are_cut_by_bytes_too(triton, client):
    image = bytes(40 << 20)
    assert client.embed_whole_images([image, image, b"3"]).embedding[:, 0].tolist() == [0, 0, 3]
    assert [len(batch) for batch in triton.batches] == [1, 2]


def test_answers_may_be_larger_than_grpcs_usual_4_mib(triton, client):
    triton.max_batch_size, triton.dim = 1024, 4096
    assert client.embed_texts(map(str, range(600))).embedding.shape == (600, 4096)


def test_the_deadline_travels_to_grpc_and_to_triton(triton, client):
    client.embed_texts("1")
    client.embed_texts("1", timeout=2.5)
    micros = [request.parameters["timeout"].int64_param for request in triton.infer_requests]
    assert micros == pytest.approx([10_000_000, 2_500_000], rel=0.01)
    assert triton.time_left[0] == pytest.approx(10, abs=1)
    assert triton.time_left[1] == pytest.approx(2.5, abs=1)


def test_a_passed_deadline_raises_in_time(triton, client):
    triton.delay = {b"1": 5}
    start = time.monotonic()
    with pytest.raises(vlclip.DeadlineError, match=r"product_text from .*, allowed 0.2 s.*`timeout`") as error:
        client.embed_texts("1", timeout=0.2)
    assert time.monotonic() - start < 2
    assert isinstance(error.value, TimeoutError)


def test_a_failed_batch_cancels_the_others(triton, client):
    triton.fail, triton.fail_on = grpc.StatusCode.INTERNAL, b"0"
    triton.delay = {b"0": 0.2, b"4": 5}
    with pytest.raises(vlclip.ServerError):
        client.embed_texts(map(str, range(8)))
    assert triton.cancelled.wait(2)


def test_threads_share_a_client(client):
    def work(k):
        got[k] = client.embed_texts(str(k * 100 + i) for i in range(20)).embedding[:, 0].tolist()

    got = {}
    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {k: [k * 100 + i for i in range(20)] for k in range(8)}


def test_health(triton, client):
    assert client.health() == vlclip.Health(live=True, ready=True, server="fake", version="1.0")
    triton.is_ready = False
    assert client.health() == vlclip.Health(live=True, ready=False, server="fake", version="1.0")
    triton.fail = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(vlclip.AccessError):
        client.health()
    triton.stop()
    start = time.monotonic()
    assert client.health(timeout=1) == vlclip.Health(live=False, ready=False)
    assert time.monotonic() - start < 1.5


def test_the_statuses_are_those_of_the_server():
    assert {status.name: status.value for status in Status} == {one.name: one.value for one in specs.Status}


def test_models(client):
    names = ("product_image", "whole_image", "ground", "product_text", "enriched_text")
    assert client.models() == tuple(
        vlclip.Model(name, False) if name == "ground" else vlclip.Model(name, True, ("1", "2"), 4) for name in names
    )
