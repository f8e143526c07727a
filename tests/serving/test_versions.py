"""A running server switches to another version and back: only the answers change."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tritonclient.grpc

from export.__main__ import main
from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.manifest import ARTEFACTS, Leaf, read_served
from serving.repository.versions import version_of as names_of
from serving.server.server import Server
from serving.server.stubs import find_stubs
from serving.server.switch import find_obstacle
from tests import toys
from tests.asking import SECONDS, read_until, until
from tests.pictures import PHOTO
from vlclip import Client, VlclipError

MODELS, ENSEMBLES = REPOSITORIES
REQUESTS = 1000
"""The least number of requests during the switches, of which none may fail."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Toys of version 1, as an export would leave them."""
    models = toys.build(MODELS, tmp_path / "models")
    toys.place_version(models, 1)
    return models


@pytest.fixture
def server(repository: Path) -> Iterator[Server]:
    with Server.start([repository, ENSEMBLES]) as server:
        yield server


def version_of(client: Client) -> int | None:
    """The version that gave an answer; None if it is a mix of versions."""
    found = client.embed_images([PHOTO] * 3, ["mug"] * 3)
    for version in (1, 2):
        unit = np.array([1, version, 0]) / np.hypot(1, version)
        if (
            np.allclose(found.score, 0.11 * version)
            and np.allclose(found.box_xyxy, version)
            and np.allclose(found.embedding, unit, atol=1e-6)
            and set(found.version) == {names_of("product_image", toys.digests(version))}
        ):
            return version
    return None


def wait_for(client: Client, version: int) -> None:
    until(lambda: version_of(client) == version)


def send_until(done: Event, url: str, versions: list[int | None]) -> None:
    """Send one request after the other, and add the versions that answer."""
    with Client(url, timeout=SECONDS) as client:
        while not done.is_set():
            versions.append(version_of(client))


def test_switching_there_and_back_fails_no_request_and_mixes_no_answer(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done, readiness = Event(), []
    answers: list[list[int | None]] = [[] for _ in range(6)]
    with (
        Client(server.grpc_url, timeout=SECONDS) as client,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton,
        ThreadPoolExecutor(6) as threads,
    ):
        senders = [threads.submit(send_until, done, server.grpc_url, versions) for versions in answers]
        try:
            wait_for(client, 1)
            toys.place_version(repository, 2)
            is_switched = False
            while not is_switched:
                is_switched = version_of(client) == 2
                readiness += [triton.is_server_ready(), *map(triton.is_model_ready, server.pipelines)]
            reports = read_until("version 2 is served", capfd)
            for model in client.models():
                assert model.version == names_of(model.name, toys.digests(2))
                assert model.label == "version 2: toy + toy, fp32"
            assert main(["use", "--version", "1", "--out", str(repository)]) == 0
            wait_for(client, 1)
            reports += read_until("version 1 is served", capfd)
            until(lambda: sum(map(len, answers)) >= REQUESTS or any(sender.done() for sender in senders))
        finally:
            done.set()
    for sender, versions in zip(senders, answers, strict=True):
        sender.result()
        assert [version for version, _ in groupby(versions)] == [1, 2, 1]
    assert readiness
    assert all(readiness)
    assert "died" not in reports


def test_the_old_version_is_unloaded_and_a_killed_process_of_the_new_one_replaced(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.place_version(repository, 2)
    with Client(server.grpc_url, timeout=SECONDS) as client:
        wait_for(client, 2)
        until(lambda: {stub.version for stub in find_stubs(server.shm_prefix) if stub.model in ARTEFACTS} == {2})
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "detect"), signal.SIGKILL)
        assert eventually(client) == 2
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.pid != pid)
        assert eventually(client) == 2
        (repository / "detect" / "2" / "model.onnx").write_bytes(b"broken")
        os.kill(server.pid, signal.SIGKILL)
        read_until("Triton is started again in", capfd)
        assert main(["use", "--version", "1", "--out", str(repository)]) == 0
        assert eventually(client) == 1


def eventually(client: Client) -> int | None:
    """The version of the first answer."""
    versions: list[int | None] = []

    def is_answered() -> bool:
        with suppress(VlclipError):
            versions.append(version_of(client))
        return bool(versions)

    until(is_answered)
    return versions[0]


def test_a_version_that_does_not_load_changes_nothing(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.place_version(repository, 2, broken="detect")
    with Client(server.grpc_url, timeout=SECONDS) as client:
        reports = read_until("version 1 is still served; version 2 is not", capfd)
        assert version_of(client) == 1
    assert "Protobuf" in reports
    assert main(["use", "--version", "1", "--out", str(repository)]) == 0
    with Server.start([repository, ENSEMBLES]) as again, Client(again.grpc_url) as client:
        assert version_of(client) == 1


def test_a_server_stops_while_it_switches(server: Server, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toys.place_version(repository, 2)
    read_until("loading version 2", capfd)
    server.stop()
    assert "restarting" not in capfd.readouterr().err
    assert not find_stubs(server.shm_prefix)


def test_a_version_that_is_exported_again_is_served_after_a_restart(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.place_version(repository, 1, pretend=2)
    with Client(server.grpc_url, timeout=SECONDS) as client:
        read_until("version 1 of the repository is served after a restart only", capfd)
        assert version_of(client) == 1
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "crop"), signal.SIGKILL)
        until(lambda: eventually(client) == 2)


def test_an_incomplete_export_is_not_served(repository: Path) -> None:
    (repository / "manifest-1.json").unlink()
    assert read_served(repository) is None
    with pytest.raises(SetupError, match="an export was interrupted: run it again"):
        Server.start([repository, ENSEMBLES])


def test_another_format_needs_a_restart() -> None:
    onnx = toys.make_manifest(1, {"detect": Leaf("", 0, {}, "model.onnx")})
    plan = toys.make_manifest(2, {"detect": Leaf("", 0, {}, "model.plan")})
    assert "format" in (find_obstacle(onnx, plan, None) or "")
    assert "again" in (find_obstacle(onnx, replace(onnx, version=2), onnx) or "")
    assert find_obstacle(onnx, replace(onnx, version=2), None) is None
