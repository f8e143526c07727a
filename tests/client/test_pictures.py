"""The forms of images: each arrives as the picture that the server decodes from a file of it, or is refused."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

import vlclip
from serving.decode.images import Limits, decode
from tests.client.conftest import FakeTriton
from tests.client.twins import Twin
from vlclip import Status
from vlclip._inputs import Items, grounded_items, image_items, product_items, text_items

Pixels = npt.NDArray[np.uint8]

RNG = np.random.default_rng(7)
RGB: Pixels = RNG.integers(0, 256, (6, 8, 3), np.uint8)
ALPHA: Pixels = np.where(np.arange(8) < 3, 0, 255).astype(np.uint8)[None].repeat(6, axis=0)
GREY: Pixels = RGB[:, :, 0]
IN_GREY = np.repeat(GREY[:, :, None], 3, axis=2)
ON_WHITE = np.where(ALPHA[:, :, None] == 0, np.uint8(255), RGB)
GREY_ON_WHITE = np.where(ALPHA[:, :, None] == 0, np.uint8(255), IN_GREY)
BLACK_WHITE = np.where(IN_GREY < 128, np.uint8(0), np.uint8(255))
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
LA = Image.fromarray(np.dstack([GREY, ALPHA]))
SIXTEEN = GREY.astype(np.uint16) * 256 + 201
COLOURS = RGB // 64 * 64
"""Few enough for a palette."""


def turned() -> Image.Image:
    """To be displayed after a rotation by 90 degrees."""
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6
    return image


def of_palette(transparent: bool = False) -> Image.Image:
    image = Image.fromarray(COLOURS).quantize(64)
    if transparent:
        image.info["transparency"] = image.getpixel((0, 0))
    return image


def without_first_colour() -> Pixels:
    return np.where((COLOURS[0, 0] == COLOURS).all(axis=2, keepdims=True), np.uint8(255), COLOURS)


def big_endian() -> Image.Image:
    return Image.frombytes("I;16B", GREY.shape[::-1], SIXTEEN.astype(">u2").tobytes())


PICTURES: dict[str, tuple[Any, Pixels]] = {
    "array [H, W, 3]": (RGB, RGB),
    "array [H, W]": (GREY, IN_GREY),
    "array [H, W, 1]": (GREY[:, :, None], IN_GREY),
    "array [H, W, 4]": (np.dstack([RGB, ALPHA]), ON_WHITE),
    "array of other strides": (RGB[::-1, ::-1], RGB[::-1, ::-1]),
    "PIL 1": (Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), BLACK_WHITE),
    "PIL L": (Image.fromarray(GREY), IN_GREY),
    "PIL LA": (LA, GREY_ON_WHITE),
    "PIL La": (LA.convert("La"), GREY_ON_WHITE),
    "PIL RGB": (Image.fromarray(RGB), RGB),
    "PIL RGB, turned": (turned(), np.rot90(RGB, -1)),
    "PIL RGBA": (RGBA, ON_WHITE),
    "PIL RGBa": (RGBA.convert("RGBa"), ON_WHITE),
    "PIL RGBX": (Image.fromarray(RGB).convert("RGBX"), RGB),
    "PIL P": (of_palette(), COLOURS),
    "PIL P, transparent": (of_palette(transparent=True), without_first_colour()),
    "PIL P, of RGBA": (RGBA.quantize(256, method=Image.Quantize.FASTOCTREE), ON_WHITE),
    "PIL PA": (LA.convert("RGBA").convert("PA"), GREY_ON_WHITE),
    "PIL CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB),
    "PIL I;16": (Image.fromarray(SIXTEEN), IN_GREY),
    "PIL I;16B": (big_endian(), IN_GREY),
}
NEARLY: dict[str, tuple[Any, Pixels, int]] = {
    "PIL YCbCr": (Image.fromarray(RGB).convert("YCbCr"), RGB, 3),
    "PIL HSV": (Image.fromarray(RGB).convert("HSV"), RGB, 8),
    "PIL LAB": (Image.merge("LAB", [Image.fromarray(GREY), *[Image.new("L", (8, 6), 128)] * 2]), IN_GREY, 30),
}
"""With the largest difference: these colours have no exact RGB."""
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "PIL I": (lambda: Image.fromarray(GREY.astype(np.int32) * 257), 'the mode "I", whose range of values is unknown'),
    "PIL F": (lambda: Image.fromarray(GREY.astype(np.float32) / 255), 'the mode "F", whose range of values is unknown'),
    "PIL without pixels": (lambda: Image.new("RGB", (0, 3)), "expected a PIL image with pixels, got one of 0 x 3"),
    "floats": (lambda: RGB / 255, "got float64 [6, 8, 3]. For values from 0 to 1, pass (pixels * 255).round()"),
    "16 bits": (lambda: SIXTEEN, 'got uint16 [6, 8]. For values of 16 bits, pass (pixels >> 8).astype("uint8")'),
    "booleans": (lambda: GREY > 9, "got bool [6, 8]"),
    "channels first": (lambda: RGB.transpose(2, 0, 1), "got uint8 [3, 6, 8]. Put the channels last"),
    "two channels": (lambda: RGB[:, :, :2], "got uint8 [6, 8, 2]"),
    "an encoded file as array": (
        lambda: np.arange(9, dtype=np.uint8),
        "got uint8 [9]. For the content of a file, p",
    ),
    "no pixels": (lambda: RGB[:0], "got uint8 [0, 8, 3]"),
    "a folder": (lambda: Path(), "expected the path of a file, got the folder '.'. Pass its files"),
    "an empty path": (lambda: "", "expected the path of a file, got an empty text"),
    "a URL": (
        lambda: "https://shop.example/mug.jpg?key=s3cret",
        "got the URL 'https://shop.example/mug.jpg'. Do",
    ),
    "a data URI": (lambda: "data:image/jpeg;base64,s3cret" + "A" * 9000, "got a data URI of 9029 characters. Pass its"),
    "base64": (lambda: base64.b64encode(RGB.tobytes() * 9 + b"s3cret").decode(), "got 1736 characters of base64. Pass"),
    "a short file in base64": (lambda: "iVBORw0KGgo" + "s3cret", "got 17 characters of base64. Pass the bytes"),
    "a long text": (lambda: "s3cret, " * 999, "got a text of 7992 characters"),
    "a null byte": (lambda: "\x89PNG\0", "got a text with a null byte. Pass the content of a file as bytes"),
    "text mode": (lambda: io.StringIO("1"), "expected a file opened with mode 'rb', got a file in text mode"),
    "a closed file": (lambda: closed(io.BytesIO(b"1")), "expected an open file, got a closed one"),
    "a file of other things": (
        lambda: Reads(1),
        "expected a file opened with mode 'rb', got one whose read() return",
    ),
    "a pipe that was read": (lambda: Reads(b""), "got one at its end that cannot be read from its start again. Keep"),
    "an upload": (lambda: Upload(), "expected a file whose read() returns bytes, got an asynchronous one. Pass `await"),
    "a closed PIL image": (lambda: closed_image(), "expected an open PIL image, got one whose file was closed"),
    "None": (lambda: None, "got NoneType"),
}


class Reads:
    """A file that has no other method than ``read``."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def read(self) -> Any:
        return self.content


