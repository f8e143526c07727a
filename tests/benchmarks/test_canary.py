"""The canary lets a good version through, stops a broken one, and says why it cannot compare."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.canary import CanaryError, main, read_photos
from export.__main__ import main as export
from export.install import main as install
from export.place import put_in_place, staging
from serving.paths import REPOSITORIES, ROOT
from serving.repository.manifest import ARTEFACTS, read_served, require_version
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.asking import until
from tests.pictures import encode, picture


def swap_red_and_blue(graph: onnx.ModelProto) -> None:
    order = numpy_helper.from_array(np.array([2, 1, 0]), "blue_green_red")
    graph.graph.initializer.append(order)
    for node in graph.graph.node:
        node.input[:] = ["swapped" if name == "PIXELS" else name for name in node.input]
    graph.graph.node.insert(0, helper.make_node("Gather", ["PIXELS", "blue_green_red"], ["swapped"], axis=1))


def stage(repository: Path, version: int, broken: bool = False, **digests: str) -> None:
    """Stage the mini models again, as an export does; if ``broken``, with red and blue swapped in the image encoder."""
    old = require_version(repository, 1)
    leaves = dict(old.leaves)
    with staging(repository) as staged:
        for leaf in leaves:
            (staged / leaf).mkdir()
            shutil.copy2(old.file_in(repository, leaf), staged / leaf)
        if broken:
            file = staged / "encode_image" / "model.onnx"
            graph = onnx.load(file)
            swap_red_and_blue(graph)
            onnx.save(graph, file)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            leaves["encode_image"] = replace(leaves["encode_image"], sha256=digest)
        manifest = replace(old, version=version, leaves=leaves, digests={**old.digests, **digests})
        put_in_place(staged, repository, manifest, serve=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is served, 2 is the same, 3 is broken, and 4 claims to have another encoder."""
    folder = tmp_path_factory.mktemp("canary") / "models"
    assert install(["--out", str(folder)]) == 0
    stage(folder, 2)
    stage(folder, 3, broken=True)
    stage(folder, 4, encoder="000000ff")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--version=1"], "version 1 is the served one: choose another"),
        (["--version=9"], "holds no complete version 9, only 1, 2, 3, 4"),
        (["--version=4"], "different encoders: give --min-overlap"),
        (["--version=3", "--photos=/no/such/folder"], "there is no folder or table /no/such/folder"),
        (["--version=2", "--model-repository=/no/such/folder"], "serves no version to compare with: run `make models`"),
    ],
)
def test_the_message_says_why_nothing_is_compared(
    repository: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--model-repository={repository}", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_version_is_stopped_and_a_good_one_is_promoted_and_rolled_back(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def served() -> set[int]:
        return {stub.version for stub in find_stubs(server.shm_prefix) if stub.model in ARTEFACTS}

    with Server.start([repository, REPOSITORIES[1]]) as server:
        options = [f"--model-repository={repository}", f"--url={server.grpc_url}", "--count=12", "--max-latency=100"]
        command = [sys.executable, "-m", "benchmarks.canary", "--version=3", "--promote", *options]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 1, ended.stderr
        assert "version 3 compared with version 1, 12 photos" in ended.stdout
        assert "Version 3 is not within the limits: cosine product_image is " in ended.stdout
        assert read_served(repository) == require_version(repository, 1)

        assert main(["--version=2", "--promote", *options]) == 0
        output = capsys.readouterr().out
        assert "FAIL" not in output
        assert "min 1.0000" in output
        assert "now serves version 2" in output
        until(lambda: served() == {2})
        assert export(["use", "--version=1", f"--out={repository}"]) == 0
        until(lambda: served() == {1})


def test_photos_come_from_a_folder(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.JPG").write_bytes(encode(picture(seed=i), "JPEG"))
    photos = read_photos(tmp_path, "mug")
    assert (len(photos.files), set(photos.product_types), photos.texts) == (6, {"mug"}, ["mug"])
    (tmp_path / "0.JPG").unlink()
    with pytest.raises(CanaryError, match=r"5 photos in .*at least 6"):
        read_photos(tmp_path, "mug")
