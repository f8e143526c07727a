"""Pixels of arrays and of PIL images as PNG files, which are lossless.

The server shows the encoder what it would decode from a file with the same content: colours in RGB, transparent pixels
in white, and of 16 bits the upper 8. Pixels without such a meaning, as floats have none, are refused.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from vlclip.errors import InvalidInputError

MODES = {
    **{mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},  # PNG stores them
    "PA": "RGBA",
    "RGBa": "RGBA",
    "La": "LA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "CMYK": "RGB",
    "LAB": "RGB",
    "I;16B": "I;16",
    "I;16L": "I;16",
    "I;16N": "I;16",
}
"""The mode in which a PIL image is sent, for each of its modes."""
OTHER_COLOURS = ("CMYK", "LAB")
"""Modes whose ICC profile does not describe RGB."""


def is_pil(given: Any) -> bool:
    """Whether ``given`` is a PIL image. PIL is not imported for this check."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(given).__mro__)


def png_of_array(pixels: npt.NDArray[Any], what: str) -> bytes:
    """The file of an array. ``what`` names it in errors."""
    shape = pixels.shape
    several = pixels.ndim == 3 and shape[2] in (1, 3, 4)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or several) or pixels.size == 0:
        problem = f"{what}: expected pixels as uint8 [H, W], [H, W, 3] or [H, W, 4], got {pixels.dtype} {list(shape)}"
        raise InvalidInputError(problem, advice=_conversion(pixels))
    try:
        from PIL import Image
    except ImportError as exc:
        problem = "images: expected Pillow to be installed, with which arrays are sent as PNG"
        raise InvalidInputError(problem, advice="Run `pip install pillow`") from exc
    pixels = np.ascontiguousarray(pixels[:, :, 0] if several and shape[2] == 1 else pixels)
    return _encoded(Image.fromarray(pixels))


def _conversion(pixels: npt.NDArray[Any]) -> str:
    """Advice about an array that is not sent."""
    if pixels.dtype.kind == "f":
        return 'For values from 0 to 1, pass (pixels * 255).round().astype("uint8")'
    if pixels.dtype == np.uint16:
        return 'For values of 16 bits, pass (pixels >> 8).astype("uint8")'
    if pixels.ndim == 1:
        return "For the content of a file, pass its bytes: array.tobytes()"
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
        return "Put the channels last: pixels.transpose(1, 2, 0)"
    return ""


def png_of_image(image: Any, what: str) -> bytes:
    """The file of a PIL image, after its EXIF rotation. Raises OSError if its pixels cannot be loaded."""
    from PIL import ImageOps

    try:
        image.load()
    except Exception as exc:  # Pillow's parsers raise errors of many kinds
        if "closed" in str(exc) or isinstance(exc, AssertionError):  # Pillow 13 asserts that there is a file
            problem = f"{what}: expected an open PIL image, got one whose file was closed"
            raise InvalidInputError(problem, advice="Pass it before that, or call its load() before that") from exc
        raise OSError(f"Pillow cannot load its pixels: {exc}") from exc
    if 0 in image.size:
        raise InvalidInputError(f"{what}: expected a PIL image with pixels, got one of {image.width} x {image.height}")
    if image.mode not in MODES:
        raise InvalidInputError(
            f'{what}: expected a PIL image with 8 or 16 bits for each channel, got the mode "{image.mode}", whose '
            "range of values is unknown",
            advice='Scale it to 0 to 255 and convert it to "L" or "RGB"',
        )
    upright = image
    with suppress(Exception):  # damaged EXIF data
        upright = ImageOps.exif_transpose(image)
    return _encoded(_in_mode(upright, MODES[image.mode]), keeps_profile=image.mode not in OTHER_COLOURS)


def _in_mode(image: Any, mode: str) -> Any:
    if image.mode == mode:
        return image
    if mode == "I;16":
        from PIL import Image

        return Image.fromarray(np.asarray(image).astype("<u2"))
    return image.convert(mode)


def _encoded(image: Any, keeps_profile: bool = True) -> bytes:
    file = io.BytesIO()
    profile = image.info.get("icc_profile") if keeps_profile else None
    image.save(file, "PNG", compress_level=1, icc_profile=profile)
    return file.getvalue()
