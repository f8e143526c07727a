"""A candidate beside what is served: what differs is measured, judged, and let through or not."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.canary import (
    Answers,
    CanaryError,
    Figure,
    Limits,
    compare,
    main,
    nearest,
    neighbours,
    overlaps,
    read_photos,
)
from export.__main__ import main as export
from export.install import main as install
from export.place import put_in_place, staging
from serving.paths import REPOSITORIES
from serving.repository.manifest import ARTEFACTS, read_served, require_version
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.pictures import encode, picture

ROOT = Path(__file__).resolve().parents[2]
N, D = 200, 16
SECONDS = 60
"""More than a busy machine takes for anything here."""


def units(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def answers() -> Answers:
    return Answers(
        embedding=units(N, 0),
        box_xyxy=np.tile([10.0, 10, 50, 50], (N, 1)),
        score=np.full(N, 0.5),
        status=np.zeros(N, np.int32),
        whole=units(N, 1),
        text=units(20, 2),
        seconds=np.full(N, 0.03),
    )


def failures(figures: list[Figure]) -> list[str]:
    return [figure.name for figure in figures if not figure.keeps]


def noisy(rows: np.ndarray, amount: float) -> np.ndarray:
    rows = rows + amount * np.random.default_rng(9).normal(size=rows.shape) / np.sqrt(D)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned(rows: np.ndarray) -> np.ndarray:
    """The same rows in another space: every cosine among them is as it was."""
    return rows @ np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0]


def in_another_space(answers: Answers, **changes: Any) -> Answers:
    moved = {name: turned(getattr(answers, name)) for name in ("embedding", "whole", "text")}
    return replace(answers, **{**moved, **changes})


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"embedding": noisy(units(N, 0), 0.05)}, [], id="rounding"),
        pytest.param({"embedding": noisy(units(N, 0), 0.5)}, ["cosine product_image"], id="noise"),
        pytest.param({"whole": units(N, 5)}, ["cosine whole_image"], id="whole images are others"),
        pytest.param({"text": units(20, 5)}, ["cosine product_text"], id="texts are others"),
        pytest.param(
            {"status": np.arange(N, dtype=np.int32) % 20 == 0}, ["changed status"], id="a twentieth ungrounded"
        ),
        pytest.param({"box_xyxy": np.tile([10.0, 10, 50, 40], (N, 1))}, ["box IoU"], id="boxes shrink"),
        pytest.param({"score": np.full(N, 0.4)}, ["score shift"], id="scores sink"),
        pytest.param({"seconds": np.full(N, 0.06)}, ["median latency"], id="slower"),
    ],
)
def test_each_figure_has_its_limit(answers: Answers, change: dict[str, Any], failed: list[str]) -> None:
    assert failures(compare(answers, replace(answers, **change), same_encoder=True, limits=Limits())) == failed


def test_another_encoder_is_judged_by_neighbours_and_not_by_cosine(answers: Answers) -> None:
    limits = Limits(min_overlap=0.3)
    figures = compare(answers, in_another_space(answers), same_encoder=False, limits=limits)
    assert failures(figures) == []
    assert not [figure for figure in figures if "cosine" in figure.name]
    noise = in_another_space(answers, embedding=units(N, 7))
    failed = failures(compare(answers, noise, same_encoder=False, limits=limits))
    assert failed == ["neighbours photo to photos", "neighbours text to photos"]
    assert "cosine product_image" in failures(compare(answers, in_another_space(answers), True, Limits()))


def test_another_encoder_must_find_drawn_photos_by_their_texts(answers: Answers) -> None:
    """Where every photo has a text of its own."""
    found = replace(answers, text=answers.embedding)
    lost = found.text.copy()
    lost[:30] = lost[30:60]
    for text, failed in ((found.text, []), (lost, ["own photo found first"])):
        new = in_another_space(found, text=turned(text))
        assert failures(compare(found, new, same_encoder=False, limits=Limits())) == failed


def test_photos_that_nobody_can_decode_pass_no_judgement(answers: Answers) -> None:
    nothing = replace(answers, status=np.full(N, 2), embedding=np.zeros((N, D)), whole=np.zeros((N, D)))
    figures = compare(nothing, nothing, same_encoder=True, limits=Limits())
    assert {"cosine product_image", "score shift"} <= set(failures(figures))
    figures = compare(nothing, nothing, same_encoder=False, limits=Limits(min_overlap=0.1))
    assert {"neighbours photo to photos", "score shift"} <= set(failures(figures))


def test_statuses_that_changed_are_told(answers: Answers) -> None:
    status = answers.status.copy()
    status[:3] = 1
    figures = compare(answers, replace(answers, status=status), same_encoder=True, limits=Limits())
    told = [figure.text.split() for figure in figures if "->" in figure.text]
    assert told == [["197", "grounded", "->", "grounded"], ["3", "grounded", "->", "whole_image"]]


def test_neighbours_leave_the_photo_itself_out() -> None:
    line = np.array([[1.0, 0], [0.9, 0.1], [0, 1.0]])
    assert neighbours(line)[:, 0].tolist() == [1, 0, 1]
    assert nearest(line[:1], line).tolist() == [[0, 1, 2]]
    assert overlaps(np.array([[1, 2]]), np.array([[2, 3]])) == 0.5
    assert np.isnan(overlaps(np.zeros((0, 0)), np.zeros((0, 0))))


def permute_channels(graph: onnx.ModelProto) -> None:
    """Blue comes where red is expected."""
    turn = numpy_helper.from_array(np.array([2, 1, 0]), "blue_green_red")
    graph.graph.initializer.append(turn)
    for node in graph.graph.node:
        node.input[:] = ["turned" if name == "PIXELS" else name for name in node.input]
    graph.graph.node.insert(0, helper.make_node("Gather", ["PIXELS", "blue_green_red"], ["turned"], axis=1))


def stage(repository: Path, version: int, broken: bool = False, **request: Any) -> None:
    """The mini models once more, as an export would stage them; broken, the image encoder confuses red and blue."""
    old = require_version(repository, 1)
    leaves = dict(old.leaves)
    with staging(repository) as staged:
        for leaf in leaves:
            (staged / leaf).mkdir()
            shutil.copy2(old.file_in(repository, leaf), staged / leaf)
        if broken:
            file = staged / "encode_image" / "model.onnx"
            graph = onnx.load(file)
            permute_channels(graph)
            onnx.save(graph, file)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            leaves["encode_image"] = replace(leaves["encode_image"], sha256=digest)
        manifest = replace(old, version=version, leaves=leaves, request=replace(old.request, **request))
        put_in_place(staged, repository, manifest, serve=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1, which is served, the same as 2, a broken one as 3, and as 4 one that says it is of another encoder."""
    folder = tmp_path_factory.mktemp("canary") / "models"
    assert install(["--out", str(folder)]) == 0
    stage(folder, 2)
    stage(folder, 3, broken=True)
    stage(folder, 4, encoder={"model": "another"})
    return folder


