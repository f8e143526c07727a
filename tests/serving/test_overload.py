"""A server with more requests than it can answer: it refuses some at once, answers the others, and never hangs.

The slow models sleep, so on every machine more requests wait than the server accepts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from serving.repository.specs import LEAVES
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.asking import SECONDS, until
from tests.pictures import PHOTO
from tests.toys import Gate
from vlclip import AsyncClient, Client, OverloadedError, RequestError

SECONDS_PER_ITEM = 0.02
MAX_WAIT_SECONDS = 0.5
SENDERS = 100
"""Together they have 2 s of work for the slow models at any time."""
ARGUMENTS = {"embed_images": (PHOTO, "mug"), "embed_texts": ("mug",)}
SLOW = {"embed_images": "detect", "embed_texts": "encode_text"}
SLOW_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        pass

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(one, "INPUT").as_numpy()) for one in requests]

    def answer(self, array):
        time.sleep(SECONDS * len(array))
        floats = {"CANVAS_BOX": [0, 0, 9, 9], "SCORE": [0.9], "EMBEDDING": [1, 0, 0]}
        outputs = {name: np.array([row], np.float32) for name, row in floats.items()}
        outputs["VERSION"] = np.ones((1, 4), np.int32)
        rows = {name: np.repeat(outputs[name], len(array), axis=0) for name in OUTPUTS}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in rows.items()])
"""


def slow_down(repository: Path, leaf: str) -> None:
    """Replace the graph of a leaf by a model that sleeps."""
    code = SLOW_MODEL.replace("SECONDS", str(SECONDS_PER_ITEM)).replace('"INPUT"', repr(LEAVES[leaf].inputs[0].name))
    code = code.replace("OUTPUTS", repr([tensor.name for tensor in LEAVES[leaf].outputs]))
    (repository / leaf / "1" / "model.onnx").unlink()
    (repository / leaf / "1" / "slow.py").write_text(code)
    (repository / leaf / "1" / "model.py").write_text("from slow import TritonPythonModel as TritonPythonModel\n")


@pytest.fixture(scope="module")
def slow(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    slow = tmp_path_factory.mktemp("slow") / "models"
    shutil.copytree(toy_repositories[0], slow)
    for leaf in SLOW.values():
        slow_down(slow, leaf)
    return slow


@pytest.fixture(scope="module")
def gates(slow: Path) -> dict[str, Gate]:
    return {leaf: Gate(slow, leaf) for leaf in ("decode", "detect")}


@pytest.fixture(scope="module")
def server(slow: Path, gates: dict[str, Gate], toy_repositories: list[Path]) -> Iterator[Server]:
    profile = slow.with_name("impatient")
    profile.mkdir()
    for first in ("tokenize_prompt", "tokenize"):
        limit = f'parameters {{ key: "max_wait_seconds" value: {{ string_value: "{MAX_WAIT_SECONDS}" }} }}'
        (profile / f"{first}.pbtxt").write_text(limit)
    with Server.start([slow, toy_repositories[1]], profile=profile) as server:
        yield server


class Overload:
    """Many senders, each of which sends its next request when it has its answer, and what they got."""

    def __init__(self, server: Server, method: str):
        self.outcomes: Counter[type[RequestError] | None] = Counter()
        self.refusals: list[OverloadedError] = []
        self.done = Event()
        self._server = server
        self._method = method

    async def run(self) -> None:
        async with AsyncClient(self._server.grpc_url, retry=None, timeout=SECONDS) as client:
            await asyncio.gather(*(self._send(client) for _ in range(SENDERS)))

    async def _send(self, client: AsyncClient) -> None:
        while not self.done.is_set():
            try:
                await getattr(client, self._method)(*ARGUMENTS[self._method])
                self.outcomes[None] += 1
            except RequestError as error:
                self.outcomes[type(error)] += 1
                if isinstance(error, OverloadedError):
                    self.refusals.append(error)
                await asyncio.sleep(SECONDS_PER_ITEM)

    def wait_for(self, more: int) -> None:
        """Wait until ``more`` requests were answered, and ``more`` refused."""
        answered, refused = self.outcomes[None] + more, len(self.refusals) + more
        until(lambda: self.outcomes[None] >= answered and len(self.refusals) >= refused)


@contextmanager
def overloaded(server: Server, method: str) -> Iterator[Overload]:
    """The senders send until the end of the block."""
    overload = Overload(server, method)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(asyncio.run, overload.run())
        try:
            yield overload
        finally:
            overload.done.set()
        running.result()


@pytest.mark.parametrize("method", ARGUMENTS)
def test_what_exceeds_the_capacity_is_refused_and_the_rest_is_answered(server: Server, method: str) -> None:
    with overloaded(server, method) as overload:
        overload.wait_for(50)
    assert overload.outcomes.keys() == {None, OverloadedError}
    error = overload.refusals[0]
    assert error.code is not None
    assert error.code.name == "UNAVAILABLE"
    assert f"s of work are waiting, {MAX_WAIT_SECONDS} s at most: try again later" in str(error)


def test_nothing_is_refused_when_nothing_waits(server: Server) -> None:
    with Client(server.grpc_url, retry=None, timeout=SECONDS) as client:
        assert len(client.embed_images([PHOTO] * 64, "mug")) == 64
        for _ in range(20):
            assert len(client.embed_images(PHOTO, "mug")) == 1


@pytest.mark.slow
def test_bulk_calls_are_retried_until_they_are_complete(server: Server) -> None:
    """Three calls at the same time send more than the server accepts."""

    async def run() -> list[int]:
        async with AsyncClient(server.grpc_url) as client:

            async def count() -> int:
                return sum([len(part) async for part in client.stream.embed_images([PHOTO] * 80, "mug")])

            return await asyncio.gather(*(count() for _ in range(3)))

    assert asyncio.run(run()) == [80] * 3


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ["decode", "detect"])
def test_a_process_that_is_killed_under_overload_is_replaced(server: Server, gates: dict[str, Gate], leaf: str) -> None:
    """Without a restart of Triton, although its pipelines refuse requests, and without requests that wait forever.

    The process is killed in its Python code. If it held a lock of Triton's shared memory, Triton would abort after 10 s
    and be restarted: killed_triton in test_serve.py.
    """
    triton = server.pid
    with overloaded(server, "embed_images") as overload:
        overload.wait_for(10)
        with gates[leaf].closed():
            until(gates[leaf].is_reached)
            os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == leaf), signal.SIGKILL)
        until(lambda: overload.outcomes.keys() - {None, OverloadedError})
        overload.wait_for(10)
    until(lambda: is_nothing_refused(server))
    assert server.pid == triton


def is_nothing_refused(server: Server) -> bool:
    """False at first: admission acts on metrics that were read a moment ago, when requests still waited."""
    with suppress(OverloadedError):
        test_nothing_is_refused_when_nothing_waits(server)
        return True
    return False
