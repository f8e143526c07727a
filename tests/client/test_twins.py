"""What the synchronous and the asynchronous client share, shown for each: streams, retries, deadlines, servers."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.faults import Moody, TcpProxy


class Sync:
    kind = vlclip.Client

    def run(self, work: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        with vlclip.Client(*args, **options) as client:
            return work(client)

    def collect(self, stream: Any) -> list[Any]:
        return list(stream)


class Async:
    """Runs the same work by ``asyncio``; what it calls is awaited, and a stream is read to its end."""

    kind = vlclip.AsyncClient

    def run(self, work: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        async def main() -> Any:
            async with vlclip.AsyncClient(*args, **options) as client:
                return await work(client)

        return asyncio.run(main())

    async def collect(self, stream: Any) -> list[Any]:
        return [part async for part in stream]


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def twin(request) -> Any:
    return request.param()


def first_column(result: Any) -> list[float]:
    return result.embedding[:, 0].tolist()


def numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_they_have_the_same_methods():
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(vlclip.Client) == public(vlclip.AsyncClient)
    assert public(vlclip.client.Stream) == public(vlclip.aio.AsyncStream)
    for name in public(vlclip.Client):
        assert (getattr(vlclip.Client, name).__doc__ is None) == (getattr(vlclip.AsyncClient, name).__doc__ is None)


def test_every_method(triton, twin):
    assert first_column(twin.run(lambda c: c.embed_texts(numbers(9)), triton.address)) == list(range(9))
    found = twin.run(lambda c: c.embed_images([b"1", b"x"], "mug"), triton.address)
    assert found.status.tolist() == [0, 2]
    assert twin.run(lambda c: c.embed_whole_images(b"7"), triton.address).embedding[0, 0] == 7
    assert twin.run(lambda c: c.ground([b"3"], ["mug"]), triton.address).box_xyxy.tolist() == [[3, 4, 5, 6]]
    assert twin.run(lambda c: c.health(), triton.address).ready
    assert [model.ready for model in twin.run(lambda c: c.models(), triton.address)] == [True, True, False, True, True]


def test_enrich(triton, twin):
    products = [{"product_type": "mug", "title": "7"}, {"title": "Größe"}]
    result = twin.run(lambda c: c.enrich(products, [None, b"12"]), triton.address)
    assert result.text.tolist() == ['{"product_type": "mug", "title": "7"}', '{"title": "Größe"}']
    assert result.embedding[:, 1].tolist() == [0, 2]
    assert result.rounds.tolist() == [1, 1]
    assert result.prompts.tolist() == ["v1", "v1"]
    assert len(twin.run(lambda c: c.enrich([]), triton.address).text) == 0


def test_a_stream_gives_batches_as_they_come(triton, twin):
    parts = twin.run(lambda c: twin.collect(c.stream.embed_texts(iter(numbers(10)))), triton.address)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [x for part in parts for x in first_column(part)] == list(range(10))
    assert twin.run(lambda c: twin.collect(c.stream.embed_texts([])), triton.address) == []


def test_asynchronous_generators():
    triton = FakeTriton()

    async def images():
        for i in range(9):
            await asyncio.sleep(0)
            yield str(i).encode()

    async def main():
        async with vlclip.AsyncClient(triton.address) as client:
            return await client.embed_images(images(), (str(i) * i for i in range(9)))

    result = asyncio.run(main())
    assert result.embedding[:, :2].tolist() == [[i, i] for i in range(9)]
    triton.stop()


def test_forms_of_pixels_arrive_as_png(triton, twin):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    image = Image.fromarray(pixels)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6  # shown turned by 90 degrees
    file = io.BytesIO(b"12")
    twin.run(lambda c: c.embed_whole_images([pixels, image, pixels[:, :, 0], turned]), triton.address)
    came = [np.asarray(Image.open(io.BytesIO(sent))) for sent in triton.batches[0]]
    np.testing.assert_array_equal(came[0], pixels)
    np.testing.assert_array_equal(came[1], pixels)
    np.testing.assert_array_equal(came[2], pixels[:, :, 0])
    np.testing.assert_array_equal(came[3], np.rot90(pixels, -1))
    assert first_column(twin.run(lambda c: c.embed_whole_images(file), triton.address)) == [12]
    twin.run(lambda c: c.embed_whole_images(np.stack([pixels, pixels])), triton.address)
    assert len(triton.batches[-1]) == 2
    twin.run(lambda c: c.embed_whole_images(image.convert("CMYK")), triton.address)
    assert Image.open(io.BytesIO(triton.batches[-1][0])).mode == "RGB"


def test_a_text_file_is_no_image(triton, twin):
    with pytest.raises(vlclip.InvalidInputError, match="image 0: expected a file opened with mode 'rb'"):
        twin.run(lambda c: c.embed_whole_images(io.StringIO("1")), triton.address)


def test_items_that_fail_raise_where_that_is_wanted(triton, twin):
    images = [b"0", b"1", b"2", b"3", b"4", b"no image", b"6", b"7", b"8"]
    with pytest.raises(vlclip.ItemError, match="product_image: image 5 is not an image") as caught:
        twin.run(lambda c: c.embed_images(images, "mug", errors="raise"), triton.address)
    assert (caught.value.index, caught.value.status) == (5, vlclip.Status.NOT_AN_IMAGE)
    assert first_column(caught.value.partial) == [0, 1, 2, 3, 4, 0, 6, 7]


def test_what_came_before_a_failure_is_not_lost(triton, twin):
    triton.fail, triton.fail_on = grpc.StatusCode.INTERNAL, b"9"
    with pytest.raises(vlclip.ServerError) as caught:
        twin.run(lambda c: c.embed_texts(numbers(12)), triton.address)
    assert first_column(caught.value.partial) == list(range(8))

    def broken() -> Iterator[str]:
        yield from numbers(8)
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        twin.run(lambda c: c.embed_texts(broken()), triton.address)


def test_a_request_is_sent_again_until_there_is_an_answer(triton, twin):
    moody = Moody(triton.address, 0.6, seed=3)
    assert first_column(twin.run(lambda c: c.embed_texts(numbers(40)), moody.address)) == list(range(40))
    assert moody.refused > 3
    moody.stop()


@pytest.mark.parametrize(
    ("code", "details", "again"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", True),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' has no available versions", True),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 4)", False),
        (grpc.StatusCode.INTERNAL, "no", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "no", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "no", False),
    ],
)
def test_what_is_sent_again(triton, twin, code, details, again):
    triton.fail, triton.details, triton.fail_times = code, details, 2
    if again:
        assert first_column(twin.run(lambda c: c.embed_texts("5"), triton.address)) == [5]
    else:
        with pytest.raises(vlclip.RequestError):
            twin.run(lambda c: c.embed_texts("5"), triton.address)
    assert len(triton.infer_requests) == (3 if again else 1)


def test_without_retry_there_is_one_try(triton, twin):
    triton.fail, triton.fail_times = grpc.StatusCode.UNAVAILABLE, 1
    with pytest.raises(vlclip.UnavailableError, match="as the test wants it"):
        twin.run(lambda c: c.embed_texts("1"), triton.address, retry=None)
    assert len(triton.infer_requests) == 1


def test_an_outage_is_not_amplified(triton, twin):
    """The budget is the client's: once it is spent, each request is sent once."""
    triton.fail = grpc.StatusCode.UNAVAILABLE
    retry = vlclip.Retry(initial_backoff=0.001, max_backoff=0.001, max_tokens=10)

    def sync_work(client: Any) -> None:
        for _ in range(20):
            with pytest.raises(vlclip.UnavailableError):
                client.embed_texts("1")

    async def async_work(client: Any) -> None:
        for _ in range(20):
            with pytest.raises(vlclip.UnavailableError):
                await client.embed_texts("1")

    twin.run(sync_work if isinstance(twin, Sync) else async_work, triton.address, retry=retry)
    assert len(triton.infer_requests) == 20 + 10