def test_what_cannot_be_compared_is_said(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*options: str) -> str:
        assert main([f"--model-repository={repository}", *options]) == 2
        return capsys.readouterr().err

    assert "version 1 is the one that is served: choose another" in refusal("--version=1")
    assert "holds no complete version 9, only 1, 2, 3, 4" in refusal("--version=9")
    assert "different encoders: say with --min-overlap" in refusal("--version=4")
    assert "no photos in" in refusal("--version=3", f"--photos={repository.parent / 'no'}", "--type=mug")
    assert main(["--version=2", f"--model-repository={repository.parent}"]) == 2
    assert "serves no version to compare with: run `make models`" in capsys.readouterr().err


def test_a_broken_version_is_flagged_and_a_good_one_promoted_and_taken_back(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait_for(version: int) -> None:
        deadline = time.monotonic() + SECONDS
        while {stub.version for stub in find_stubs(server.shm_prefix) if stub.model in ARTEFACTS} != {version}:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with Server.start([repository, REPOSITORIES[1]]) as server:
        options = [f"--model-repository={repository}", f"--url={server.grpc_url}", "--count=12", "--max-latency=100"]
        command = [sys.executable, "-m", "benchmarks.canary", "--version=3", "--promote", *options]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 1, ended.stderr
        assert "version 3 against version 1, 12 photos" in ended.stdout
        assert "Version 3 should not be served: cosine product_image is " in ended.stdout
        assert read_served(repository) == require_version(repository, 1)

        assert main(["--version=2", "--promote", *options]) == 0
        told = capsys.readouterr().out
        assert "FAIL" not in told
        assert "min 1.0000" in told
        assert "now serves version 2" in told
        wait_for(2)
        assert export(["use", "--version=1", f"--out={repository}"]) == 0
        wait_for(1)


def test_photos_come_from_a_folder(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.JPG").write_bytes(encode(picture(seed=i), "JPEG"))
    photos = read_photos(tmp_path, "mug")
    assert (len(photos.files), set(photos.product_types), photos.texts) == (6, {"mug"}, ["mug"])
    (tmp_path / "0.JPG").unlink()
    with pytest.raises(CanaryError, match=r"5 photos in .*at least 6"):
        read_photos(tmp_path, "mug")
