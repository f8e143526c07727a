"""Another version comes into the repository of a server at work, and goes again: nobody notices but by the answers."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main
from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.manifest import ARTEFACTS, Leaf, read_manifests, read_served
from serving.repository.profiles import read_config
from serving.repository.view import View, at_version
from serving.server.server import Server, find_hindrance
from serving.server.stubs import find_stubs
from tests import toys
from tests.pictures import encode, picture
from vlclip import Client, VlclipError

MODELS, ENSEMBLES = REPOSITORIES
PHOTO = encode(picture(), "JPEG")
SECONDS = 60
"""More than a busy machine takes for anything here."""
REQUESTS = 1000
"""At least, of which none may fail while versions come and go."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Toys of version 1, placed as an export would."""
    models = toys.build(MODELS, tmp_path / "models")
    toys.place_version(models, 1)
    return models


@pytest.fixture
def server(repository: Path) -> Iterator[Server]:
    with Server.start([repository, ENSEMBLES]) as server:
        yield server


def version_of(client: Client) -> int | None:
    """Of one answer; None if more than one version had a hand in it."""
    found = client.embed_images([PHOTO] * 3, ["mug"] * 3)
    for version in (1, 2):
        unit = np.array([1, version, 0]) / np.hypot(1, version)
        if (
            np.allclose(found.score, 0.11 * version)
            and np.allclose(found.box_xyxy, version)
            and np.allclose(found.embedding, unit, atol=1e-6)
        ):
            return version
    return None


def wait_for(client: Client, version: int) -> None:
    deadline = time.monotonic() + SECONDS
    while version_of(client) != version:
        assert time.monotonic() < deadline, f"version {version} is not served"
        time.sleep(0.05)


class Asking(threading.Thread):
    """A client that never rests, and what it got."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self.done = url, threading.Event()
        self.versions: list[int | None] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with Client(self.url, timeout=SECONDS) as client:
                while not self.done.is_set():
                    self.versions.append(version_of(client))
        except Exception as error:
            self.error = error


def is_ready(server: Server, model: str | None = None) -> bool:
    """A pipeline, or the server as a load balancer asks it."""
    connection = http.client.HTTPConnection(server.http_url, timeout=5)
    connection.request("GET", f"/v2/models/{model}/ready" if model else "/v2/health/ready")
    ready = connection.getresponse().status == 200
    connection.close()
    return ready


def read_until(wanted: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What the server reports, up to that."""
    deadline, told = time.monotonic() + SECONDS, ""
    while wanted not in told:
        assert time.monotonic() < deadline, f"{wanted!r} is not in {told!r}"
        time.sleep(0.05)
        told += capfd.readouterr().err
    return told


def test_there_and_back_without_a_failed_or_a_mixed_answer(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clients = [Asking(server.grpc_url) for _ in range(6)]
    readiness = []
    with Client(server.grpc_url, timeout=SECONDS) as client:
        for asking in clients:
            asking.start()
        wait_for(client, 1)
        toys.place_version(repository, 2)
        deadline = time.monotonic() + SECONDS
        while version_of(client) != 2 and time.monotonic() < deadline:
            readiness += [is_ready(server, pipeline) for pipeline in (None, *server.pipelines)]
        told = read_until("version 2 is served", capfd)
        assert main(["use", "--version", "1", "--out", str(repository)]) == 0
        wait_for(client, 1)
        told += read_until("version 1 is served", capfd)
        while sum(len(asking.versions) for asking in clients) < REQUESTS and not any(
            asking.error for asking in clients
        ):
            time.sleep(0.05)
    for asking in clients:
        asking.done.set()
        asking.join()
    assert [asking.error for asking in clients] == [None] * 6
    for asking in clients:
        assert [version for version, _ in groupby(asking.versions)] == [1, 2, 1]
    assert readiness
    assert all(readiness)
    assert "died" not in told


def test_the_old_version_is_let_go_and_a_killed_process_of_the_new_is_mended(server: Server, repository: Path) -> None:
    toys.place_version(repository, 2)
    with Client(server.grpc_url, timeout=SECONDS) as client:
        wait_for(client, 2)
        deadline = time.monotonic() + SECONDS
        while {stub.version for stub in find_stubs(server.shm_prefix) if stub.model in ARTEFACTS} != {2}:
            assert time.monotonic() < deadline, "version 1 is still loaded"
            time.sleep(0.05)
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "detect"), signal.SIGKILL)
        assert eventually(client) == 2
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        while server.pid == pid:
            time.sleep(0.05)
        assert eventually(client) == 2


