"""Colours come out as a person sees them: ICC profiles become sRGB, and key colours of PNG files become white."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.decode import images
from tests.pictures import encode, picture
from tests.profiles import ADOBE, GREY_GAMMA, GREY_PROFILE, P3, SRGB, Colours, cmyk_profile, linear_to_srgb

EXACT: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
}


def decoded(blob: bytes, side: int = 640) -> np.ndarray:
    image = images.decode(blob, images.Limits(canvases=(side,)))
    assert image.status == images.OK
    return np.asarray(image.image_rgb)


@pytest.mark.parametrize("file_format", EXACT)
@pytest.mark.parametrize(("colours", "least"), [(P3, 10), (ADOBE, 10)], ids=["Display P3", "Adobe RGB"])
def test_a_profile_is_converted_to_srgb(file_format: str, colours: Colours, least: float) -> None:
    rgb = picture()
    blob = encode(rgb, file_format, icc_profile=colours.profile, **EXACT[file_format])
    stored = decoded(encode(rgb, file_format, **EXACT[file_format]))
    found = decoded(blob)
    assert np.abs(found - colours.to_srgb(stored)).max() <= 3
    assert np.abs(found.astype(int) - stored).max() > least


@pytest.mark.parametrize("file_format", EXACT)
def test_srgb_and_damaged_profiles_change_nothing(file_format: str) -> None:
    rgb, damaged = picture(), bytearray(P3.profile)
    damaged[130:260] = bytes(130)
    plain = decoded(encode(rgb, file_format, **EXACT[file_format]))
    for profile in (SRGB.profile, bytes(damaged), P3.profile[:200], b"not a profile", GREY_PROFILE, cmyk_profile()):
        blob = encode(rgb, file_format, icc_profile=profile, **EXACT[file_format])
        np.testing.assert_array_equal(decoded(blob), plain)


def test_other_modes_are_converted_too() -> None:
    rgb = picture()
    image, options = Image.fromarray(rgb), dict[str, Any](icc_profile=P3.profile)
    palette = image.quantize(64)
    found = decoded(encode(palette, **options))
    assert np.abs(found - P3.to_srgb(np.asarray(palette.convert("RGB")))).max() <= 3
    clear = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    assert (decoded(encode(Image.fromarray(clear), **options)) == 255).all()
    grey = np.asarray(image.convert("L"))
    for file_format in ("PNG", "JPEG"):
        stored = decoded(encode(Image.fromarray(grey), file_format))
        found = decoded(encode(Image.fromarray(grey), file_format, icc_profile=GREY_PROFILE))
        assert np.abs(found - linear_to_srgb((stored / 255.0) ** GREY_GAMMA) * 255).max() <= 3


def test_a_press_is_converted_to_srgb() -> None:
    """Sheets of bare paper, of cyan and of black; the profile's cyan is a middle grey."""
    sheets = np.zeros((16, 48, 4), np.uint8)
    sheets[:, 16:32, 0] = 255
    sheets[:, 32:, 3] = 255
    image = Image.frombytes("CMYK", (48, 16), sheets.tobytes())
    found = decoded(encode(image, "JPEG", quality=100, icc_profile=cmyk_profile()))
    assert np.abs(found[8, [8, 24, 40]].astype(int) - [[255] * 3, [119] * 3, [0] * 3]).max() <= 6
    plain = decoded(encode(image, "JPEG", quality=100))
    assert plain[8, 24, 1] - plain[8, 24, 0] > 100


