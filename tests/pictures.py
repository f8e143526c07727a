"""Image files for tests: valid, unusual and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.profiles import P3

TURNED_RIGHT = 6


def picture(height: int = 120, width: int = 90, seed: int = 0) -> np.ndarray:
    """A smooth RGB image (H, W, 3), different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: np.ndarray | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


PHOTO = encode(picture(), "JPEG")


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def hollow_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size, as an attacker would send it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def good_files() -> dict[str, bytes]:
    """Every kind of file that must be decoded, by name. All but the last three show ``picture()``."""
    rgb = picture()
    image = Image.fromarray(rgb)
    grey = image.convert("L")
    frames: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(picture(seed=9))]}
    return {
        "JPEG": encode(rgb, "JPEG"),
        "JPEG progressive": encode(rgb, "JPEG", progressive=True),
        "JPEG grey": encode(grey, "JPEG"),
        "JPEG CMYK": encode(image.convert("CMYK"), "JPEG"),
        "JPEG turned by EXIF": encode(
            image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif(TURNED_RIGHT), quality=95
        ),
        "JPEG in Display P3": encode(P3.from_srgb(rgb), "JPEG", quality=95, icc_profile=P3.profile),
        "JPEG with bytes behind its end": encode(rgb, "JPEG") + b"\0\0",
        "PNG": encode(rgb),
        "PNG grey": encode(grey),
        "PNG black and white": encode(image.convert("1")),
        "PNG palette": encode(image.quantize(64)),
        "PNG palette with transparency": encode(image.quantize(64), transparency=0),
        "PNG transparent": encode(Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 200, np.uint8)]))),
        "PNG grey and alpha": encode(image.convert("LA")),
        "PNG 16 bits": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
        "PNG turned by EXIF": encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif(TURNED_RIGHT)),
        "PNG animated": encode(rgb, "PNG", **frames),
        "WebP": encode(rgb, "WEBP"),
        "WebP lossless": encode(rgb, "WEBP", lossless=True),
        "WebP transparent": encode(image.convert("RGBA"), "WEBP"),
        "WebP animated": encode(rgb, "WEBP", **frames),
        "1 x 1": encode(picture(1, 1)),
        "5000 x 3": encode(picture(3, 5000)),
        "3 x 5000 JPEG": encode(picture(5000, 3), "JPEG"),
    }


def bad_files() -> dict[str, tuple[bytes, int]]:
    """Every kind of file that must not be decoded, by name, with its STATUS."""
    jpeg, png, webp = (encode(picture(seed=3), kind) for kind in ("JPEG", "PNG", "WEBP"))
    return {
        "empty": (b"", 2),
        "text": (b"not an image, but quite a long line of text instead", 2),
        "JPEG truncated": (jpeg[: len(jpeg) // 2], 2),
        "JPEG without its last bytes": (jpeg[:-20], 2),
        "half a JPEG with an end marker": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", 2),
        "JPEG header alone": (jpeg[:20], 2),
        "PNG truncated": (png[: len(png) // 2], 2),
        "PNG without its last hundredth": (png[: len(png) * 99 // 100], 2),
        "WebP truncated": (webp[: len(webp) // 2], 2),
        "WebP without its last bytes": (webp[:-20], 2),
        "GIF": (encode(picture(), "GIF"), 2),
        "BMP": (encode(picture(), "BMP"), 2),
        "no pixels in it": (hollow_png(30, 40), 2),
        "100 megapixels": (hollow_png(10_000, 10_000), 3),
        "too many bytes": (jpeg + bytes(33 << 20), 3),
    }
