"""What Pillow lacks for PNG files: key colours at depths other than 8 bits, missing rows, and a limit of chunks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 20_000
"""A file of 32 MiB has 4,000 chunks of the usual size. Of tiny ones it has millions, which take seconds to read."""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type."""
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""First column and row of each pass, and its steps."""
UNPACK = 1 << 20
STRIP = 256


def chunks_of(blob: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, and where its data begins and ends; at most MOST_CHUNKS and one."""
    position = len(SIGNATURE)
    for _ in range(MOST_CHUNKS + 1):
        if position >= len(blob):
            return
        size = int.from_bytes(blob[position : position + 4], "big")
        yield blob[position + 4 : position + 8], position + 8, position + 8 + size
        position += 12 + size


def has_few_chunks(blob: bytes) -> bool:
    return sum(1 for _ in chunks_of(blob)) <= MOST_CHUNKS


def is_whole(image: Image.Image, blob: bytes) -> bool:
    """Whether all rows of a loaded image are in the file. Pillow fills with zeros what a well packed stream lacks.

    The stream is unpacked again only if its last row is zero. The last pass of an interlaced image has each second row.
    """
    interlaced = blob[28] == 1
    last = max(0, image.height // 2 * 2 - 1) if interlaced else image.height - 1
    if np.asarray(image.crop((0, last, image.width, last + 1))).any():
        return True
    missing = unpacked_size(image.width, image.height, SAMPLES[blob[25]] * blob[24], interlaced)
    unpack = zlib.decompressobj()
    for kind, begin, end in chunks_of(blob):
        data = blob[begin:end] if kind == b"IDAT" else b""
        while data and missing > 0:
            missing -= len(unpack.decompress(data, UNPACK))
            data = unpack.unconsumed_tail
    return missing <= 0


def unpacked_size(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Bytes of all rows, each with its filter."""
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes if width > x and height > y]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes)


def depth_of(blob: bytes) -> int:
    """Bits of a sample."""
    return blob[24]


def scale_key(image: Image.Image, depth: int) -> None:
    """Scale the key of a grey image as Pillow scales its pixels; Pillow compares both as they are."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        most = (1 << depth) - 1
        image.info["transparency"] = (key & most) * 255 // most


def needs_16_bits(image: Image.Image, depth: int) -> bool:
    """Whether the key has 16 bits for each colour, of which Pillow reads 8."""
    return image.mode == "RGB" and depth == 16 and isinstance(image.info.get("transparency"), tuple)


def read_16_bits(blob: bytes) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3) on a white background."""
    bgra = np.asarray(cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED), np.uint16)
    rgb = np.empty((*bgra.shape[:2], 3), np.uint8)
    for top in range(0, len(bgra), STRIP):
        strip = bgra[top : top + STRIP]
        rgb[top : top + STRIP] = np.where(strip[:, :, 3:] == 0, 255, strip[:, :, 2::-1] >> 8)
    return rgb
