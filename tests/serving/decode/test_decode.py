"""Files on the canvas, compared with what Pillow decodes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from serving.decode import images
from serving.paths import REPOSITORIES
from serving.repository.profiles import read_config
from serving.repository.specs import CANVASES, Status
from tests.pictures import bad_files, encode, exif, good_files, hollow_png, picture


def draw(blob: bytes, side: int = 640) -> tuple[images.Pixels, tuple[int, ...], int]:
    image = images.decode(blob, images.Limits(canvases=(side,)))
    return images.stack([image], side)[0], image.size, image.status


def decode_with_pillow(blob: bytes) -> images.Pixels:
    image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
    if profile := image.info.get("icc_profile"):
        made = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
        assert made
        image = made
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return np.asarray(paper.convert("RGB"))


@pytest.mark.parametrize("name", good_files())
def test_pixels_are_those_of_pillow(name: str) -> None:
    blob = good_files()[name]
    expected = decode_with_pillow(blob)
    height, width = expected.shape[:2]
    canvas, size, decoded = draw(blob, side=5000)
    assert (size, decoded) == ((height, width, height, width), 0)
    np.testing.assert_array_equal(canvas[:height, :width], expected)
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()


@pytest.mark.parametrize(("blob", "status"), bad_files().values(), ids=bad_files())
def test_bad_file_has_a_status_and_a_black_canvas(blob: bytes, status: int) -> None:
    canvas, size, decoded = draw(blob)
    assert (size, decoded) == ((0, 0, 0, 0), status)
    assert not canvas.any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [640, 60, 30])
def test_exif_orientation_is_applied(orientation: int, file_format: str, side: int) -> None:
    blob = encode(picture(), file_format, exif=exif(orientation))
    full = Image.fromarray(decode_with_pillow(blob))
    canvas, (height, width, *original), _ = draw(blob, side)
    assert original == [full.height, full.width]
    expected = full.resize((width, height), Image.Resampling.BOX)
    assert np.abs(canvas[:height, :width].astype(int) - np.asarray(expected)).mean() < 1


@pytest.mark.parametrize(
    ("hw", "side", "expected"),
    [
        ((1, 1), 640, (1, 1)),
        ((640, 640), 640, (640, 640)),
        ((641, 640), 640, (640, 639)),
        ((3, 5000), 640, (1, 640)),
        ((5000, 3), 640, (640, 1)),
        ((1500, 2000), 640, (480, 640)),
    ],
)
def test_proportions_are_kept(hw: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert images.fitted_hw(*hw, side) == expected


@pytest.mark.parametrize("shrinkage", [2, 3, 3.9, 4, 5.5, 8, 11])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_shrinks_with_antialiasing(shrinkage: float, file_format: str) -> None:
    """Fine stripes become their mean, also when the decoder reduces; slow changes stay in place."""
    plain = picture(round(160 * shrinkage), round(120 * shrinkage)) // 2 + 50
    stripes = plain - 50 + (np.arange(plain.shape[1]) % 2 * 100).astype(np.uint8)[:, None]
    blob = encode(stripes, file_format, **({"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}))
    canvas, (height, width, *_), _ = draw(blob, side=160)
    expected = Image.fromarray(plain).resize((width, height), Image.Resampling.BOX)
    assert (height, width) == (160, 120)
    # Where three pixels become one, they are two stripes of one kind, which leaves a third of the 50 grey levels.
    assert np.abs(canvas[:height, :width].astype(int) - np.asarray(expected)).mean() < 50 / shrinkage + 2


@pytest.mark.parametrize(
    ("longer", "expected"),
    [
        pytest.param(300, 1, id="fits the canvas"),
        pytest.param(1535, 1, id="a half would be under twice the canvas"),
        pytest.param(1536, 2, id="a half"),
        pytest.param(3071, 2, id="not yet a quarter"),
        pytest.param(3072, 4, id="a quarter"),
        pytest.param(6144, 8, id="an eighth"),
        pytest.param(65_535, 8, id="never below an eighth"),
    ],
)
def test_reduced_jpeg_is_at_least_twice_as_large_as_the_canvas(longer: int, expected: int) -> None:
    assert images.reduction(longer, 384) == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("longer", [250, 384, 500, 768, 1000, 1536])
def test_reduced_jpeg_looks_like_a_fully_decoded_one(mode: str, longer: int) -> None:
    """Pillow decodes at full size and shrinks in one step to a canvas of 96 pixels; the photo has fine detail."""
    height, width = longer, round(0.7 * longer)
    noise = np.random.default_rng(1).normal(0, 12, (height, width, 3)) + picture(height, width)
    blob = encode(Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode), "JPEG", quality=90)
    canvas, (rows, columns, *original), status = draw(blob, side=96)
    assert (original, status) == ([height, width], 0)
    expected = Image.fromarray(decode_with_pillow(blob)).resize((columns, rows), Image.Resampling.BOX)
    assert np.abs(canvas[:rows, :columns].astype(int) - np.asarray(expected)).mean() < 2


def test_limits_are_checked_before_decoding() -> None:
    limits = images.Limits(canvases=(64,), max_bytes=1000, max_pixels=5000)
    assert images.decode(hollow_png(5001, 1), limits).status == Status.TOO_LARGE
    assert images.decode(hollow_png(50, 100), limits).status == Status.NOT_AN_IMAGE
    assert images.decode(hollow_png(50, 100) + bytes(1000), limits).status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        pytest.param([], 64, id="no image"),
        pytest.param([0], 64, id="nothing decoded"),
        pytest.param([64, 3], 64, id="just fits"),
        pytest.param([10, 65, 20], 128, id="the largest image decides"),
        pytest.param([128], 128, id="the largest canvas"),
    ],
)
def test_canvas_is_the_smallest_that_holds_every_image(sides: list[int], expected: int) -> None:
    limits = images.Limits(canvases=(64, 128))
    assert limits.canvas_for((side, side // 2, 4000, 3000) for side in sides) == expected


def test_limits_of_the_config_are_the_defaults() -> None:
    config = read_config(REPOSITORIES[0] / "decode")
    limits = images.Limits.parse({name: value.string_value for name, value in config.parameters.items()})
    assert limits == images.Limits()
    assert limits.canvases == CANVASES
