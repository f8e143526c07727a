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
from PIL import Image

MAX_BYTES = 32 << 20
MAX_PIXELS = 100_000_000
_ORIENTATION = 274  # the EXIF tag


class PhotoError(ValueError):
    """A photo cannot be read."""


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a photo.

    ``content``: the first 32 hexadecimal digits of the file's SHA-256; ``perceptual``: the 64-bit pHash as 16
    hexadecimal digits, which differs in few bits between copies of a photo in other sizes and formats, or "" for a file
    that is not an image; ``size``: width and height in pixels as displayed, after the EXIF rotation.
    """

    content: str
    perceptual: str = ""
    size: tuple[int, int] = (0, 0)


def load(photo: str | bytes) -> bytes:
    """The bytes of a photo that is a path, a data URI or bytes. Raises PhotoError."""
    if isinstance(photo, bytes):
        data = photo
    elif photo.startswith("data:"):
        data = from_data_uri(photo)
    elif photo.startswith(("http://", "https://")):
        raise PhotoError(f"{photo[:200]} is a URL, and no host is allowed")
    else:
        try:
            with Path(photo).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise PhotoError(f"{photo} cannot be read ({error.strerror})") from None
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
    content = hashlib.sha256(data).hexdigest()[:32]
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                return Fingerprint(content)
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = image.size[::-1] if turned else image.size
            image.draft("L", (256, 256))
            return Fingerprint(content, str(imagehash.phash(image)), size)
    except Exception:  # PIL raises errors of many kinds for damaged files
        return Fingerprint(content)


def distance(a: str, b: str) -> int:
    """The Hamming distance of two perceptual hashes, in bits."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def bands(perceptual: str, radius: int) -> list[str]:
    """Keys of which two hashes within ``radius`` bits share at least one, so that an index finds candidates.

    The 64 bits are cut into ``radius + 1`` bands. If at most ``radius`` bits differ, one band is equal.
    """
    if not perceptual:
        return []
    bits = f"{int(perceptual, 16):064b}"
    edges = [64 * band // (radius + 1) for band in range(radius + 2)]
    return [f"{band}:{int(bits[edges[band] : edges[band + 1]], 2):x}" for band in range(radius + 1)]
