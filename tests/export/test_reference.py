"""The reference reads images as they are displayed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from export.reference import open_image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (40, 20), "red"), "JPEG", exif=exif)


IMAGES = {
    "exif rotation": (rotated(), (20, 40), (254, 0, 0)),
    "transparent": (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"), (4, 4), (255, 255, 255)),
    "grey": (encoded(Image.new("L", (4, 4), 80), "PNG"), (4, 4), (80, 80, 80)),
    "16 bits": (
        encoded(Image.fromarray(np.full((4, 4), 0x8000, np.uint16)), "PNG"),
        (4, 4),
        (128, 128, 128),
    ),
    "palette": (encoded(Image.new("RGB", (4, 4), "blue").convert("P"), "PNG"), (4, 4), (0, 0, 255)),
}


@pytest.mark.parametrize(("content", "wh", "colour"), IMAGES.values(), ids=IMAGES)
def test_open_image(content: bytes, wh: tuple[int, int], colour: tuple[int, ...]) -> None:
    image = open_image(content)
    assert image.mode == "RGB"
    assert image.size == wh
    assert np.abs(np.asarray(image)[1, 1].astype(int) - colour).max() <= 1