def eventually(client: Client) -> int | None:
    """The version of the first answer."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return version_of(client)
        except VlclipError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_version_that_does_not_load_changes_nothing_and_stands_in_no_ones_way(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.place_version(repository, 2, broken="detect")
    told = ""
    with Client(server.grpc_url, timeout=SECONDS) as client:
        deadline = time.monotonic() + SECONDS
        while "version 2 is not served" not in told:
            assert version_of(client) == 1
            assert time.monotonic() < deadline
            told += capfd.readouterr().err
    assert "version 1 goes on" in told
    assert "Protobuf" in told
    assert main(["use", "--version", "1", "--out", str(repository)]) == 0
    with Server.start([repository, ENSEMBLES]) as again, Client(again.grpc_url) as client:
        assert version_of(client) == 1


def test_a_stop_in_the_middle_is_a_stop(server: Server, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toys.place_version(repository, 2)
    read_until("loading version 2", capfd)
    server.stop()
    assert "anew" not in capfd.readouterr().err
    assert not find_stubs(server.shm_prefix)


def test_what_is_replaced_in_place_is_served_as_a_whole_after_a_restart(
    server: Server, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.place_version(repository, 1, pretend=2)
    told = ""
    with Client(server.grpc_url, timeout=SECONDS) as client:
        deadline = time.monotonic() + SECONDS
        while "version 1 of the repository is served after a restart only" not in told:
            assert version_of(client) == 1
            assert time.monotonic() < deadline
            told += capfd.readouterr().err
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "crop"), signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while (version := eventually(client)) != 2:
            assert version == 1
            assert time.monotonic() < deadline


def test_an_export_that_was_cut_off_is_not_started(repository: Path) -> None:
    (repository / "manifest-1.json").unlink()
    assert read_served(repository) is None
    with pytest.raises(SetupError, match="an export was interrupted: run it again"):
        Server.start([repository, ENSEMBLES])


def test_formats_cannot_stand_side_by_side() -> None:
    onnx = toys.make_manifest(1, {"detect": Leaf("model.onnx", "", 0, {})})
    plan = toys.make_manifest(2, {"detect": Leaf("model.plan", "", 0, {})})
    assert "format" in (find_hindrance(onnx, plan, None) or "")
    assert "anew" in (find_hindrance(onnx, replace(onnx, version=2), onnx) or "")
    assert find_hindrance(onnx, replace(onnx, version=2), None) is None


def test_versions_are_written_into_the_configs_of_what_was_exported(tmp_path: Path) -> None:
    (tmp_path / "detect.pbtxt").write_text("default_model_filename: 'other'")
    manifest = toys.make_manifest(7, {"detect": Leaf("model.plan", "", 0, {})})
    config = read_config(MODELS / "detect", profile=tmp_path)
    assert config.default_model_filename == "other"
    assert at_version(config, None) == config
    leaf = at_version(config, manifest, beside=[3])
    assert list(leaf.version_policy.specific.versions) == [3, 7]
    assert not leaf.backend
    steps = at_version(read_config(ENSEMBLES / "ground"), manifest).ensemble_scheduling.step
    assert {step.model_name: step.model_version for step in steps} == {
        "decode": -1,
        "tokenize_prompt": -1,
        "encode_prompt": -1,
        "detect": 7,
        "crop": -1,
        "observe": -1,
    }


def test_the_view_holds_the_versions_that_are_to_be_seen(repository: Path, tmp_path: Path) -> None:
    toys.place_version(repository, 2)
    one, two = read_manifests(repository)
    view = View(tmp_path / "view", [repository, ENSEMBLES])
    for manifest, beside, seen in ((one, (), ["1"]), (two, (1,), ["1", "2"]), (two, (), ["2"])):
        for model in view.models:
            view.write(model, manifest, beside)
        assert sorted(path.name for path in (view.folder / "detect").iterdir()) == [*seen, "config.pbtxt"]
        assert (view.folder / "detect" / seen[-1] / "model.onnx").is_file()
        assert (view.folder / "decode" / "1" / "model.py").is_file()
