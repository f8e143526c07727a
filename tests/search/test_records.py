"""Catalogues are read row by row; a bad row is reported with its place and reason, and costs only itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search.records import BadRow, CatalogueError, Product, product_of, read

MUG: dict[str, Any] = {
    "id": "7", "product_type": "mug", "title": "Red mug", "price": 12.5, "tags": ["red", "gift"], "photos": ["a.jpg"],
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("id,type,title,price,tags,path\n7,mug,Red mug,12.5,red|gift,a.jpg\n")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_product(tmp_path: Path, suffix: str) -> None:
    [product] = read(write(tmp_path / f"catalogue{suffix}", [MUG]))
    assert isinstance(product, Product)
    assert product.model_dump() == {
        "id": "7", "product_type": "mug", "title": "Red mug", "description": "",
        "attributes": {"price": 12.5, "tags": ["red", "gift"]}, "photos": (str(tmp_path / "a.jpg"),),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "this line is not JSON"),
        ("[1]", "expected an object, got list"),
        ('{"photos": ["a.jpg"]}', "id is missing"),
        ('{"id": "", "photos": ["a.jpg"]}', "id is missing"),
        ('{"id": "1"}', "photos is missing"),
        ('{"id": "1", "photos": []}', "photos: tuple should have at least 1 item"),
        ('{"id": "1", "photo": "a.jpg", "image": "b.jpg"}', "names its photos twice"),
        ('{"id": "1", "photo": "a.jpg", "size": {"w": 1}}', "attributes.size"),
        ('{"id": "1", "photo": "a.jpg", "attributes": 5}', "attributes must be an object"),
        ('{"id": "good", "photo": "a.jpg"}', "the id 'good' is also on line 1"),
        ("[" * 100_000, "this line is not JSON"),
        ('{"id": "1", "photo": "a.jpg", "title": "\\ud800"}', "title: input should be a valid string"),
        ('{"id": "1", "photo": "a.jpg", "na\\"me": 1}', "a name without quotation marks and backslashes"),
        ('{"id": "%s", "photo": "a.jpg"}' % ("x" * 257), "at most 256 characters"),
        (json.dumps({"id": "1", "photo": "a.jpg"} | {f"a{n}": 1 for n in range(10_000)}), "at most 500 items"),
    ],
)
def test_a_bad_line_costs_only_itself(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "catalogue.jsonl"
    good = '{"id": "good", "photo": "a.jpg"}'
    path.write_text("\n".join([good, line, good.replace("good", "last")]) + "\n")
    first, bad, last = read(path)
    assert isinstance(first, Product)
    assert isinstance(last, Product)
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:2"
    assert reason in bad.reason


def test_a_folder_takes_the_types_from_its_subfolders(tmp_path: Path) -> None:
    for name in ("table_lamp/1.jpg", "mug/deep/2.PNG", "loose.webp", "mug/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    products = [row for row in read(tmp_path) if isinstance(row, Product)]
    assert {product.id: product.product_type for product in products} == {
        "loose.webp": "", "mug/deep/2.PNG": "mug", "table_lamp/1.jpg": "table lamp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.jsonl", None, "there is no catalogue"),
        ("photos.zip", b"x", "is not a catalogue"),
        ("a.csv", b"sku,title\n1,x\n", "has no column named id; its columns are sku, title"),
        ("a.parquet", b"x" * 100, "is not a Parquet file"),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_one_error(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogueError, match=reason):
        list(read(tmp_path / name))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12.50", 12.5),
        ("7", 7.0),
        ("12,50", "12,50"),
        ("true", True),
        ("00123", "00123"),
        ("1e5", "1e5"),
        ("a|b", ["a", "b"]),
        ("x", "x"),
    ],
)
def test_a_cell_of_csv_has_a_type(tmp_path: Path, cell: str, value: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'id,photo,field\n1,a.jpg,"{cell}"\n')
    [product] = read(path)
    assert isinstance(product, Product)
    assert product.attributes == {"field": value}


def test_a_url_and_a_data_uri_are_not_paths() -> None:
    photos = ("https://shop.example/a.jpg", "data:image/png;base64,AA==")
    assert product_of({"id": 1, "photos": list(photos)}).photos == photos


def test_numbers_that_are_none_are_missing(tmp_path: Path) -> None:
    rows = [{"id": "1", "photo": "a.jpg", "price": float("nan"), "rank": float("inf"), "colour": "red"}]
    for suffix in (".jsonl", ".parquet"):
        [product] = read(write(tmp_path / f"a{suffix}", rows))
        assert isinstance(product, Product)
        assert product.attributes == {"colour": "red"}
    (tmp_path / "a.csv").write_text("id,photo,price,colour\n1,a.jpg,nan,red\n")
    [product] = read(tmp_path / "a.csv")
    assert isinstance(product, Product)
    assert product.attributes == {"colour": "red"}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_that_is_not_utf_8_costs_only_itself(tmp_path: Path, name: str) -> None:
    lines = ["id,photo,title", "1,a.jpg,größe", "2,a.jpg,size"]
    if name == "a.jsonl":
        lines = ['{"id": "1", "photo": "a.jpg", "title": "größe"}', '{"id": "2", "photo": "a.jpg"}']
    (tmp_path / name).write_bytes("\n".join(lines).encode("latin-1"))
    bad, good = read(tmp_path / name)
    assert isinstance(bad, BadRow)
    assert "is not UTF-8" in bad.reason
    assert isinstance(good, Product)
