"""The client and the real server on a bad day, and on one host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

import vlclip
from serving.server.server import Server
from tests.client.faults import Moody, TcpProxy
from tests.client.test_twins import Sync, twin  # noqa: F401
from tests.pictures import encode, picture

TEXTS = [f"a photo of {n} {what}" for n in range(50) for what in ("mugs", "lamps", "shirts", "chairs")]


@pytest.fixture(scope="module")
def truth(server: Server) -> np.ndarray:
    with vlclip.Client(server.grpc_url) as client:
        return client.embed_texts(TEXTS).embedding


def assert_same(found: vlclip.TextEmbeddings, truth: np.ndarray) -> None:
    assert found.embedding.shape == truth.shape
    assert (found.embedding * truth).sum(axis=1).min() > 0.99999


def test_every_third_request_refused(server, truth, twin):  # noqa: F811
    moody = Moody(server.grpc_url, 0.3)

    def calls(client):
        return client.embed_texts(TEXTS)

    for _ in range(10):
        assert_same(twin.run(calls, moody.address), truth)
    assert moody.refused > 0
    moody.stop()


@pytest.mark.slow
def test_ten_thousand_requests_of_which_every_third_is_refused(server, truth):
    """Every result right and in its place, and no call past its deadline by more than 100 ms."""
    moody = Moody(server.grpc_url, 0.3)
    callers, requests, total = 20, 10_000, 10.0
    slowest, answered = 0.0, 0

    async def work(client: vlclip.AsyncClient, random: np.random.Generator) -> None:
        nonlocal slowest, answered
        for _ in range(requests // callers):
            chosen = random.integers(0, len(TEXTS), random.integers(1, 9))
            begun = time.monotonic()
            found = await client.embed_texts([TEXTS[i] for i in chosen])
            slowest = max(slowest, time.monotonic() - begun)
            assert_same(found, truth[chosen])
            answered += 1

    async def main() -> None:
        async with vlclip.AsyncClient(moody.address, timeout=vlclip.Timeout(total=total)) as client:
            await asyncio.gather(*(work(client, np.random.default_rng(k)) for k in range(callers)))

    asyncio.run(main())
    assert answered == requests
    assert moody.refused > 0.25 * requests
    assert slowest < total + 0.1
    moody.stop()


def test_connections_cut_in_the_middle(server, truth, twin):  # noqa: F811
    proxy = TcpProxy(server.grpc_url)
    proxy.cut_after = 150_000
    for _ in range(3):
        assert_same(
            twin.run(lambda c: c.embed_texts(iter(TEXTS)), proxy.address, retry=vlclip.Retry(token_ratio=2)), truth
        )
    assert proxy.connections > 3
    proxy.close()


@pytest.mark.parametrize("trouble", ["stalled", "slow"])
def test_a_stalled_server_and_a_slow_one(server, truth, twin, trouble):  # noqa: F811
    proxy = TcpProxy(server.grpc_url)
    if trouble == "slow":
        proxy.delay = 0.02
        assert_same(twin.run(lambda c: c.embed_texts(TEXTS), proxy.address), truth)
    else:
        proxy.stalled = True
        begun = time.monotonic()
        with pytest.raises(vlclip.DeadlineError):
            twin.run(lambda c: c.embed_texts("mug"), proxy.address, timeout=vlclip.Timeout(total=0.5))
        assert time.monotonic() - begun < 0.7
    proxy.close()


def test_a_server_restarted_under_load(toy_repositories):
    """Killed and brought back by its watcher: every call waits for it, and none fails."""
    with (
        Server.start(toy_repositories) as server,
        vlclip.Client(server.grpc_url, timeout=vlclip.Timeout(request=60, connect=30)) as client,
    ):
        wanted = client.embed_texts(TEXTS[:20]).embedding
        ended, failures, done = threading.Event(), [], []

        def work() -> None:
            while not ended.is_set():
                try:
                    if not np.array_equal(client.embed_texts(TEXTS[:20]).embedding, wanted):
                        failures.append("another answer")
                    done.append(time.monotonic())
                except vlclip.VlclipError as error:
                    failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while server.pid == pid and time.monotonic() < killed + 60:
            time.sleep(0.1)
        time.sleep(3)
        ended.set()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert sum(when > killed + 1 for when in done) > 8


def regions(server: Server) -> set[str]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        return set(client.get_system_shared_memory_status(headers=key_of(server)).regions)


def key_of(server: Server) -> dict[str, str]:
    return {"triton-grpc-protocol-shared-memory-key": server.shared_memory_key}


def files() -> set[Path]:
    return set(Path("/dev/shm").glob("vlclip-*-*"))


@pytest.fixture
def tidy(server, monkeypatch) -> Iterator[None]:
    """Nothing is left behind that was not there before."""
    monkeypatch.setenv("VLCLIP_SHARED_MEMORY_KEY", server.shared_memory_key)
    before = files(), regions(server)
    yield
    end = time.monotonic() + 15
    while (files(), regions(server)) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert (files(), regions(server)) == before


def test_items_in_shared_memory(server, truth, twin, tidy):  # noqa: F811
    photos = [encode(picture(seed=n)) for n in range(6)]

    def work(client):
        if isinstance(twin, Sync):
            assert_same(client.embed_texts(TEXTS), truth)
            assert_same(client.embed_texts(iter(TEXTS)), truth)
            found = client.embed_images(photos, "mug")
            inside = regions(server)
            return found, inside

        async def both():
            assert_same(await client.embed_texts(TEXTS), truth)
            found = await client.embed_images(photos, "mug")
            return found, regions(server)

        return both()

    found, inside = twin.run(work, server.grpc_url, shared_memory="system")
    assert any(name.startswith(f"vlclip-{os.getpid()}-") for name in inside)
    wanted = twin.run(lambda c: c.embed_images(photos, "mug"), server.grpc_url)
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-5)
    np.testing.assert_allclose(found.box_xyxy, wanted.box_xyxy, atol=1e-2)


def test_shared_memory_of_a_client_that_was_killed(server, tidy):
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(vlclip.__file__).parents[1])!r})
import vlclip
client = vlclip.Client({server.grpc_url!r}, shared_memory="system")
client.embed_texts("a red mug")
print("ready", flush=True)
time.sleep(60)
"""
    before = files(), regions(server)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    assert (files(), regions(server)) != before
    child.kill()
    child.communicate()


