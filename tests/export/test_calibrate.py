"""``python -m export calibrate`` on packshots of the drawn catalogue, with the shipped mini models."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.__main__ import main
from export.calibrate import auc, choose_threshold
from export.errors import GraphError
from export.in_process import InProcess
from export.install import install
from export.stamp import restamp
from export.threshold import with_threshold
from serving.repository.manifest import ARTEFACTS, read_manifests, read_served, require_version
from serving.repository.versions import EXPORTED, PARTS, version_of, words_of
from tests.export.test_place import snapshot
from training.catalogue.items import draw_item
from training.catalogue.scenes import packshot
from vlclip import Status

TYPES = ("mug", "sofa", "kite", "sneaker")
EACH = 6
MAX_FALSE = 0.1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packshots for each of ``TYPES``."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for kind in TYPES:
        (folder / kind).mkdir()
        for number in range(EACH):
            (folder / kind / f"{number}.jpg").write_bytes(packshot(draw_item(rng, (kind,)), rng).jpeg)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the shipped models."""
    folder = tmp_path_factory.mktemp("installed") / "models"
    install(folder)
    return folder


@pytest.fixture
def out(installed: Path, tmp_path: Path) -> Path:
    """A repository with the shipped models, to change."""
    return Path(shutil.copytree(installed, tmp_path / "models", symlinks=True))


def calibrate(photos: Path, out: Path, *options: str) -> int:
    picture = str(out.parent / "chart.png")
    return main(["calibrate", "--photos", str(photos), "--out", str(out), "--picture", picture, *options])