class Upload:
    """As FastAPI's."""

    async def read(self) -> bytes:
        return b"1"

    async def seek(self, offset: int) -> None: ...


def closed(file: BinaryIO) -> BinaryIO:
    file.close()
    return file


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def closed_image() -> Image.Image:
    with Image.open(io.BytesIO(png(RGB))) as image:
        return image


def decoded(blob: bytes) -> Pixels:
    """As the server decodes it."""
    found = decode(blob, Limits())
    assert found.status == 0
    return np.asarray(found.image_rgb)


def test_every_form_of_pixels_arrives_as_the_same_picture(triton: FakeTriton, twin: Twin) -> None:
    triton.max_batch_size = 64
    with twin(triton.address) as client:
        client.embed_whole_images([image for image, _ in PICTURES.values()])
        client.embed_whole_images([image for image, _, _ in NEARLY.values()])
    exactly, nearly = triton.batches
    for (name, (_, expected)), blob in zip(PICTURES.items(), exactly, strict=True):
        np.testing.assert_array_equal(decoded(blob), expected, err_msg=name)
    for (name, (_, expected, most)), blob in zip(NEARLY.items(), nearly, strict=True):
        assert np.abs(decoded(blob).astype(int) - expected).max() <= most, name


def test_an_icc_profile_is_sent_unless_it_is_of_other_colours(triton: FakeTriton, client: vlclip.Client) -> None:
    rgb, cmyk = Image.fromarray(RGB), Image.fromarray(RGB).convert("CMYK")
    for image in (rgb, cmyk):
        image.info["icc_profile"] = b"a profile"
    client.embed_whole_images([rgb, cmyk])
    assert [Image.open(io.BytesIO(blob)).info.get("icc_profile") for blob in triton.batches[0]] == [b"a profile", None]


def test_every_mode_of_pillow_is_in_a_table() -> None:
    """Also one that a later Pillow adds."""
    modes = {image.mode for image, *_ in (*PICTURES.values(), *NEARLY.values()) if isinstance(image, Image.Image)}
    assert modes | {"I", "F", "I;16L", "I;16N"} == {*Image.MODES}


