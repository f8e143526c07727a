"""What the synchronous and the asynchronous client share: streams, retries, deadlines, connections, servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest

import vlclip
from tests.client.conftest import FakeTriton, never
from tests.client.faults import Proxy
from tests.client.twins import Twin, first_column, numbers


@pytest.fixture
def unused() -> Iterator[dict[str, str]]:
    """The address of a server that never answers, and that of a port on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as refused:
        refused.bind(("127.0.0.1", 0))
        yield {name: f"127.0.0.1:{one.getsockname()[1]}" for name, one in (("silent", silent), ("refused", refused))}


def test_they_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(vlclip.Client) == public(vlclip.AsyncClient)
    assert public(vlclip.client.Stream) == public(vlclip.aio.AsyncStream)
    for name in public(vlclip.Client):
        assert (getattr(vlclip.Client, name).__doc__ is None) == (getattr(vlclip.AsyncClient, name).__doc__ is None)


def test_every_method(triton: FakeTriton, twin: Twin) -> None:
    products = [{"product_type": "mug", "title": "7"}, {"title": "Größe"}]
    with twin(triton.address) as client:
        assert first_column(client.embed_texts(numbers(9))) == list(range(9))
        assert client.embed_images([b"1", b"x"], "mug").status.tolist() == [0, 2]
        assert first_column(client.embed_whole_images(b"7")) == [7]
        assert client.ground([b"3"], ["mug"]).box_xyxy.tolist() == [[3, 4, 5, 6]]
        enriched = client.enrich(products, [None, b"12"])
        assert enriched.text.tolist() == ['{"product_type": "mug", "title": "7"}', '{"title": "Größe"}']
        assert enriched.embedding[:, 1].tolist() == [0, 2]
        assert enriched.rounds.tolist() == [1, 1]
        assert enriched.prompts.tolist() == ["v1", "v1"]
        assert client.embed_texts(["7", "a" * 41]).truncated.tolist() == [False, True]
        assert len(client.enrich([]).text) == 0
        assert client.health().ready
        assert [model.ready for model in client.models()] == [True, True, False, True, True]


def test_a_stream_yields_batches(triton: FakeTriton, twin: Twin) -> None:
    with twin(triton.address) as client:
        parts = list(client.stream.embed_texts(iter(numbers(10))))
        assert list(map(first_column, parts)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert list(client.stream.embed_texts([])) == []
        assert len(list(client.stream.embed_whole_images([b"1"]))) == 1
        assert len(list(client.stream.embed_images([b"1"], "mug"))) == 1
        assert len(list(client.stream.ground([b"1"], "mug"))) == 1
        assert len(list(client.stream.enrich({"title": "7"}))) == 1


def test_asynchronous_generators(triton: FakeTriton) -> None:
    async def images() -> AsyncIterator[bytes]:
        for i in range(9):
            await asyncio.sleep(0)
            yield str(i).encode()

    async def main() -> vlclip.ImageEmbeddings:
        async with vlclip.AsyncClient(triton.address) as client:
            return await client.embed_images(images(), (str(i) * i for i in range(9)))

    assert asyncio.run(main()).embedding[:, :2].tolist() == [[i, i] for i in range(9)]


def test_an_async_client_in_several_event_loops(triton: FakeTriton) -> None:
    """One after the other, as in scripts with several ``asyncio.run``, and at the same time, in threads."""
    client = vlclip.AsyncClient(triton.address)

    async def embed(n: int) -> list[float]:
        return first_column(await client.embed_texts([str(n), *numbers(9)]))

    async def end() -> None:
        await client.close()

    try:
        for n in range(3):
            assert asyncio.run(embed(n)) == [n, *range(9)]
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda n: asyncio.run(embed(n)), range(9))) == [[n, *range(9)] for n in range(9)]
    finally:
        asyncio.run(end())
    with pytest.raises(vlclip.ClosedError):
        asyncio.run(embed(1))


