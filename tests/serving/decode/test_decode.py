"""How `decode` draws a file onto its canvas, beside what Pillow makes of the same file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.decode import images
from tests.pictures import bad_files, encode, exif, good_files, hollow_png, picture

LIMITS = images.Limits()


def draw(blob: bytes, side: int = 640) -> tuple[np.ndarray, tuple[int, ...], int]:
    image = images.decode(blob, images.Limits(canvases=(side,)))
    return images.stack([image], side)[0], image.size, image.status


def as_pillow_shows(blob: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return np.asarray(paper.convert("RGB"))


@pytest.mark.parametrize("name", good_files())
def test_shows_what_pillow_shows(name: str) -> None:
    blob = good_files()[name]
    expected = as_pillow_shows(blob)
    height, width = expected.shape[:2]
    canvas, size, decoded = draw(blob, side=5000)
    assert (size, decoded) == ((height, width, height, width), 0)
    np.testing.assert_array_equal(canvas[:height, :width], expected)
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()


@pytest.mark.parametrize(("blob", "status"), bad_files().values(), ids=bad_files())
def test_refuses_and_leaves_the_canvas_black(blob: bytes, status: int) -> None:
    canvas, size, decoded = draw(blob)
    assert (size, decoded) == ((0, 0, 0, 0), status)
    assert not canvas.any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [640, 60, 30])
def test_turns_as_exif_says(orientation: int, file_format: str, side: int) -> None:
    blob = encode(picture(), file_format, exif=exif(orientation))
    expected = Image.fromarray(as_pillow_shows(blob))
    canvas, (height, width, *original), _ = draw(blob, side)
    assert original == [expected.height, expected.width]
    expected = expected.resize((width, height), Image.Resampling.BOX)
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
def test_fits_in_proportion(hw: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert images.fitted_hw(*hw, side) == expected


@pytest.mark.parametrize("shrinkage", [2, 3, 3.9, 4, 5.5, 8, 11])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_shrinks_with_antialiasing(shrinkage: float, file_format: str) -> None:
    """Fine stripes become their mean, however the decoder helps along; slow changes stay where they were."""
    plain = picture(round(160 * shrinkage), round(120 * shrinkage)) // 2 + 50
    stripes = plain - 50 + (np.arange(plain.shape[1]) % 2 * 100).astype(np.uint8)[:, None]
    blob = encode(stripes, file_format, **({"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}))
    canvas, (height, width, *_), _ = draw(blob, side=160)
    expected = Image.fromarray(plain).resize((width, height), Image.Resampling.BOX)
    assert (height, width) == (160, 120)
    # Of 50 grey levels of stripe, a third is left where three pixels, hence two stripes or one, become one.
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
        pytest.param(65_535, 8, id="the least there is"),
    ],
)
def test_a_jpeg_stays_twice_as_large_as_its_canvas(longer: int, expected: int) -> None:
    assert images.reduction(longer, 384) == expected


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_reduced_jpeg_is_the_mean_of_squares_of_pixels(factor: int, mode: str) -> None:
    """However fine the detail: noise here, whose every pixel is another."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    options = {"subsampling": 0} if mode == "RGB" else {}
    blob = encode(Image.fromarray(noise).convert(mode), "JPEG", quality=90, **options)
    expected = Image.open(io.BytesIO(blob)).convert("RGB").reduce(factor)
    reduced = images.read_jpeg(blob, factor).astype(int)
    # The mean of colours that were clipped is not the clipped mean: a few levels at most, of noise as strong as this.
    assert np.abs(reduced - np.asarray(expected)).mean() < 3
    assert np.corrcoef(reduced.ravel(), np.asarray(expected).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("longer", [250, 384, 500, 768, 1000])
def test_reduced_while_it_is_decoded_it_looks_the_same(mode: str, longer: int) -> None:
    """Beside Pillow's full decoding, shrunk in one step, to a canvas of 96 pixels; in detail of every size."""
    height, width = longer, round(0.7 * longer)
    noise = np.random.default_rng(1).normal(0, 12, (height, width, 3)) + picture(height, width)
    blob = encode(Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode), "JPEG", quality=90)
    canvas, (rows, columns, *original), status = draw(blob, side=96)
    assert (original, status) == ([height, width], 0)
    expected = Image.fromarray(as_pillow_shows(blob)).resize((columns, rows), Image.Resampling.BOX)
    apart = np.abs(canvas[:rows, :columns].astype(int) - np.asarray(expected))
    assert apart.mean() < 2


def test_limits_are_checked_before_decoding() -> None:
    limits = images.Limits(canvases=(64,), max_bytes=1000, max_pixels=5000)
    assert images.decode(hollow_png(5001, 1), limits).status == images.TOO_LARGE
    assert images.decode(hollow_png(50, 100), limits).status == images.NOT_AN_IMAGE
    assert images.decode(hollow_png(50, 100) + bytes(1000), limits).status == images.TOO_LARGE


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        pytest.param([0], 64, id="nothing decoded"),
        pytest.param([64, 3], 64, id="just fits"),
        pytest.param([10, 65, 20], 128, id="the largest image decides"),
        pytest.param([128], 128, id="the largest canvas"),
    ],
)
def test_takes_the_smallest_canvas_that_holds_every_image(sides: list[int], expected: int) -> None:
    limits = images.Limits(canvases=(64, 128))
    assert limits.canvas_for(np.zeros((side, side // 2, 3), np.uint8) for side in sides) == expected


def test_limits_are_read_from_the_config() -> None:
    parsed = images.Limits.parse({"canvases": "448 768", "max_bytes": "1000", "max_pixels": "5000"})
    assert parsed == images.Limits((448, 768), 1000, 5000)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_photos_without_a_whole_exif_block_are_read() -> None:
    blob = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert draw(blob)[2] == 0
