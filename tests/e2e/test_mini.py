"""The mini models through a real server: the answers are correct, whichever way they are requested."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from benchmarks import demo, parity, retrieval
from benchmarks.judge import box_iou
from benchmarks.photos import draw_scenes, find_photos
from export.reference import Reference, open_image
from serving.server.server import Server
from training.catalogue.scenes import Photo
from vlclip import Client, Status


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return draw_scenes(33, 99)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    # One batch at a time, so that a busy machine refuses nothing.
    with Client(server.grpc_url, timeout=300, max_in_flight=1) as client:
        yield client


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("mini")


def _prompts(photos: list[Photo]) -> list[str]:
    return [photo.items[0].product_type for photo in photos]


def test_grounding_finds_the_right_product_and_makes_it_searchable(client: Client) -> None:
    report = retrieval.run(client, scenes=120, seed=4711)
    assert report["iou50"] >= 0.9
    assert report["grounded_present"] >= 0.9
    assert report["grounded_absent"] <= 0.1
    assert report["grounded_unknown"] <= 0.05
    assert report["hits5_grounded"] >= 0.9
    assert report["hits5_grounded"] >= report["hits5_whole"] + 0.15
    assert report["mrr_grounded"] > report["mrr_whole"]
    assert 0 <= report["held_out_types"]["iou50"] <= 1


@pytest.mark.parametrize("size", [(420, 300), (640, 640), (1600, 1100), (37, 250)])
def test_served_embeddings_equal_the_reference(
    client: Client, reference: Reference, photos: list[Photo], size: tuple[int, int]
) -> None:
    files = []
    for photo in photos[:8]:
        file = io.BytesIO()
        Image.open(io.BytesIO(photo.jpeg)).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    found = client.embed_images(files, _prompts(photos[:8]))
    expected = reference.embed([open_image(file) for file in files], list(found.box_xyxy))
    assert (found.embedding * expected).sum(1).min() >= 0.999
    whole = client.embed_whole_images(files)
    assert (whole.embedding * reference.embed([open_image(file) for file in files])).sum(1).min() >= 0.999
    assert whole.status.tolist() == [Status.WHOLE_IMAGE] * 8


def test_texts_equal_the_reference(client: Client, reference: Reference, photos: list[Photo]) -> None:
    texts = [text for photo in photos for text in (photo.items[0].caption, photo.items[0].title)]
    texts += ["", "  A  RED\tMUG ", "赤いマグカップ", "🏺 vase", "x" * 10_000, "naïve café", "\x00\x01 mug"]
    served = client.embed_texts(texts).embedding
    assert (served * reference.embed_texts(texts)).sum(1).min() >= 0.9999


def test_the_prompt_decides_what_is_found(client: Client, photos: list[Photo]) -> None:
    hits = total = 0
    for photo in photos[:12]:
        found = client.ground([photo.jpeg] * len(photo.items), [item.product_type for item in photo.items])
        hits += int((box_iou(found.box_xyxy, photo.boxes_xyxy) >= 0.5).sum())
        total += len(photo.items)
    assert hits / total >= 0.8


def test_parity_reads_a_folder_of_photos(
    client: Client, reference: Reference, photos: list[Photo], tmp_path: Path
) -> None:
    for index, photo in enumerate(photos[:5]):
        (tmp_path / f"{index}.jpg").write_bytes(photo.jpeg)
    (tmp_path / "photos.csv").write_text(
        "path,type\n" + "".join(f"{i}.jpg,{prompt}\n" for i, prompt in enumerate(_prompts(photos[:5])))
    )
    report = parity.compare(client, reference, find_photos(tmp_path))
    assert report["photos"] == 5
    assert report["cosine_min"] >= 0.999


def test_the_demo_writes_a_page_of_a_users_own_photos(
    server: Server, photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for index, photo in enumerate(photos[:7]):
        shown = folder / photo.items[0].product_type
        shown.mkdir(exist_ok=True)
        (shown / f"#{index} 100%.jpg").write_bytes(photo.jpeg)
    (shown / "broken.jpg").write_bytes(b"not an image")
    arguments = ["--photos", str(folder), "--out", str(tmp_path / "page"), "--url", server.grpc_url]
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    demo.main()
    page = (tmp_path / "page/index.html").read_text()
    assert page.count("<section>") >= 8
    assert page.count("not an image</small>") == 1
    assert "right among the first 5 results of a text" in page
    found = re.search(r"product found in the photo<b>(\d+) ", page)
    assert found
    assert 5 <= int(found[1]) == len(list((tmp_path / "page/crops").iterdir()))
    for source in re.findall(r'src="([^"]+)"', page):
        assert (tmp_path / "page" / unquote(source)).is_file()