def test_the_chosen_threshold_is_served_and_does_to_the_photos_what_the_manifest_says(
    photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(out)
    first = require_version(out, 1)
    # Each photo is asked for all types, so that the same questions can be asked again.
    assert calibrate(photos, out, "--max-false", str(MAX_FALSE), "--absent-per-photo", str(len(TYPES))) == 0
    printed = capsys.readouterr().out
    assert "now serves version 2" in printed

    served = read_served(out)
    assert served
    figures = served.calibration
    assert figures
    assert (served.version, served.shipped) == (2, False)
    assert (figures.photos, figures.types) == (len(TYPES) * EACH, len(TYPES))
    assert (figures.present_asked, figures.absent_asked) == (figures.photos, figures.photos * (len(TYPES) - 1))
    assert figures.absent <= MAX_FALSE < figures.present
    assert served.request.settings == replace(first.request.settings, threshold=figures.threshold)
    assert f"{figures.threshold:g}" in printed
    assert (out.parent / "chart.png").stat().st_size > 5000

    files = [file for kind in TYPES for file in sorted((photos / kind).iterdir())]
    shown, asked = [file.parent.name for file in files for _ in TYPES], [*TYPES] * len(files)
    there = np.array([one == other for one, other in zip(shown, asked, strict=True)])
    models = InProcess(out)
    found = models.embed([file.read_bytes() for file in files for _ in TYPES], asked)
    grounded = found["STATUS"][:, 0] == Status.GROUNDED
    np.testing.assert_array_equal(grounded, found["SCORE"][:, 0] >= np.float32(figures.threshold))
    assert grounded[there].mean() == pytest.approx(figures.present)
    assert grounded[~there].mean() == pytest.approx(figures.absent)

    # The answers name another detector, and nothing else that is new.
    assert found["VERSION"].tolist() == [[*words_of(version_of("product_image", served.digests))]] * len(asked)
    assert {part for part in PARTS if served.digests[part] != first.digests[part]} == {"detector"}

    # `make serve` installs the shipped models only if there are no others.
    assert "left as it is" in install(out, if_missing=True)

    # The first version can be served again, and the new one shares all other files with it.
    assert (
        snapshot(out).items() > {name: content for name, content in before.items() if name != "manifest.json"}.items()
    )
    for leaf, name in ARTEFACTS.items():
        same = (out / leaf / "2" / name).read_bytes() == (out / leaf / "1" / name).read_bytes()
        assert same == (leaf not in ("crop", "encode_image"))
    assert main(["show", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"threshold {figures.threshold}\n  mini is a demonstration model" in printed
    assert printed.count(figures.describe()) == 1
    assert main(["use", "--version", "1", "--out", str(out)]) == 0


def test_a_version_that_is_not_served_stays_so_and_words_that_no_photo_shows_are_asked(photos: Path, out: Path) -> None:
    assert calibrate(photos, out, "--absent", "bicycle, piano", "--absent-per-photo", "9", "--force", "--stage") == 0
    assert calibrate(photos, out, "--absent-per-photo", "1", "--force", "--version", "2") == 0
    first, second, third = read_manifests(out)
    assert read_served(out) == first
    assert second.calibration
    assert second.calibration.absent_asked == second.calibration.photos * (len(TYPES) - 1 + 2)
    assert second.digests[EXPORTED] == third.digests[EXPORTED] == first.digests["detector"]


def same_photo(photos: Path) -> None:
    one = (photos / TYPES[0] / "0.jpg").read_bytes()
    for file in photos.glob("*/*.jpg"):
        file.write_bytes(one)


def only_mugs(photos: Path) -> None:
    for kind in TYPES[1:]:
        for file in (photos / kind).iterdir():
            file.rename(photos / TYPES[0] / f"{kind}-{file.name}")
        (photos / kind).rmdir()


def wrong_folders(photos: Path) -> None:
    """A quarter of the photos of each type are in each folder."""
    files = sorted(photos.glob("*/*.jpg"))
    moved = {file: file.read_bytes() for file in files}
    for number, file in enumerate(files):
        (photos / TYPES[number % len(TYPES)] / f"moved-{number}.jpg").write_bytes(moved[file])
        file.unlink()


def no_jpegs(photos: Path) -> None:
    for number, file in enumerate(photos.glob("*/*.jpg")):
        file.write_bytes(b"no photo %d" % number)


def loose(photos: Path) -> None:
    shutil.copy(photos / TYPES[0] / "0.jpg", photos / "0.jpg")


def empty_type(photos: Path) -> None:
    (photos / "lamp").mkdir()


def nothing(photos: Path) -> None:
    shutil.rmtree(photos)


def no_types(photos: Path) -> None:
    shutil.rmtree(photos)
    photos.mkdir()


def unchanged(photos: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("poison", "options", "message"),
    [
        pytest.param(same_photo, [], "at least 20 different photos, got 1", id="the same photo everywhere"),
        pytest.param(no_jpegs, [], r"at least 20 different photos, got 0; 24 could not be decoded", id="no JPEGs"),
        pytest.param(only_mugs, [], "name types that no photo shows with --absent", id="one type"),
        pytest.param(wrong_folders, [], "scores of mini do not separate .*--force writes", id="labels at random"),
        pytest.param(unchanged, ["--max-false", "0.01"], "at least 100, so add photos", id="too few questions"),
        pytest.param(unchanged, ["--max-false", "1"], "--max-false must be a share", id="all may be wrong"),
        pytest.param(unchanged, ["--absent-per-photo", "0"], "--absent-per-photo must be at least 1", id="no absent"),
        pytest.param(unchanged, ["--absent", ","], "names no product type", id="no words"),
        pytest.param(unchanged, ["--version", "7"], "holds no complete version 7, only 1", id="unknown version"),
        pytest.param(loose, [], "holds photos without a product type, such as 0.jpg", id="photos outside of folders"),
        pytest.param(empty_type, [], "lamp holds no photos: expected files ending in", id="a folder without photos"),
        pytest.param(no_types, [], "is empty: expected one subfolder of photos for each product type", id="empty"),
        pytest.param(nothing, [], "there is no folder or file", id="unknown folder"),
    ],
)
def test_photos_that_cannot_calibrate_are_refused_and_the_repository_stays(
    poison: Callable[[Path], None],
    options: list[str],
    message: str,
    photos: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poisoned = tmp_path / "photos"
    shutil.copytree(photos, poisoned)
    poison(poisoned)
    before = snapshot(out)
    assert calibrate(poisoned, out, *options) == 1
    assert snapshot(out) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_tensorrt_plans_are_not_changed(photos: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = require_version(out, 1)
    settings = replace(manifest.request.settings, format="tensorrt")
    plans = replace(manifest, request=replace(manifest.request, settings=settings))
    (out / "manifest-1.json").write_bytes(plans.to_bytes())
    assert calibrate(photos, out) == 1
    assert "export the plans with the --threshold that it gives" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("photos.csv", "path,type\n{mug},mug\n{mug},sofa\n", "different photos, got 1"),
        (
            "photos.csv",
            "file,type\n{mug},mug\n",
            "must have the texts path and type, got file, type",
        ),
        ("photos.csv", "path,type\nmissing.jpg,mug\n", "names .*missing.jpg, which does not exist"),
        ("photos.csv", "path,type\n{mug},\n", "0.jpg has no product type"),
        (
            "photos.jsonl",
            '{{"path": "{mug}", "type": "mug"}}\n\n{{"path": "{kite}", "type": "kite"}}\n',
            "photos, got 2",
        ),
        ("photos.jsonl", '{{"path": "{mug}", "type": 3}}\n', "must have the texts path and type, got path, type"),
        ("photos.jsonl", "[1]\n", "row 1 of .*photos.jsonl must have the texts path and type, got \\[1\\]"),
        ("photos.jsonl", "mug\n", "photos.jsonl is not JSONL"),
        ("photos.txt", "", "neither a folder nor a file ending in .csv or .jsonl"),
    ],
)
def test_tables_name_photos_and_their_types(
    name: str, text: str, message: str, photos: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text.format(mug=photos / "mug/0.jpg", kite=photos / "kite/0.jpg"))
    assert calibrate(tmp_path / name, out) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("present", "absent", "max_false", "expected"),
    [
        pytest.param([0.8, 0.9], [0.1, 0.2], 0.0, 0.5, id="the middle of the gap"),
        pytest.param([0.8, 0.9], [0.1, 0.2], 0.5, 0.5, id="no false one where none is needed"),
        pytest.param([0.3, 0.9], [0.1, 0.5], 0.5, 0.2, id="one false one, for one more that is there"),
        pytest.param([0.3, 0.9], [0.1, 0.5], 0.4, 0.7, id="the share allows none"),
        pytest.param([0.5, 0.9], [0.1, 0.5], 0.0, 0.7, id="equal scores"),
        pytest.param([0.1, 0.1], [0.2, 0.3], 0.0, 0.3001, id="no present one is above"),
        pytest.param([0.9, 0.9], [0.2] * 20, 0.05, 0.55, id="one of twenty may be false, but is equal to the others"),
        pytest.param([0.20001], [0.2] * 20, 0.0, 0.20001, id="a gap that is less than a step"),
    ],
)
def test_the_threshold_is_the_middle_of_the_gap_below_the_weakest_that_may_be_grounded(
    present: list[float], absent: list[float], max_false: float, expected: float
) -> None:
    high, low = np.array(present, np.float32), np.array(absent, np.float32)
    threshold = choose_threshold(high, low, max_false)
    assert threshold == pytest.approx(expected, abs=1.01e-4)
    assert (low >= np.float32(threshold)).mean() <= max_false


def test_no_threshold_lets_more_be_false_than_allowed() -> None:
    """Also for scores between which FP32 has few numbers, or none."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        scale, offset = 10.0 ** rng.integers(-8, 1), rng.random()
        high, low = (np.clip(offset + scale * rng.normal(mean, 1, 40), 0, 1).astype(np.float32) for mean in (1, 0))
        max_false = float(rng.choice([0, 0.05, 0.1, 0.5]))
        threshold = np.float32(choose_threshold(high, low, max_false))
        assert (low >= threshold).mean() <= max_false
        reachable = [(high >= other).mean() for other in [*high, *low] if (low >= other).mean() <= max_false]
        assert (high >= threshold).mean() == max(reachable, default=0.0)


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [([1, 2], [0, 0.5], 1.0), ([0], [1], 0.0), ([1, 1], [1], 0.5), ([1, 3], [2, 2], 0.5), ([2, 3], [1, 3], 0.625)],
)
def test_auc_is_the_share_of_pairs_in_the_right_order(high: list[float], low: list[float], expected: float) -> None:
    assert auc(np.array(high), np.array(low)) == expected


def to_graph(body: str) -> onnx.ModelProto:
    tensors = "(float[B,1] SCORE, float[B,1] OTHER) => (bool[B,1] YES, bool[B,1] ALSO)"
    text = f'<ir_version: 8, opset_import: ["": 18]> g {tensors} <float t = {{0.2}}> {{ {body} }}'
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def test_only_the_comparison_of_the_score_gets_the_threshold() -> None:
    import onnxruntime as ort

    old = to_graph("YES = GreaterOrEqual(SCORE, t) ALSO = GreaterOrEqual(OTHER, t)")
    new = with_threshold(with_threshold(old, 0.7, {}), 0.5, {})
    session = ort.InferenceSession(new.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = np.array([[0.3], [0.5], [0.6]], np.float32)
    yes, also = session.run(None, {"SCORE": scores, "OTHER": scores})
    assert yes[:, 0].tolist() == [False, True, True]
    assert also.all()


@pytest.mark.parametrize(
    "body",
    ["YES = Less(SCORE, t) ALSO = Less(OTHER, t)", "YES = GreaterOrEqual(SCORE, t) ALSO = GreaterOrEqual(SCORE, t)",
     "YES = GreaterOrEqual(SCORE, OTHER) ALSO = Less(OTHER, t)"],
)  # fmt: skip
def test_a_graph_of_another_form_is_refused(body: str) -> None:
    with pytest.raises(GraphError, match="does not compare SCORE with one threshold"):
        with_threshold(to_graph(body), 0.5, {})
    with pytest.raises(GraphError, match="has no version in VERSION"):
        restamp(to_graph(body), {"VERSION": (1, 2, 3, 4)})