def test_an_image_that_is_not_decoded_raises_with_errors_raise(triton: FakeTriton, twin: Twin) -> None:
    images = [b"0", b"1", b"2", b"3", b"4", b"no image", b"6", b"7", b"8"]
    with (
        twin(triton.address) as client,
        pytest.raises(vlclip.ItemError, match="product_image: image 5 is not an image") as caught,
    ):
        client.embed_images(images, "mug", errors="raise")
    assert (caught.value.index, caught.value.status) == (5, vlclip.Status.NOT_AN_IMAGE)
    assert first_column(caught.value.partial) == [0, 1, 2, 3, 4, 0, 6, 7]


def test_an_error_has_the_results_before_the_failure(triton: FakeTriton, twin: Twin) -> None:
    def broken() -> Iterator[str]:
        yield from numbers(8)
        raise RuntimeError("the caller's own")

    triton.fail, triton.fail_on = grpc.StatusCode.INTERNAL, b"9"
    with twin(triton.address) as client:
        with pytest.raises(vlclip.ServerError) as caught:
            client.embed_texts(numbers(12))
        assert first_column(caught.value.partial) == list(range(8))
        with pytest.raises(RuntimeError, match="the caller's own"):
            client.embed_texts(broken())


@pytest.mark.parametrize("timeout", [vlclip.Timeout(request=0.4, connect=60), vlclip.Timeout(total=0.4, connect=60)])
@pytest.mark.parametrize("fault", ["no answer", "unavailable", "silent", "refused"])
def test_a_call_ends_at_its_deadline(
    triton: FakeTriton, twin: Twin, unused: dict[str, str], timeout: vlclip.Timeout, fault: str
) -> None:
    address = unused.get(fault, triton.address)
    if fault == "no answer":
        triton.hold = {b"1": never}
    elif fault == "unavailable":
        triton.fail = grpc.StatusCode.UNAVAILABLE
    with twin(address, timeout=timeout) as client, pytest.raises((vlclip.DeadlineError, vlclip.UnavailableError)):
        client.embed_texts("1")


def test_the_total_is_the_time_for_all_batches(triton: FakeTriton, twin: Twin) -> None:
    triton.max_batch_size = 1
    triton.hold = {b"8": never}
    with twin(triton.address) as client, pytest.raises(vlclip.DeadlineError) as caught:
        client.embed_texts(numbers(100), timeout=vlclip.Timeout(request=60, total=0.6))
    received = first_column(caught.value.partial) if caught.value.partial else []
    assert received == list(range(len(received)))
    assert len(received) <= 8


@pytest.mark.parametrize("fault", ["silent", "refused"])
def test_a_connection_is_awaited_for_the_time_of_connect(twin: Twin, unused: dict[str, str], fault: str) -> None:
    message = rf"product_text from {unused[fault]}.*no server runs there.*`make serve`"
    with twin(unused[fault], timeout=vlclip.Timeout(request=60, connect=0.6)) as client:
        with pytest.raises(vlclip.UnavailableError, match=message):
            client.embed_texts("1")
        assert client.health(timeout=0.6) == vlclip.Health(live=False, ready=False)


def test_connections_that_end_in_the_middle_of_a_response(triton: FakeTriton, twin: Twin) -> None:
    triton.dim = 4096
    with (
        Proxy(triton.address, cut_after=200_000) as proxy,
        twin(proxy.address, retry=vlclip.Retry(token_ratio=2)) as client,
    ):
        assert first_column(client.embed_texts(iter(numbers(100)))) == list(range(100))
        assert proxy.connections > 3


def test_several_servers_share_the_requests_and_one_may_stop(triton: FakeTriton, twin: Twin) -> None:
    other = FakeTriton()
    with twin([triton.address, other.address.replace("127.0.0.1", "localhost")]) as client:
        while not (triton.received and other.received):
            client.embed_texts("1")  # until both are connected
        before = triton.received, other.received
        assert len(client.embed_texts(iter(numbers(160)))) == 160
        assert min(triton.received - before[0], other.received - before[1]) >= 15
        triton.stop(grace=60)
        before = triton.received, other.received
        assert first_column(client.embed_texts(iter(numbers(160)))) == list(range(160))
        assert other.received - before[1] >= 38
    other.stop()


