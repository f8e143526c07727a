"""A candidate beside what is served: what differs is measured, judged, and let through or not."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploy.canary import (
    Answers,
    CanaryError,
    Figure,
    Limits,
    box_iou,
    compare,
    main,
    nearest,
    neighbours,
    overlaps,
    pin,
    read_photos,
)
from deploy.repositories import REPOSITORIES
from deploy.server import Server
from deploy.stubs import find_stubs
from export.install import main as install
from export.repository import ARTEFACTS, read_manifest, read_served
from tests.pictures import encode, picture

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
        pytest.param(
            {"text": units(20, 5)}, ["cosine product_text", "neighbours text to photos"], id="texts are others"
        ),
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
    figures = compare(answers, in_another_space(answers), same_encoder=False, limits=Limits())
    assert failures(figures) == []
    assert not [figure for figure in figures if "cosine" in figure.name]
    noise = in_another_space(answers, embedding=units(N, 7))
    failed = failures(compare(answers, noise, same_encoder=False, limits=Limits()))
    assert failed == ["neighbours photo to photos", "neighbours text to photos"]
    assert "cosine product_image" in failures(compare(answers, in_another_space(answers), True, Limits()))


def test_photos_that_nobody_can_decode_pass_no_judgement(answers: Answers) -> None:
    nothing = replace(answers, status=np.full(N, 2), embedding=np.zeros((N, D)), whole=np.zeros((N, D)))
    figures = compare(nothing, nothing, same_encoder=True, limits=Limits())
    assert {"cosine product_image", "neighbours photo to photos", "score shift"} <= set(failures(figures))


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


def test_box_iou() -> None:
    box = np.array([[0.0, 0, 2, 2]])
    assert box_iou(box, np.array([[1.0, 0, 3, 2]])).tolist() == pytest.approx([1 / 3])
    assert box_iou(box, np.array([[2.0, 2, 3, 3]])).tolist() == [0]
    assert box_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [0]


def permute_channels(graph: onnx.ModelProto) -> None:
    """Blue comes where red is expected."""
    turn = numpy_helper.from_array(np.array([2, 1, 0]), "blue_green_red")
    graph.graph.initializer.append(turn)
    for node in graph.graph.node:
        node.input[:] = ["turned" if name == "PIXELS" else name for name in node.input]
    graph.graph.node.insert(0, helper.make_node("Gather", ["PIXELS", "blue_green_red"], ["turned"], axis=1))


def place(repository: Path, version: int, broken: bool) -> None:
    """The mini models once more, as another version; broken, the image encoder confuses red and blue."""
    manifest = read_manifest(repository / "manifest-1.json")
    assert manifest
    for leaf in manifest["leaves"]:
        shutil.copytree(repository / leaf / "1", repository / leaf / str(version))
    if broken:
        file = repository / "encode_image" / str(version) / "model.onnx"
        graph = onnx.load(file)
        permute_channels(graph)
        onnx.save(graph, file)
        manifest["leaves"]["encode_image"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (repository / f"manifest-{version}.json").write_text(json.dumps({**manifest, "version": version}))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1, which is served, the same as 2, and a broken one as 3."""
    folder = tmp_path_factory.mktemp("canary") / "models"
    assert install(["--out", str(folder)]) == 0
    place(folder, 2, broken=False)
    place(folder, 3, broken=True)
    return folder


def test_what_cannot_be_compared_is_said(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*options: str) -> str:
        assert main([f"--model-repository={repository}", *options]) == 2
        return capsys.readouterr().err

    assert "version 1 is the one that is served: choose another" in refusal("--version=1")
    assert "holds no complete version 9, only 1, 2, 3" in refusal("--version=9")
    assert "nowhere" in refusal("--version=3", "--against=nowhere")
    other = pin(repository, 2, repository.parent / "other")
    assert "--promote: a version can be switched to in" in refusal("--version=3", f"--against={other}", "--promote")
    assert "0 photos in" in refusal("--version=3", f"--photos={repository.parent / 'no'}", "--type=mug")


def test_a_broken_version_is_flagged_and_a_good_one_promoted(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--model-repository={repository}", "--count=12", "--promote", "--max-latency=100"]
    assert main(["--version=3", *options]) == 1
    told = capsys.readouterr().out
    assert "version 3 against version 1, 12 photos" in told
    assert "Version 3 should not be served: cosine product_image, cosine whole_image" in told
    assert (read_served(repository) or {})["version"] == 1

    with Server.start([repository, REPOSITORIES[1]]) as server:
        assert main(["--version=2", f"--url={server.grpc_url}", *options]) == 0
        told = capsys.readouterr().out
        assert "FAIL" not in told
        assert "min 1.0000" in told
        assert "now serves version 2" in told
        deadline = time.monotonic() + SECONDS
        while {stub.version for stub in find_stubs(server.shm_prefix) if stub.model in ARTEFACTS} != {2}:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_photos_come_from_a_folder(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.JPG").write_bytes(encode(picture(seed=i), "JPEG"))
    photos = read_photos(tmp_path, "mug")
    assert (len(photos.files), set(photos.product_types), photos.texts) == (6, {"mug"}, ["mug"])
    (tmp_path / "0.JPG").unlink()
    with pytest.raises(CanaryError, match=r"5 photos in .*at least 6"):
        read_photos(tmp_path, "mug")
