"""The hashes of photos find the same photo again, in another size or format."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import draw_scenes
from search.photos import PhotoError, bands, distance, fingerprint, from_data_uri, load


def encode(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_copies_in_other_sizes_and_formats_are_near_and_other_photos_are_far() -> None:
    one, other = (scene.jpeg for scene in draw_scenes(2, seed=5))
    image = Image.open(io.BytesIO(one)).convert("RGB")
    copies = [
        encode(image, "PNG"),
        encode(image.resize((image.width * 2, image.height * 2)), "JPEG", quality=80),
        encode(image, "WEBP", quality=70),
    ]
    mine = fingerprint(one)
    for copy in copies:
        found = fingerprint(copy)
        assert found.content != mine.content
        assert distance(found.perceptual, mine.perceptual) <= 3
    assert distance(fingerprint(other).perceptual, mine.perceptual) > 10


def test_the_size_is_that_of_the_photo_as_displayed() -> None:
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(file, "JPEG", exif=exif)
    assert fingerprint(file.getvalue()).size == (40, 30)


def test_a_file_that_is_no_image_has_no_perceptual_hash() -> None:
    assert fingerprint(b"no image").perceptual == ""
    assert bands("", 3) == []


@pytest.mark.parametrize("radius", [0, 1, 3, 6])
def test_hashes_within_the_radius_share_a_band(radius: int) -> None:
    rng = random.Random(1)
    for _ in range(200):
        bits = rng.getrandbits(64)
        near = bits
        for bit in rng.sample(range(64), radius):
            near ^= 1 << bit
        assert set(bands(f"{bits:016x}", radius)) & set(bands(f"{near:016x}", radius))


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        ("/no/such.jpg", "cannot be read"),
        ("https://shop.example/a.jpg", "is a URL"),
        ("data:image/png;base64", "needs a comma"),
        ("data:image/png;base64,@@", "is not base64"),
        (b"", "is empty"),
    ],
)
def test_a_photo_that_cannot_be_read_says_why(photo: str | bytes, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason):
        load(photo)


def test_a_data_uri_gives_its_bytes() -> None:
    assert from_data_uri("data:image/png;base64,aGk=") == b"hi"
    assert from_data_uri("data:,a%20b") == b"a b"
