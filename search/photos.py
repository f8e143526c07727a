"""Photos of products: their bytes, and the two hashes that find the same photo again."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import imagehash
from PIL import Image, ImageOps

MAX_BYTES = 32 << 20
MAX_PIXELS = 100_000_000
MOST_RADIUS = 16
COLOUR_RADIUS = 24
"""The most by which a part of a copy can differ in red, green or blue, of 255."""
_ORIENTATION = 274  # the EXIF tag


class PhotoError(ValueError):
    """A photo cannot be read."""


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a photo.

    ``content``: the first 40 hexadecimal digits of the file's SHA-256; ``perceptual``: the 64-bit pHash as 16
    hexadecimal digits, which differs in few bits between copies of a photo in other sizes and formats, or "" for a file
    that is not an image; ``colours``: the mean RGB of 4 x 4 parts of the photo, row by row, as 96 hexadecimal digits;
    ``size``: width and height in pixels as displayed, after the EXIF rotation.
    """

    content: str
    perceptual: str = ""
    colours: str = ""
    size: tuple[int, int] = (0, 0)


def load(photo: str | bytes) -> bytes:
    """The bytes of a photo that is a path, a data URI or bytes. Raises PhotoError."""
    if isinstance(photo, bytes):
        data = photo
    elif photo.startswith("data:"):
        data = from_data_uri(photo)
    elif photo.startswith(("http://", "https://")):
        raise PhotoError(f"{photo[:200]} is a URL, and its host is not allowed; name it with --photo-host")
    else:
        try:
            with Path(photo).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
            why = error.strerror if isinstance(error, OSError) else error
            raise PhotoError(f"{photo[:200]} cannot be read ({why})") from None
    if not data:
        raise PhotoError("the photo is empty")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"the photo has more than {MAX_BYTES >> 20} MiB")
    return data


def from_data_uri(uri: str) -> bytes:
    """The bytes of a data URI such as ``data:image/jpeg;base64,/9j/…``. Raises PhotoError."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise PhotoError("a data URI needs a comma before its data, as in data:image/jpeg;base64,/9j/4AAQ")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise PhotoError(f"the data URI is not base64 ({error})") from None


def fingerprint(data: bytes) -> Fingerprint:
    """Hash a photo. A file that PIL cannot decode has no perceptual hash."""
    content = hashlib.sha256(data).hexdigest()[:40]
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                return Fingerprint(content)
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = image.size[::-1] if turned else image.size
            image.draft("RGB", (512, 512))
            small = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
            small.thumbnail((512, 512))
            upright = ImageOps.exif_transpose(small).convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
            colours = shown.resize((4, 4), Image.Resampling.BOX).tobytes().hex()
            return Fingerprint(content, str(imagehash.phash(shown)), colours, size)
    except Exception:  # PIL raises errors of many kinds for damaged files
        return Fingerprint(content)


def is_near(a: Fingerprint, b: Fingerprint, radius: int) -> bool:
    """Whether two photos are copies of one: their perceptual hashes differ in at most ``radius`` bits.

    These hashes do not see colours. So a product in red and the same product in blue are told apart by the colours.
    """
    if not a.perceptual or not b.perceptual or distance(a.perceptual, b.perceptual) > radius:
        return False
    pairs = zip(bytes.fromhex(a.colours), bytes.fromhex(b.colours), strict=True)
    return all(abs(x - y) <= COLOUR_RADIUS for x, y in pairs)


def distance(a: str, b: str) -> int:
    """The Hamming distance of two perceptual hashes, in bits."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def bands(perceptual: str, radius: int) -> list[str]:
    """Keys of which two hashes within ``radius`` bits share at least one, so that an index finds candidates.

    The 64 bits are cut into ``radius + 1`` bands. If at most ``radius`` bits differ, one band is equal (the pigeonhole
    principle). Raises ValueError for a radius below 0 or above 16.
    """
    if not 0 <= radius <= MOST_RADIUS:
        raise ValueError(f"the radius of duplicates must be between 0 and {MOST_RADIUS} bits, not {radius}")
    if not perceptual:
        return []
    bits = f"{int(perceptual, 16):064b}"
    edges = [64 * band // (radius + 1) for band in range(radius + 2)]
    return [f"{band}:{int(bits[edges[band] : edges[band + 1]], 2):x}" for band in range(radius + 1)]