def test_headers_are_sent_with_each_request(triton: FakeTriton, twin: Twin) -> None:
    tokens = iter(["one", "two"])  # for the batch size and for the texts
    with twin(triton.address, headers=lambda: {"Authorization": f"Bearer {next(tokens)}"}) as client:
        client.embed_texts("1")
    assert triton.metadata[-1]["authorization"] == "Bearer two"
    with twin(triton.address, headers={"triton-grpc-protocol-infer": "secret"}) as client:
        client.embed_texts("1")
    assert triton.metadata[-1]["triton-grpc-protocol-infer"] == "secret"


def test_the_error_of_a_server_without_client_shared_memory(triton: FakeTriton, twin: Twin) -> None:
    with (
        twin(triton.address, shared_memory="system") as client,
        pytest.raises(vlclip.RejectedError, match="`--allow-client-shm=true`, or remove `shared_memory`") as caught,
    ):
        client.embed_texts("1")
    assert "shared memory from" in str(caught.value)
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert triton.received == 0


def test_compression(triton: FakeTriton, twin: Twin) -> None:
    with Proxy(triton.address) as proxy, twin(proxy.address, compression=True) as client:
        client.embed_texts("1" * 500_000)
        assert proxy.sent < 50_000


@pytest.mark.parametrize("calls", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_concurrent_calls_while_every_third_request_is_refused(triton: FakeTriton, twin: Twin, calls: int) -> None:
    """No result is lost, duplicated or in another's place, and no call exceeds its deadline."""
    triton.refuse_every, triton.keep_requests = 3, False

    def work(call: int) -> None:
        items = range(call * 10, call * 10 + call % 9 + 1)  # 1 to 9 items, in batches of 4
        assert first_column(client.embed_texts(map(str, items))) == list(items)

    with twin(triton.address, timeout=vlclip.Timeout(total=60)) as client, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(calls)))
    assert triton.refused == triton.received // 3 > calls / 3


def test_memory_does_not_grow_with_the_number_of_items(triton: FakeTriton, twin: Twin) -> None:
    triton.max_batch_size, triton.keep_requests = 64, False
    marks: list[int] = []
    done = 0
    with twin(triton.address) as client:
        for part in client.stream.embed_texts("7" * 20 for _ in range(100_000)):
            done += len(part)
            if done >= 20_000 * (len(marks) + 1):
                marks.append(psutil.Process().memory_info().rss)
    assert done == 100_000
    assert len(marks) == 5
    assert marks[-1] - marks[0] < 8 << 20


@pytest.mark.parametrize("texts", [list, iter], ids=["one batch", "several batches"])
def test_closing_during_a_call(triton: FakeTriton, twin: Twin, texts: Callable[[list[str]], Any]) -> None:
    triton.hold = {b"1": never}
    with twin(triton.address, timeout=600) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.embed_texts, texts(["1"]))
        triton.wait_for(lambda: triton.received == 1)
        client.close()
        client.close()
        with pytest.raises(vlclip.ClosedError, match="was closed during the call"):
            call.result()


def test_cancelling_a_task_cancels_its_requests(triton: FakeTriton) -> None:
    triton.hold = {b"1": never}

    async def main() -> None:
        async with vlclip.AsyncClient(triton.address) as client:
            call = asyncio.create_task(client.embed_texts("1"))
            await asyncio.to_thread(triton.wait_for, lambda: triton.received == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(triton.cancelled.wait, 60)
            assert first_column(await client.embed_texts("2")) == [2]

    asyncio.run(main())


def test_closing_a_stream_cancels_its_requests(triton: FakeTriton, twin: Twin) -> None:
    triton.max_batch_size = 1
    triton.hold = {b"1": never}
    with twin(triton.address) as client:
        stream = client.stream.embed_texts(numbers(3))
        assert first_column(next(stream)) == [0]
        triton.wait_for(lambda: [b"1"] in triton.batches)
        stream.close()
        assert triton.cancelled.wait(60)