OVERLOADED = "in ensemble 'product_text', overloaded: 0.9 s of work are waiting, 0.5 s at most: try again later"


def test_an_overloaded_server_paces_a_call_of_several_batches(triton, twin):
    """It takes no tokens, of which there are far too few, and none of the time for a request."""
    triton.fail, triton.details, triton.fail_times = grpc.StatusCode.UNAVAILABLE, OVERLOADED, 60
    retry, timeout = vlclip.Retry(max_backoff=0.1, max_tokens=20), vlclip.Timeout(request=0.4)
    result = twin.run(lambda c: c.embed_texts(map(str, range(20))), triton.address, retry=retry, timeout=timeout)
    assert first_column(result) == list(range(20))
    assert len(triton.infer_requests) == 60 + 5


@pytest.mark.parametrize(
    ("retry", "total"),
    [(vlclip.Retry(max_backoff=0.05, overload_timeout=0.2), None), (vlclip.Retry(max_backoff=0.05), 0.5)],
)
def test_an_overloaded_server_is_not_waited_for_for_ever(triton, twin, retry, total):
    triton.fail, triton.details = grpc.StatusCode.UNAVAILABLE, OVERLOADED
    begin = time.monotonic()
    with pytest.raises((vlclip.OverloadedError, vlclip.DeadlineError), match="product_text"):
        twin.run(
            lambda c: c.embed_texts(map(str, range(20))),
            triton.address,
            retry=retry,
            timeout=vlclip.Timeout(request=0.3, total=total),
        )
    assert time.monotonic() - begin < 3


