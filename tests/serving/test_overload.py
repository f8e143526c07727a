"""More than the server can do: the excess is refused at once, the rest is answered, and nothing hangs.

The slow model sleeps, so that the capacity is known and the machine is not what is measured.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.overload import measure
from serving.repository.specs import LEAVES
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.pictures import encode, picture
from vlclip import AsyncClient, Client, OverloadedError, RequestError

SECONDS_PER_ITEM = 0.02
CAPACITY = 1 / SECONDS_PER_ITEM
PHOTO = encode(picture(), "JPEG")
ASK = {"embed_images": (PHOTO, "mug"), "embed_texts": ("mug",)}
SLOW = {"embed_images": "detect", "embed_texts": "encode_text"}
SLOW_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(one, "INPUT").as_numpy()) for one in requests]

    def answer(self, array):
        time.sleep(SECONDS * len(array))
        outputs = {"CANVAS_BOX": [0, 0, 9, 9], "SCORE": [0.9], "EMBEDDING": [1, 0, 0]}
        rows = {name: np.full((len(array), len(outputs[name])), outputs[name], np.float32) for name in OUTPUTS}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in rows.items()])
"""


def slow_down(repository: Path, leaf: str) -> None:
    """Put a model that sleeps into the place of a leaf's graph."""
    code = SLOW_MODEL.replace("SECONDS", str(SECONDS_PER_ITEM)).replace('"INPUT"', repr(LEAVES[leaf].inputs[0].name))
    code = code.replace("OUTPUTS", repr([tensor.name for tensor in LEAVES[leaf].outputs]))
    (repository / leaf / "1" / "model.onnx").unlink()
    (repository / leaf / "1" / "model.py").write_text(code)


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models, ensembles = toy_repositories
    slow = tmp_path_factory.mktemp("slow") / "models"
    shutil.copytree(models, slow)
    for leaf in SLOW.values():
        slow_down(slow, leaf)
    for first in ("decode", "tokenize"):
        config = slow / first / "config.pbtxt"
        config.write_text(re.sub(r'(max_wait_seconds.*string_value: )"[^"]*"', r'\1"0.5"', config.read_text()))
    with Server.start([slow, ensembles]) as server:
        yield server


class Answer(NamedTuple):
    took: float
    error: RequestError | None


def load(server: Server, method: str, rate: float, seconds: float) -> list[Answer]:
    """Send at a steady rate, whether or not answers come."""

    async def send(client: AsyncClient, at: float) -> Answer:
        await asyncio.sleep(at - time.monotonic())
        try:
            await getattr(client, method)(*ASK[method], timeout=10)
        except RequestError as error:
            return Answer(time.monotonic() - at, error)
        return Answer(time.monotonic() - at, None)

    async def run() -> list[Answer]:
        async with AsyncClient(server.grpc_url, retry=None) as client:
            begin = time.monotonic() + 0.1
            return await asyncio.gather(*(send(client, begin + i / rate) for i in range(int(rate * seconds))))

    return asyncio.run(run())


@pytest.mark.parametrize("method", ASK)
def test_excess_is_refused_at_once_and_the_rest_is_answered(server: Server, method: str) -> None:
    answers = load(server, method, 3 * CAPACITY, 3)
    answered = [answer.took for answer in answers if not answer.error]
    refused = [answer.took for answer in answers if answer.error]
    assert {type(answer.error) for answer in answers if answer.error} == {OverloadedError}
    assert len(answered) > 0.8 * 3 * CAPACITY
    assert max(answered) < 3
    assert np.median(refused) < 0.05
    error = next(answer.error for answer in answers if answer.error)
    assert error.code is not None
    assert error.code.name == "UNAVAILABLE"
    assert "s of work are waiting, 0.5 s at most: try again later" in str(error)


def test_what_the_server_can_do_is_not_refused(server: Server) -> None:
    assert not [answer.error for answer in load(server, "embed_images", 0.7 * CAPACITY, 2) if answer.error]


def test_full_batch_is_accepted_when_nothing_waits(server: Server) -> None:
    with Client(server.grpc_url, retry=None) as client:
        assert len(client.embed_images([PHOTO] * 64, "mug")) == 64


@pytest.mark.slow
def test_bulk_calls_are_completed_by_and_by(server: Server) -> None:
    """Three at once, with more on their way than is accepted."""

    async def run() -> list[int]:
        async with AsyncClient(server.grpc_url) as client:

            async def count() -> int:
                return sum([len(part) async for part in client.stream.embed_images([PHOTO] * 80, "mug")])

            return await asyncio.gather(*(count() for _ in range(3)))

    assert asyncio.run(run()) == [80] * 3


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ["decode", "detect"])
def test_a_process_killed_under_overload_is_mended_and_leaves_no_work_behind(server: Server, leaf: str) -> None:
    """Being refused, the watch does not take for a reason to start Triton anew."""
    triton = server.pid
    with ThreadPoolExecutor() as threads:
        overload = threads.submit(load, server, "embed_images", 2 * CAPACITY, 3)
        time.sleep(1)
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == leaf), signal.SIGKILL)
        overload.result()
    with Client(server.grpc_url, timeout=20) as client:
        client.embed_images(PHOTO, "mug")
    assert not [answer.error for answer in load(server, "embed_images", 0.5 * CAPACITY, 2) if answer.error]
    assert server.pid == triton


@pytest.mark.slow
def test_goodput_at_twice_the_capacity() -> None:
    """Of the exported models, on a machine that does nothing else."""
    with Server.start() as server:
        report = asyncio.run(measure(server.grpc_url, server, [0.8, 1.0, 2.0], seconds=20, deadline=4))
    *_, twice = report["steps"]
    assert twice["of_peak"] >= 0.8
    assert twice["refused_ms"]["p99"] <= 50
    assert twice["recovery_s"] < 1
    before, after = twice["resident_mb"]
    assert after < before + 100