def test_shared_memory_of_a_client_that_was_closed_in_a_call(server, tidy):
    client = vlclip.Client(server.grpc_url, shared_memory="system")
    client.embed_texts("a red mug")
    threading.Timer(0.05, client.close).start()
    with pytest.raises(vlclip.ClosedError):
        client.embed_texts(TEXTS * 1000)


def test_a_server_that_knows_nothing_of_the_memory_any_more(server, truth, twin, tidy):  # noqa: F811
    """As after a restart."""
    if isinstance(twin, Sync):
        with vlclip.Client(server.grpc_url, shared_memory="system") as client:
            client.embed_texts("a red mug")
            with triton.InferenceServerClient(server.grpc_url) as other:
                other.unregister_system_shared_memory(headers=key_of(server))
            assert_same(client.embed_texts(TEXTS), truth)
    else:

        async def work(client):
            await client.embed_texts("a red mug")
            with triton.InferenceServerClient(server.grpc_url) as other:
                other.unregister_system_shared_memory(headers=key_of(server))
            assert_same(await client.embed_texts(TEXTS), truth)

        twin.run(work, server.grpc_url, shared_memory="system")


def test_shared_memory_is_for_those_with_the_key(server, twin):  # noqa: F811
    with pytest.raises(vlclip.AccessError, match="restricted"):
        twin.run(lambda c: c.embed_texts("mug"), server.grpc_url, shared_memory="system")
    assert not any(path.name.startswith(f"vlclip-{os.getpid()}-") for path in files())


def test_models_and_health(server, twin):  # noqa: F811
    health = twin.run(lambda c: c.health(), server.grpc_url)
    assert (health.live, health.ready, health.server) == (True, True, "triton")
    models = {model.name: model for model in twin.run(lambda c: c.models(), server.grpc_url)}
    assert models["product_image"].ready
    assert models["product_image"].max_batch_size == 64
    assert models["enriched_text"].ready