def test_a_single_request_to_an_overloaded_server_is_not_amplified(triton, twin):
    triton.fail, triton.details = grpc.StatusCode.UNAVAILABLE, OVERLOADED
    with pytest.raises(vlclip.OverloadedError, match=r"overloaded: .* try again later"):
        twin.run(lambda c: c.embed_texts("1"), triton.address, retry=vlclip.Retry(max_backoff=0.01, max_tokens=3))
    assert len(triton.infer_requests) == 1 + 3


def test_the_error_says_how_often_it_was_tried(triton, twin):
    triton.fail = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(vlclip.UnavailableError, match=r"product_text from .*, allowed 0\.3 s, tried \d+ times"):
        twin.run(lambda c: c.embed_texts("1"), triton.address, timeout=0.3, retry=vlclip.Retry(max_backoff=0.05))


@pytest.mark.parametrize("timeout", [vlclip.Timeout(request=0.4), vlclip.Timeout(total=0.4)])
@pytest.mark.parametrize("trouble", ["slow", "unavailable", "stalled", "nobody"])
def test_no_call_outlives_its_deadline(triton, twin, timeout, trouble):
    proxy = TcpProxy(triton.address)

    def answers(client: Any) -> Any:
        return client.embed_texts("1")

    if trouble == "slow":
        triton.delay = {b"1": 5}
    elif trouble == "unavailable":
        triton.fail = grpc.StatusCode.UNAVAILABLE
    elif trouble == "stalled":
        proxy.stalled = True
    else:
        proxy.close()
    begun = time.monotonic()
    with pytest.raises((vlclip.DeadlineError, vlclip.UnavailableError)):
        twin.run(answers, proxy.address, timeout=timeout)
    assert time.monotonic() - begun < 0.4 + 0.1 + 0.1  # the second tenth is for starting and closing
    proxy.close()


