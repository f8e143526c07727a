"""Files that unpack to gigabytes or are damaged at random, decoded in a process of their own."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from serving.paths import ROOT
from tests.pictures import encode, exif, picture

# Prints the statuses, and the peak growth of the process in MiB.
PROGRAM = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from serving.decode.images import Limits, decode

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

def status(file):
    image = decode(file.read_bytes(), Limits())
    assert image.image_rgb.shape == (*image.size[:2], 3) and max(image.size[:2]) <= 768
    return image.status

files, before = sorted(Path(sys.argv[1]).iterdir()), peak()
with ThreadPoolExecutor(4) as threads:
    print(*threads.map(status, files))
print(peak() - before)
"""


def decode_apart(files: list[bytes], folder: Path) -> tuple[list[int], int]:
    """Statuses, and the growth in MiB. Fails if the process fails."""
    folder.mkdir()
    for number, blob in enumerate(files):
        (folder / f"{number:04}").write_bytes(blob)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    statuses, grown = done.stdout.splitlines()
    return [int(status) for status in statuses.split()], int(grown)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A complete PNG of this many pixels, compressed 200 times."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_chunk(kind: bytes, head: bytes) -> bytes:
    """A good PNG with 100 MB of zeros in a compressed chunk."""
    png = encode(picture())
    packed = zlib.compress(bytes(100 << 20), 1)
    return png[:33] + chunk(kind, head + packed) + png[33:]


def with_size(jpeg: bytes, marker: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header has a wrong size."""
    place = jpeg.index(marker) + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def huge_animation() -> bytes:
    """A WebP animation of one small frame on a canvas of 268 megapixels."""
    still = encode(picture(), "WEBP", lossless=True)[12:]

    def number(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    frame = bytes(6) + number(89) + number(119) + bytes(4) + still
    parts = [(b"VP8X", bytes([2, 0, 0, 0]) + number(16382) * 2), (b"ANIM", bytes(6)), (b"ANMF", frame)]
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif_of_nonsense() -> bytes:
    """EXIF whose 5,000 entries each claim two gigabytes."""
    entries = b"".join(struct.pack(">HHII", tag, 2, 0x7FFFFFFF, 8) for tag in range(5000))
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5000) + entries


def test_decompression_bombs_take_little_memory(tmp_path: Path) -> None:
    jpeg = encode(picture(), "JPEG")
    bombs = {
        "PNG of 4 MB and 800 MB": (bomb(16_300, 16_300), 3),
        "JPEG that claims to be 65,500 x 65,500": (with_size(jpeg, b"\xff\xc0", 65_500, 65_500), 3),
        "WebP animation of 268 megapixels": (huge_animation(), 3),
        "PNG with an ICC profile of 100 MB": (with_chunk(b"iCCP", b"profile\0\0"), 2),
        "PNG with a text of 100 MB": (with_chunk(b"zTXt", b"text\0\0"), 2),
        "PNG with a UTF-8 text of 100 MB": (with_chunk(b"iTXt", b"text\0\1\0\0\0"), 2),
        "JPEG with nonsense for EXIF": (encode(picture(), "JPEG", exif=exif_of_nonsense()), 0),
    }
    statuses, grown = decode_apart([blob for blob, _ in bombs.values()], tmp_path / "files")
    assert dict(zip(bombs, statuses, strict=True)) == {name: status for name, (_, status) in bombs.items()}
    assert grown < 32


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    """Images of just over LARGE_PIXELS in 46 bytes each, which would take 1,300 MiB together."""
    tiny = encode(Image.new("RGBA", (4100, 4000), (1, 2, 3, 4)), "WEBP", lossless=True, method=0, quality=0)
    assert len(tiny) < 100
    statuses, grown = decode_apart([tiny] * 4, tmp_path / "files")
    assert statuses == [0] * 4
    assert grown < 700


def test_randomly_damaged_files_have_a_status(tmp_path: Path) -> None:
    """Bytes are changed, repeated and cut out; the 600 files are the same every time."""
    random = np.random.default_rng(7)
    image = Image.fromarray(picture(60, 50))
    good = [
        encode(image, "JPEG", exif=exif(6)),
        encode(image, "JPEG", progressive=True),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG"),
        encode(image.quantize(16), "PNG", transparency=0),
        encode(image.convert("RGBA"), "PNG", save_all=True, append_images=[Image.fromarray(picture(60, 50, 2))]),
        encode(image, "WEBP"),
        encode(image.convert("RGBA"), "WEBP", lossless=True),
    ]
    statuses, grown = decode_apart([damage(good[i % len(good)], random) for i in range(600)], tmp_path / "files")
    assert set(statuses) <= {0, 2, 3}
    # Some files are damaged, and not all.
    assert 60 < statuses.count(0) < 500
    assert grown < 400


def damage(blob: bytes, random: np.random.Generator) -> bytes:
    result = bytearray(blob)
    # Damaged headers are the more dangerous ones, so half of the damage is there.
    for _ in range(random.integers(1, 6)):
        end = len(result) if random.random() < 0.5 else min(200, len(result))
        begin = int(random.integers(0, end))
        length = int(random.integers(1, 9))
        match random.integers(4):
            case 0:
                result[begin : begin + length] = random.bytes(length)
            case 1:
                result[begin:begin] = result[begin : begin + length]
            case 2:
                del result[begin : begin + length]
            case _:
                result[begin : begin + 2] = b"\xff\xff"
    return bytes(result)
