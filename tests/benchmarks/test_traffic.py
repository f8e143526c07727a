"""Requests: their shares, Zipf's law, hot photos, and that they depend on the seed and their number alone."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.traffic import Traffic, draw_photos, parse_batches, parse_mix, read_photos
from training.catalogue.items import TRAINED_TYPES

ASKS = 4000


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos of each of 5 types, told apart by their bytes."""
    for number in range(50):
        folder = tmp_path / ("mug", "lamp", "sock", "plate", "kite")[number % 5]
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(f"{folder.name} {number}".encode())
    return tmp_path


def test_shares_of_pipelines_batches_and_clients(photos: Path) -> None:
    mix = "product_image=60,product_text=30,enriched_text=10"
    traffic = Traffic(photos, mix=mix, batches="1=75,4=25", clients="vlclip=50,tritonclient=50")
    asks = [traffic.ask(number) for number in range(ASKS)]
    table: list[tuple[Counter[Any], dict[Any, float]]] = [
        (Counter(ask.pipeline for ask in asks), {"product_image": 0.6, "product_text": 0.3, "enriched_text": 0.1}),
        (Counter(ask.items for ask in asks), {1: 0.75, 4: 0.25}),
        (Counter(ask.client for ask in asks), {"vlclip": 0.5, "tritonclient": 0.5}),
    ]
    for counts, expected in table:
        assert counts.keys() == expected.keys()
        for name, part in expected.items():
            assert counts[name] / ASKS == pytest.approx(part, abs=0.04)


def test_product_types_follow_zipfs_law_and_some_photos_are_hot(photos: Path) -> None:
    traffic = Traffic(photos, mix="product_image=1", batches="1=1")
    asks = [traffic.ask(number) for number in range(ASKS)]
    types = Counter(ask.texts[0] for ask in asks).most_common()
    total = sum(1 / rank for rank in range(1, 6))
    for rank, (_, count) in enumerate(types, start=1):
        assert count / ASKS == pytest.approx(1 / rank / total, abs=0.04)
    first = types[0][0]
    of_first = Counter(ask.images[0] for ask in asks if ask.texts[0] == first)
    assert all(image.startswith(first.encode()) for image in of_first)
    # One of ten is hot: it gets 30 %, and its tenth of the rest.
    assert of_first.most_common()[0][1] / of_first.total() == pytest.approx(0.37, abs=0.06)


def test_a_request_depends_on_the_seed_and_its_number_alone(photos: Path) -> None:
    first, second = Traffic(photos, seed=4), Traffic(photos, seed=4)
    asks = [first.ask(number) for number in range(100)]
    assert [second.ask(number) for number in reversed(range(100))] == asks[::-1]
    assert [Traffic(photos, seed=5).ask(number) for number in range(100)] != asks


def test_each_pipeline_gets_what_it_takes(photos: Path) -> None:
    for pipeline, texts, images in [
        ("product_image", 4, 4),
        ("ground", 4, 4),
        ("whole_image", 0, 4),
        ("product_text", 4, 0),
        ("enriched_text", 4, 4),
    ]:
        ask = Traffic(photos, mix=f"{pipeline}=1", batches="4=1").ask(0)
        assert (len(ask.texts), len(ask.images), ask.items) == (texts, images, 4)


def test_photos_at_the_top_get_types_of_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"photo")
    traffic = Traffic(tmp_path, mix="product_image=1")
    assert {name for number in range(200) for name in traffic.ask(number).texts} <= set(TRAINED_TYPES)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_mix, "", "expected NAME=SHARE"),
        (parse_mix, "ground", "expected NAME=SHARE"),
        (parse_mix, "ground=much", "expected NAME=SHARE"),
        (parse_mix, "grind=1", 'unknown name "grind": expected some of product_image, '),
        (parse_mix, "ground=0", "one above 0"),
        (parse_mix, "ground=-1", "one above 0"),
        *((parse_batches, text, "ITEMS=SHARE") for text in ("0=1", "one=1", "1.5=1")),
    ],
)
def test_wrong_shares(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_drawn_photos_are_of_the_types_of_their_folders_and_the_same_again(tmp_path: Path) -> None:
    draw_photos(tmp_path / "a", TRAINED_TYPES[:6], each=1)
    draw_photos(tmp_path / "b", TRAINED_TYPES[:6], each=1)
    drawn = read_photos(tmp_path / "a")
    assert drawn == read_photos(tmp_path / "b")
    assert sorted(drawn) == sorted(TRAINED_TYPES[:6])
    for files in drawn.values():
        with Image.open(io.BytesIO(files[0])) as image:
            assert 300 <= min(image.size) <= max(image.size) <= 1890
    assert not list(tmp_path.glob(".photos-*"))


def test_of_many_photos_some_of_every_type_are_read(tmp_path: Path) -> None:
    for number in range(2500):
        folder = tmp_path / f"type {number % 5}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(b"photo")
    found = read_photos(tmp_path)
    assert len(found) == 5
    assert 1000 < sum(map(len, found.values())) <= 2000


def test_photos_csv_has_the_product_types(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "shelf" / name).write_bytes(name.encode())
    (tmp_path / "photos.csv").write_text("path,type\nshelf/1.jpg,mug\nshelf/2.jpg,\n")
    assert read_photos(tmp_path) == {"mug": [b"1.jpg"], "shelf": [b"2.jpg"]}