@pytest.mark.parametrize("trouble", ["silent", "refused"])
def test_no_connection_is_waited_for_longer_than_allowed(twin, trouble):
    """Of a host that swallows what is sent, and of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        if trouble == "refused":
            nobody.close()
        begun = time.monotonic()
        with pytest.raises(vlclip.UnavailableError, match="no server runs there"):
            twin.run(lambda c: c.embed_texts("1"), address, timeout=vlclip.Timeout(request=20, connect=0.6))
        assert 0.5 < time.monotonic() - begun < 0.6 + 0.1 + 0.2  # more than a tenth for the waits between tries


def test_the_total_is_for_all_batches(triton, twin):
    triton.max_batch_size = 1
    triton.delay = {str(i).encode(): 0.1 for i in range(100)}
    begun = time.monotonic()
    with pytest.raises(vlclip.DeadlineError) as caught:
        twin.run(lambda c: c.embed_texts(numbers(100)), triton.address, timeout=vlclip.Timeout(total=0.65))
    assert time.monotonic() - begun < 0.9
    assert 4 <= len(caught.value.partial) <= 28
    assert first_column(caught.value.partial) == list(range(len(caught.value.partial)))


def test_connections_that_are_cut(triton, twin):
    """In the middle of an answer, again and again."""
    triton.dim = 4096
    proxy = TcpProxy(triton.address)
    proxy.cut_after = 200_000
    result = twin.run(lambda c: c.embed_texts(iter(numbers(100))), proxy.address, retry=vlclip.Retry(token_ratio=2))
    assert first_column(result) == list(range(100))
    assert proxy.connections > 3
    proxy.close()


def test_a_server_that_is_restarted(triton, twin):
    """Requests wait for it, within `connect`."""
    proxy = TcpProxy(triton.address)
    upstream, proxy.upstream = proxy.upstream, ("127.0.0.1", 1)
    threading.Timer(0.7, lambda: setattr(proxy, "upstream", upstream)).start()
    assert first_column(twin.run(lambda c: c.embed_texts(numbers(20)), proxy.address)) == list(range(20))
    proxy.close()


def test_several_servers_share_the_work_and_one_may_leave(triton, twin):
    other = FakeTriton()
    proxies = [TcpProxy(triton.address), TcpProxy(other.address)]
    addresses = [proxies[0].address, proxies[1].address.replace("127.0.0.1", "localhost")]

    def ask(client: Any, count: int) -> Any:
        return client.embed_texts(iter(numbers(count)))

    def sync_work(client: Any) -> None:
        assert len(ask(client, 160)) == 160
        assert min(len(triton.infer_requests), len(other.infer_requests)) >= 15
        proxies[0].close()
        before = len(other.infer_requests)
        assert first_column(ask(client, 160)) == list(range(160))
        assert len(other.infer_requests) >= before + 38

    async def async_work(client: Any) -> None:
        assert len(await ask(client, 160)) == 160
        assert min(len(triton.infer_requests), len(other.infer_requests)) >= 15
        proxies[0].close()
        before = len(other.infer_requests)
        assert first_column(await ask(client, 160)) == list(range(160))
        assert len(other.infer_requests) >= before + 38

    twin.run(sync_work if isinstance(twin, Sync) else async_work, addresses)
    proxies[1].close()
    other.stop()


def test_headers_are_sent_and_asked_for_each_time(triton, twin):
    tokens = iter(["one", "two", "three", "four"])
    twin.run(lambda c: c.embed_texts("1"), triton.address, headers=lambda: {"Authorization": f"Bearer {next(tokens)}"})
    assert triton.metadata[-1]["authorization"].startswith("Bearer ")
    twin.run(lambda c: c.embed_texts("1"), triton.address, headers={"triton-grpc-protocol-infer": "secret"})
    assert triton.metadata[-1]["triton-grpc-protocol-infer"] == "secret"


def test_the_error_of_a_server_without_client_shared_memory(triton, twin):
    with pytest.raises(vlclip.RejectedError, match="`--allow-client-shm=true`, or remove `shared_memory`") as caught:
        twin.run(lambda c: c.embed_texts("1"), triton.address, shared_memory="system")
    assert "shared memory from" in str(caught.value)
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert triton.infer_requests == []


def test_compression(triton, twin):
    proxy = TcpProxy(triton.address)
    twin.run(lambda c: c.embed_texts("1" * 500_000), proxy.address, compression=True)
    assert proxy.sent < 50_000
    proxy.close()


def test_fifty_or_two_hundred_callers_at_once(triton, twin):
    triton.delay = {b"0": 0.05}
    if isinstance(twin, Sync):
        got: dict[int, list[float]] = {}
        with vlclip.Client(triton.address) as client:

            def work(k: int) -> None:
                got[k] = first_column(client.embed_texts(str(k * 100 + i) for i in range(9)))

            threads = [threading.Thread(target=work, args=(k,)) for k in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert got == {k: [k * 100 + i for i in range(9)] for k in range(50)}
    else:

        async def main() -> list[list[float]]:
            async with vlclip.AsyncClient(triton.address) as client:
                calls = [client.embed_texts(map(str, range(k * 100, k * 100 + 9))) for k in range(200)]
                return [first_column(found) for found in await asyncio.gather(*calls)]

        assert asyncio.run(main()) == [[k * 100 + i for i in range(9)] for k in range(200)]


def test_closing_during_a_call(triton, twin):
    triton.delay = {b"1": 20}
    begun = time.monotonic()
    if isinstance(twin, Sync):
        for texts in ("1", iter("1")):
            client = vlclip.Client(triton.address)
            threading.Timer(0.3, client.close).start()
            with pytest.raises(vlclip.ClosedError, match="was closed during the call"):
                client.embed_texts(texts)
    else:

        async def main() -> None:
            client = vlclip.AsyncClient(triton.address)
            call = asyncio.create_task(client.embed_texts("1"))
            await asyncio.sleep(0.3)
            await client.close()
            await client.close()
            with pytest.raises(vlclip.ClosedError, match="was closed during the call"):
                await call
            with pytest.raises(vlclip.ClosedError, match="create a new one"):
                await client.embed_texts("1")

        asyncio.run(main())
    assert time.monotonic() - begun < 5


def test_a_cancelled_task_is_cancelled_on_the_server(triton):
    triton.delay = {b"1": 20}

    async def main() -> None:
        async with vlclip.AsyncClient(triton.address) as client:
            call = asyncio.create_task(client.embed_texts("1"))
            await asyncio.sleep(0.3)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(triton.cancelled.wait, 2)
            triton.delay = {}
            assert first_column(await client.embed_texts("2")) == [2]

    asyncio.run(main())


def test_leaving_a_stream_cancels_what_is_on_its_way(triton):
    triton.max_batch_size = 1
    triton.delay = {b"1": 20}
    with vlclip.Client(triton.address) as client:
        stream = client.stream.embed_texts(numbers(3))
        assert first_column(next(stream)) == [0]
        while [b"1"] not in triton.batches:
            time.sleep(0.01)
        stream.close()
        assert triton.cancelled.wait(2)
