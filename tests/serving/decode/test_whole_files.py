"""A file is decoded if all of its rows are there, whatever is missing behind them; otherwise it is not an image."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from serving.decode import images, jpeg
from serving.repository.specs import Status
from tests.pictures import encode, exif, picture

END = b"\xff\xd9"
LIMITS = images.Limits(canvases=(640,))
BLOCKS = 16
"""The side of the largest unit of a JPEG in pixels."""


def noisy(height: int = 150, width: int = 140) -> Image.Image:
    noise = np.random.default_rng(5).normal(0, 25, (height, width, 3))
    return Image.fromarray((picture(height, width) + noise).clip(0, 255).astype(np.uint8))


def status(blob: bytes, limits: images.Limits = LIMITS) -> int:
    return images.decode(blob, limits).status


def rows_of(blob: bytes) -> np.ndarray:
    """What a lenient decoder makes of a cut file that has an end marker."""
    return np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int)


SEQUENTIAL: dict[str, bytes] = {
    "4:2:0": encode(noisy(), "JPEG"),
    "4:4:4": encode(noisy(), "JPEG", subsampling=0),
    "4:2:2, one pixel of the last unit": encode(noisy(129, 129), "JPEG", subsampling=1),
    "grey": encode(noisy().convert("L"), "JPEG"),
    "CMYK": encode(noisy().convert("CMYK"), "JPEG"),
    "restart markers": encode(noisy(), "JPEG", restart_marker_blocks=4),
    "restart markers, one a row": encode(noisy(), "JPEG", restart_marker_rows=1),
    "with a thumbnail": encode(noisy(), "JPEG", exif=b"Exif\0\0" + encode(picture(20, 20), "JPEG")),
    "optimized": encode(noisy(), "JPEG", optimize=True, quality=30),
}


@pytest.mark.parametrize("blob", SEQUENTIAL.values(), ids=SEQUENTIAL)
def test_a_jpeg_is_decoded_if_all_rows_are_there(blob: bytes) -> None:
    """Cut anywhere, with and without an end marker. A cut within the last unit may be taken for whole."""
    assert blob.endswith(END)
    whole = rows_of(blob)
    for file in (blob, blob[:-1], blob[:-2], blob + bytes(7), blob[:-2] + b"\xff\xff" + END):
        assert status(file) == images.OK
    data = jpeg.layout_of(blob).scans[0].end
    cuts = [*range(data - 40, data, 3), *np.linspace(data * 0.45, data - 40, 12).astype(int)]
    refused = 0
    for cut in cuts:
        differs = np.abs(rows_of(blob[:cut] + END) - whole).max(axis=2) > 0
        differs[-BLOCKS:, -BLOCKS:] = False
        if differs.any():
            refused += 1
            assert [status(blob[:cut] + end) for end in (END, b"", b"\0\0")] == [Status.NOT_AN_IMAGE] * 3
    assert refused >= 11


@pytest.mark.parametrize("side", [640, 60, 20])
def test_a_reduced_jpeg_is_decoded_if_all_rows_are_there(side: int) -> None:
    blob, limits = encode(noisy(500, 400), "JPEG"), images.Limits(canvases=(side,))
    assert [status(file, limits) for file in (blob, blob[:-2])] == [images.OK] * 2
    for part in (0.3, 0.5, 0.9, 0.99):
        half = blob[: int(len(blob) * part)]
        assert [status(half + end, limits) for end in (b"", END)] == [Status.NOT_AN_IMAGE] * 2


def test_a_grey_corner_is_no_sign_of_a_cut() -> None:
    for mode in ("RGB", "L"):
        for options in ({}, {"restart_marker_rows": 1}, {"progressive": True}):
            assert status(encode(Image.new(mode, (90, 70), (128,) * len(mode)), "JPEG", **options)) == images.OK


def test_a_progressive_jpeg_is_decoded_if_all_scans_are_there() -> None:
    """With an end marker, the last scan may be cut: it adds the last bit of coefficients, and no rows."""
    blob = encode(noisy(), "JPEG", progressive=True)
    layout, whole = jpeg.layout_of(blob), rows_of(blob)
    assert len(layout.scans) > 5
    assert layout.is_exact
    assert layout.ends_with_a_refinement
    for file in (blob, blob[:-2], blob + bytes(7)):
        assert status(file) == images.OK
    before_last = layout.scans[-2].end
    for cut in np.linspace(before_last * 0.3, before_last - 10, 12).astype(int):
        assert [status(blob[:cut] + end) for end in (END, b"")] == [Status.NOT_AN_IMAGE] * 2
    for cut in np.linspace(before_last + 200, layout.end - 30, 5).astype(int):
        assert [status(blob[:cut] + end) for end in (END, b"")] == [images.OK, Status.NOT_AN_IMAGE]
        assert np.abs(rows_of(blob[:cut] + END) - whole).mean() < 12


def test_scans_and_segments_without_end_are_refused() -> None:
    """They would take minutes: each scan costs time for all pixels, each segment a step in Python."""
    blob = encode(noisy(), "JPEG", progressive=True)
    last = jpeg.layout_of(blob).scans[-1]
    scan = blob[blob.rindex(b"\xff\xda", 0, last.end) : last.end]
    assert status(blob[:-2] + scan * 200 + END) == Status.NOT_AN_IMAGE
    assert status(blob[:2] + b"\xff\xfe\0\2" * 3_000 + blob[2:]) == Status.NOT_AN_IMAGE
    png = encode(noisy())
    assert status(png[:33] + chunk(b"teXt", b"") * 30_000 + png[33:]) == Status.NOT_AN_IMAGE
    for good in (blob[:2] + b"\xff\xfe\0\2" * 200 + blob[2:], png[:33] + chunk(b"teXt", b"") * 200 + png[33:]):
        assert status(good) == images.OK


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


IEND = chunk(b"IEND", b"")


def png_of(packed: bytes, end: bytes = IEND) -> bytes:
    """An RGB PNG of 90 x 120 pixels with this packed data."""
    header = struct.pack(">IIBBBBB", 90, 120, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + end


BLACK = bytes(len(np.asarray(noisy(120, 90)).tobytes()) + 120)
ROWS = b"".join(b"\0" + row.tobytes() for row in np.asarray(noisy(120, 90)))
PNG: dict[str, tuple[bytes, bool]] = {
    "whole": (png_of(zlib.compress(ROWS)), True),
    "without IEND": (png_of(zlib.compress(ROWS), b""), True),
    "half of IEND": (png_of(zlib.compress(ROWS), IEND[:6]), True),
    "bytes behind its end": (png_of(zlib.compress(ROWS)) + bytes(9), True),
    "half the data": (png_of(zlib.compress(ROWS)[: len(ROWS) // 2]), False),
    "half the data without IEND": (png_of(zlib.compress(ROWS)[: len(ROWS) // 2], b""), False),
    "half the rows, packed well": (png_of(zlib.compress(ROWS[: len(ROWS) // 2])), False),
    "one row less": (png_of(zlib.compress(ROWS[: -len(ROWS) // 120])), False),
    "black": (png_of(zlib.compress(BLACK)), True),
    "black, one row less": (png_of(zlib.compress(BLACK[:-271])), False),
    "cut within the data": (png_of(zlib.compress(ROWS), b"")[:-400], False),
}


@pytest.mark.parametrize(("blob", "whole"), PNG.values(), ids=PNG)
def test_a_png_is_decoded_if_all_rows_are_there(blob: bytes, whole: bool) -> None:
    assert status(blob) == (images.OK if whole else Status.NOT_AN_IMAGE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_a_black_png_of_every_kind_is_whole(mode: str) -> None:
    for size in ((90, 70), (1, 1), (9, 3)):
        assert status(encode(Image.new(mode, size))) == images.OK


def test_a_black_interlaced_png_is_whole() -> None:
    """Its seven passes have 1, 1, 1, 2, 2, 3 and 2 rows; each row begins with its filter."""
    columns_and_rows = [(2, 1), (1, 1), (3, 1), (2, 2), (5, 1), (4, 3), (9, 2)]
    for bits, colour in ((8, 2), (4, 0)):
        samples = 3 if colour == 2 else 1
        rows = b"".join(bytes(r * (1 + (c * bits * samples + 7) // 8)) for c, r in columns_and_rows)
        header = struct.pack(">IIBBBBB", 9, 5, bits, colour, 0, 0, 1)
        for packed, expected in ((rows, images.OK), (rows[:-1], Status.NOT_AN_IMAGE)):
            blob = png_of(zlib.compress(packed))
            assert status(blob[:8] + chunk(b"IHDR", header) + blob[33:]) == expected


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(6)}], ids=["lossy", "lossless", "EXIF"])
def test_a_cut_webp_is_refused_also_if_its_sizes_are_mended(options: dict[str, object]) -> None:
    blob = encode(noisy(), "WEBP", **options)
    assert status(blob) == images.OK
    for part in (0.3, 0.6, 0.9):
        cut = bytearray(blob[: int(len(blob) * part) & ~1])
        assert status(bytes(cut)) == Status.NOT_AN_IMAGE
        cut[4:8] = struct.pack("<I", len(cut) - 8)
        place = max(cut.find(b"VP8 "), cut.find(b"VP8L"))
        cut[place + 4 : place + 8] = struct.pack("<I", len(cut) - place - 8)
        assert status(bytes(cut)) == Status.NOT_AN_IMAGE
