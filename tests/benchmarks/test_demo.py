"""The demo on a user's own photos: where their types come from, and what counts as a right result."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo import Embeddings, Entry, ask, correct, find_own, indexed, share_right
from vlclip import ImageEmbeddings, Status


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(source: Path, product_type: str = "") -> list[tuple[str, str, str]]:
    return [(photo.path.name, photo.product_type, photo.label) for photo in find_own(source, product_type)]


def test_types_come_from_a_table_else_from_the_option_else_from_subfolders(tmp_path: Path) -> None:
    write(tmp_path, "mug/1.jpg", "desk lamp/blue/2.png", "desk lamp/notes.txt")
    assert found(tmp_path) == [("2.png", "desk lamp", ""), ("1.jpg", "mug", "")]
    assert found(tmp_path, "cup") == [("2.png", "cup", ""), ("1.jpg", "cup", "")]
    (tmp_path / "photos.csv").write_text("path,label,type\nmug/1.jpg,red mug,mug\ndesk lamp/blue/2.png,,\n")
    expected = [("1.jpg", "mug", "red mug"), ("2.png", "lamp", "")]
    assert found(tmp_path, "lamp") == expected
    assert found(tmp_path / "photos.csv", "lamp") == expected
    (tmp_path / "photos.csv").write_text("file,product_type\nmug/1.jpg,mug\n")
    assert found(tmp_path) == [("1.jpg", "mug", "")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(
            None, r"(?s)1 of 2 photos have no product type, such as .*/1\.jpg.*TYPE=.*/mug/1\.jpg", id="no type"
        ),
        pytest.param("path,type\n", "no photos in", id="an empty table"),
        pytest.param("photo,kind\n1.jpg,mug\n", "must have the columns path and type .*, got photo", id="columns"),
        pytest.param(
            "path,type\n9.jpg,mug\n", r"photos\.csv names .*9\.jpg, which is not a file", id="a missing photo"
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, table: str | None, message: str) -> None:
    write(tmp_path, "1.jpg", "mug/2.jpg")
    if table is not None:
        (tmp_path / "photos.csv").write_text(table)
    with pytest.raises(SystemExit) as caught:
        find_own(tmp_path, "")
    assert re.search(message, str(caught.value))


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no folder or table .*nowhere"):
        find_own(tmp_path / "nowhere", "mug")


def test_results_are_right_or_wrong_only_if_there_are_two_groups() -> None:
    mugs = [Entry(Path(name), "mug", name, "mug", "mug") for name in ("1", "2")]
    lamp = Entry(Path("3"), "lamp", "3", "lamp", "lamp")
    assert correct(mugs, 0, 1, by_text=False) is None
    assert [correct([*mugs, lamp], 0, found, by_text=True) for found in (1, 2)] == [True, False]


@pytest.mark.parametrize(
    ("right", "share"),
    [
        pytest.param([[False] * 7], np.nan, id="nothing can be right"),
        pytest.param([[True] * 7], 1, id="more are right than are shown"),
        pytest.param([[True] + [False] * 5 + [True]], 1 / 2, id="the first and the last"),
        pytest.param([[True] * 7, [False] * 7], 1, id="a query without a right photo does not count"),
        pytest.param([[True] * 7, [False] * 6 + [True]], 1 / 2, id="the mean of two queries"),
    ],
)
def test_the_share_of_right_photos_among_the_first_five(right: list[list[bool]], share: float) -> None:
    cosine = np.tile(np.arange(7, 0, -1) / 7, (len(right), 1))
    np.testing.assert_equal(share_right(cosine, np.array(right)), share)


def test_the_index_finds_the_nearest_photos_but_not_the_photo_of_the_query(tmp_path: Path) -> None:
    count = 40
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(3, count, 8)).astype(np.float32)
    grounded, whole, text = arrays / np.linalg.norm(arrays, axis=-1, keepdims=True)
    status = np.zeros(count, np.int32)
    status[7] = Status.NOT_AN_IMAGE
    box, none = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
    found = ImageEmbeddings(grounded, box, none, status, np.zeros(count, bool), np.array(["v"] * count))
    embeddings = Embeddings(found, whole, text)
    entries = [Entry(Path(f"{n}"), "mug", f"{n}", f"{n}", f"{n}") for n in range(count)]
    with indexed(tmp_path, embeddings) as indices:
        by_text, by_photo = ask(entries, embeddings, indices)
    assert (len(by_text), len(by_photo)) == (12, 8)
    for query in (*by_text, *by_photo):
        for hits, images in ((query.grounded, grounded), (query.whole, whole)):
            near = images[query.row] if query.row is not None else text[int(query.title)]
            cosine = images @ near
            cosine[[7] if query.row is None else [7, query.row]] = -np.inf
            assert [hit.row for hit in hits] == np.argsort(-cosine)[:5].tolist()
            np.testing.assert_allclose([hit.cosine for hit in hits], np.sort(-cosine)[:5] * -1, atol=1e-5)
