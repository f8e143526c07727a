"""The clients and a real server: faults on the network, restarts, and shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton

import vlclip
from serving.server.server import Server
from tests.asking import until
from tests.client.twins import TWINS, Twin
from tests.pictures import encode, picture

TEXTS = [f"a photo of {n} {what}" for n in range(50) for what in ("mugs", "lamps", "shirts", "chairs")]
PATIENT = vlclip.Timeout(request=120, connect=120)
Embeddings = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def truth(server: Server) -> Embeddings:
    with vlclip.Client(server.grpc_url) as client:
        return client.embed_texts(TEXTS).embedding


def assert_same(found: vlclip.TextEmbeddings, truth: Embeddings) -> None:
    assert found.embedding.shape == truth.shape
    assert (found.embedding * truth).sum(axis=1).min() > 0.99999


def test_every_row_names_the_version_of_its_pipeline(server: Server) -> None:
    photos = [encode(picture(seed=seed), "JPEG") for seed in range(3)]
    with vlclip.Client(server.grpc_url) as client:
        rows = {
            "product_image": {*client.embed_images(photos, "mug").version},
            "whole_image": {*client.embed_whole_images(photos).version},
            "ground": {*client.ground(photos, "mug").version},
            "product_text": {*client.embed_texts(TEXTS[:3]).version},
            "enriched_text": {*client.enrich([{"product_type": "mug"}] * 3).version},
        }
        models = client.models()
    assert {model.name: {model.version} for model in models} == rows
    assert all(model.label.startswith("version ") for model in models)
    assert vlclip.comparable(*(rows[name] for name in rows if name != "ground"))
    assert all(one.split("-")[2:] == two.split("-")[2:] for one in rows["ground"] for two in rows["product_image"])


def test_calls_wait_for_a_server_that_is_restarted(toy_repositories: list[Path]) -> None:
    """The server is killed under load. Its watcher restarts it, and no call fails."""
    ended, done = threading.Event(), threading.Semaphore(0)
    with (
        Server.start(toy_repositories) as server,
        TWINS["sync"](server.grpc_url, timeout=PATIENT) as client,
        TWINS["async"](server.grpc_url, timeout=PATIENT) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        expected = client.embed_texts(TEXTS[:20]).embedding

        def work(client: vlclip.Client) -> None:
            while not ended.is_set():
                np.testing.assert_array_equal(client.embed_texts(TEXTS[:20]).embedding, expected)
                done.release()

        def wait_for_calls(n: int) -> None:
            for _ in range(n):
                assert done.acquire(timeout=120)

        workers = [pool.submit(work, each) for each in (client, other) * 4]
        try:
            wait_for_calls(16)
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            until(lambda: server.pid != pid)
            wait_for_calls(100)  # more than had ended before the restart
        finally:
            ended.set()
        for worker in workers:
            worker.result()


def regions(server: Server) -> set[str]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        return set(client.get_system_shared_memory_status(headers=key_of(server)).regions)


def key_of(server: Server) -> dict[str, str]:
    return {"triton-grpc-protocol-shared-memory-key": server.shared_memory_key}


def files(pid: int) -> list[Path]:
    """The shared memory of the clients in a process."""
    return list(Path("/dev/shm").glob(f"vlclip-{pid}-*"))


@pytest.fixture
def clean_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets the key, and waits until no file and no region is left after the test."""
    monkeypatch.setenv("VLCLIP_SHARED_MEMORY_KEY", server.shared_memory_key)
    yield
    until(lambda: not files(os.getpid()) and not regions(server))


def test_items_in_shared_memory(server: Server, truth: Embeddings, twin: Twin, clean_up: None) -> None:
    photos = [encode(picture(seed=n)) for n in range(6)]
    with twin(server.grpc_url, shared_memory="system") as client:
        assert_same(client.embed_texts(TEXTS), truth)
        assert_same(client.embed_texts(iter(TEXTS)), truth)
        found = client.embed_images(photos, "mug")
        assert any(name.startswith(f"vlclip-{os.getpid()}-") for name in regions(server))
    with twin(server.grpc_url) as client:
        expected = client.embed_images(photos, "mug")
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
    np.testing.assert_allclose(found.box_xyxy, expected.box_xyxy, atol=1e-2)


def test_shared_memory_of_a_client_that_was_killed(server: Server, clean_up: None) -> None:
    program = f"""
import vlclip
client = vlclip.Client({server.grpc_url!r}, shared_memory="system")
client.embed_texts("a red mug")
print("ready", flush=True)
input()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])},
    )
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    assert len(files(child.pid)) == len(regions(server)) == 1
    child.kill()
    child.communicate()
    until(lambda: not files(child.pid) and not regions(server))


def test_shared_memory_after_a_fork(server: Server, truth: Embeddings, clean_up: None, tmp_path: Path) -> None:
    """The child has its own region: in the parent's, each would overwrite what the server still reads for the other."""
    program = f"""
import os, sys
import numpy as np
import vlclip
texts = {TEXTS[:20]!r}
client = vlclip.Client({server.grpc_url!r}, shared_memory="system")
client.embed_texts(texts)
child = os.fork()
mine = texts[::-1] if child else texts
for _ in range(20):
    found = client.embed_texts(mine).embedding
np.save(sys.argv[1] + ("/parent.npy" if child else "/child.npy"), found[::-1] if child else found)
if child == 0:
    sys.stdout.write("child\\n")
    sys.stdout.flush()
    sys.stdin.readline()
    client.close()
    os._exit(0)
os.wait()
client.embed_texts(texts)
print("parent", flush=True)
os.read(0, 1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])},
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == b"child\n"
    assert len(regions(server)) == 2
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"parent\n"
    assert len(files(process.pid)) == len(regions(server)) == 1
    for name in ("parent", "child"):
        assert (np.load(tmp_path / f"{name}.npy") * truth[:20]).sum(axis=1).min() > 0.99999
    process.kill()
    process.communicate()
    until(lambda: not files(process.pid) and not regions(server))


def test_shared_memory_of_a_client_that_was_closed_in_a_call(server: Server, clean_up: None) -> None:
    client = vlclip.Client(server.grpc_url, shared_memory="system")

    def texts() -> Iterator[str]:
        yield from TEXTS * 2
        client.close()  # while batches are in flight
        yield from TEXTS * 2

    with pytest.raises(vlclip.ClosedError):
        client.embed_texts(texts())


def test_a_server_that_has_forgotten_the_region(server: Server, truth: Embeddings, twin: Twin, clean_up: None) -> None:
    """As after a restart."""
    with twin(server.grpc_url, shared_memory="system") as client:
        client.embed_texts("a red mug")
        with triton.InferenceServerClient(server.grpc_url) as other:
            other.unregister_system_shared_memory(headers=key_of(server))
        assert_same(client.embed_texts(TEXTS), truth)


def test_shared_memory_requires_the_key(server: Server, twin: Twin) -> None:
    with (
        twin(server.grpc_url, shared_memory="system") as client,
        pytest.raises(vlclip.AccessError, match=r"restricted.*: set VLCLIP_SHARED_MEMORY_KEY to it"),
    ):
        client.embed_texts("mug")
    assert not files(os.getpid())