@pytest.mark.parametrize(("image", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_not_a_picture_gets_a_sentence(
    triton: FakeTriton, twin: Twin, image: Callable[[], Any], message: str
) -> None:
    with twin(triton.address) as client, pytest.raises(vlclip.InvalidInputError) as caught:
        client.embed_whole_images([b"1", image()])
    assert str(caught.value).startswith("image 1: expected ")
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__context__)
    assert triton.infer_requests == []


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(lambda folder: np.array([b"1", folder / "2.jpg"], object), id="an array of objects"),
        pytest.param(lambda folder: np.array([str(folder / "1.jpg"), str(folder / "2.jpg")]), id="an array of paths"),
        pytest.param(lambda folder: [already_read(b"1"), io.BytesIO(b"2")], id="files that were read"),
        pytest.param(lambda folder: [Reads(b"1"), Reads(bytearray(b"2"))], id="files without seek"),
    ],
)
def test_several_images(triton: FakeTriton, twin: Twin, images: Callable[[Path], Any], tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"{n}.jpg").write_text(str(n))
    with twin(triton.address) as client:
        assert client.embed_whole_images(images(tmp_path)).embedding[:, 0].tolist() == [1, 2]
        assert client.ground(images(tmp_path), np.array(["mug", "cup"])).box_xyxy[:, 0].tolist() == [1, 2]


def already_read(content: bytes) -> BinaryIO:
    file = io.BytesIO(content)
    file.read()
    return file


def unreadable(folder: Path) -> dict[str, Any]:
    """Images that cannot be read, each in another way."""
    (folder / "loop.jpg").symlink_to("loop.jpg")
    truncated = Image.open(io.BytesIO(png(RGB)[:-60]))
    return {"nowhere.jpg": folder / "nowhere.jpg", "loop.jpg": os.fspath(folder / "loop.jpg"), "Pillow": truncated}


def test_an_image_that_cannot_be_read_has_a_status(triton: FakeTriton, twin: Twin, tmp_path: Path) -> None:
    """As one that cannot be decoded has, while the other rows are complete."""
    images = [b"1", *unreadable(tmp_path).values(), b"no image", b"2"]
    status = [0, *[Status.UNREADABLE] * 3, Status.NOT_AN_IMAGE, 0]
    with twin(triton.address) as client:
        found = client.embed_images(images, "mug")
        assert found.status.tolist() == status
        assert found.embedding[:, 0].tolist() == [1, 0, 0, 0, 0, 2]
        assert client.embed_whole_images(iter(images)).status.tolist() == status
        assert client.ground(images, ["mug"] * 6).status.tolist() == status


@pytest.mark.parametrize("name", ["nowhere.jpg", "loop.jpg", "Pillow"])
def test_an_image_that_cannot_be_read_raises_with_errors_raise(
    triton: FakeTriton, twin: Twin, tmp_path: Path, name: str
) -> None:
    with twin(triton.address) as client, pytest.raises(vlclip.ItemError, match="image 1 is unreadable") as caught:
        client.embed_images([b"1", unreadable(tmp_path)[name]], "mug", errors="raise")
    assert name in str(caught.value)
    assert (caught.value.index, caught.value.status) == (1, Status.UNREADABLE)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("items", "values", "blocks"),
    [
        (image_items([], "status"), (0, "mug.jpg"), True),
        (image_items([], "status"), (0, b"1"), False),
        (grounded_items([], [], "status"), (0, RGB, "mug"), True),
        (text_items([]), (0, "mug"), False),
        (product_items([], None), (0, {}), False),
        (product_items([], []), (0, {}, "mug.jpg"), True),
        (product_items([], []), (0, {}, b"1"), False),
    ],
)
def test_which_items_an_event_loop_leaves_to_a_thread(items: Items, values: tuple[Any, ...], blocks: bool) -> None:
    """Files that are read and pixels that are encoded, since both block."""
    assert items.blocks(values) == blocks


def test_enrich_raises_pythons_own_error(triton: FakeTriton, twin: Twin, tmp_path: Path) -> None:
    """Its status is that of the product, so a row cannot say that its photo was not read."""
    with twin(triton.address) as client, pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        client.enrich({"title": "mug"}, tmp_path / "nowhere.jpg")


def test_the_rotation_of_a_photo_with_damaged_exif_is_ignored(triton: FakeTriton, client: vlclip.Client) -> None:
    image = Image.fromarray(RGB)
    image.info["exif"] = b"Exif\0\0not TIFF"
    with pytest.raises(SyntaxError):
        ImageOps.exif_transpose(image)
    client.embed_whole_images(image)
    np.testing.assert_array_equal(decoded(triton.batches[0][0]), RGB)