def test_shrunk_and_turned_images_are_converted() -> None:
    rgb = picture(600, 400)
    small = decoded(encode(rgb, "JPEG", quality=95), side=100)
    found = decoded(encode(rgb, "JPEG", quality=95, icc_profile=P3.profile), side=100)
    assert np.abs(found - P3.to_srgb(small)).max() <= 3


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(depth: int, colour: int, row: bytes, width: int, **chunks: bytes) -> bytes:
    """A PNG of one row of packed samples."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(kind.encode(), data) for kind, data in chunks.items())]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


W = (255, 255, 255)
PALETTE = {"PLTE": bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]), "tRNS": bytes([0, 128])}
PALETTE_RGB: list[tuple[int, ...]] = [W, (147, 152, 157), (70, 80, 90)]
"""The first is transparent, the second is half opaque on white, the third has no entry in tRNS, which means opaque."""
RGB_16 = words(0x8000, 0x8000, 0x8000, 0x8000, 0x8000, 0x8001, 0, 0, 0, 0x8000, 0x80FF, 0x8000)
TRANSPARENCY: dict[str, tuple[bytes, list[tuple[int, ...]]]] = {
    "grey, 1 bit, black": (raw_png(1, 0, bytes([0b01000000]), 2, tRNS=words(0)), [W, W]),
    "grey, 1 bit, white": (raw_png(1, 0, bytes([0b01000000]), 2, tRNS=words(1)), [(0, 0, 0), W]),
    "grey, 2 bits": (
        raw_png(2, 0, bytes([0b00011011]), 4, tRNS=words(1)),
        [(0, 0, 0), W, (170, 170, 170), W],
    ),
    "grey, 4 bits": (
        raw_png(4, 0, bytes([0x08, 0x17]), 4, tRNS=words(8)),
        [(0, 0, 0), W, (17, 17, 17), (119, 119, 119)],
    ),
    "grey, 8 bits": (raw_png(8, 0, bytes([8, 9, 136]), 3, tRNS=words(8)), [W, (9, 9, 9), (136, 136, 136)]),
    "grey, 16 bits": (
        raw_png(16, 0, words(0x8034, 0x8035, 0x2011, 0x0080), 4, tRNS=words(0x8034)),
        [W, (128, 128, 128), (32, 32, 32), (0, 0, 0)],
    ),
    "RGB, 8 bits": (
        raw_png(8, 2, bytes([1, 2, 3, 1, 2, 4, 3, 2, 1]), 3, tRNS=words(1, 2, 3)),
        [W, (1, 2, 4), (3, 2, 1)],
    ),
    "RGB, 16 bits": (
        raw_png(16, 2, RGB_16, 4, tRNS=words(0x8000, 0x8000, 0x8000)),
        [W, (128, 128, 128), (0, 0, 0), (128, 128, 128)],
    ),
    "RGB, 16 bits, a key of small numbers": (
        raw_png(16, 2, words(0, 0, 5, 0, 0, 6, 0x0500, 0x0500, 0x0500), 3, tRNS=words(0, 0, 5)),
        [W, (0, 0, 0), (5, 5, 5)],
    ),
    "palette, 1 bit": (raw_png(1, 3, bytes([0b01000000]), 2, **PALETTE), PALETTE_RGB[:2]),
    "palette, 2 bits": (raw_png(2, 3, bytes([0b00011000]), 3, **PALETTE), PALETTE_RGB),
    "palette, 4 bits": (raw_png(4, 3, bytes([0x01, 0x20]), 3, **PALETTE), PALETTE_RGB),
    "palette, 8 bits": (raw_png(8, 3, bytes([0, 1, 2]), 3, **PALETTE), PALETTE_RGB),
    "grey and alpha, 16 bits": (
        raw_png(16, 4, words(0x2000, 0, 0x2000, 0xFFFF), 2),
        [W, (32, 32, 32)],
    ),
    "RGB and alpha, 16 bits": (
        raw_png(16, 6, words(0x2000, 0x3000, 0x4000, 0, 0x2000, 0x3000, 0x4000, 0xFFFF), 2),
        [W, (32, 48, 64)],
    ),
    "grey, 16 bits, no key": (raw_png(16, 0, words(0x8034, 0xFFFF), 2), [(128, 128, 128), W]),
    "RGB, 16 bits, no key": (raw_png(16, 2, words(0x8034, 0, 0xFFFF), 1), [(128, 0, 255)]),
}


@pytest.mark.parametrize(("blob", "expected"), TRANSPARENCY.values(), ids=TRANSPARENCY)
def test_transparent_pixels_of_every_kind_of_png_are_white(blob: bytes, expected: list[tuple[int, ...]]) -> None:
    """The values follow from the PNG specification, chapters 11.3.1.1 and 13.16."""
    assert np.abs(decoded(blob)[0].astype(int) - expected).max() <= 1
