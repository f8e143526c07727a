"""What is written for a catalogue: nothing twice, duplicates once, and nothing that a later row has replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.index import MOST_FIELDS, IndexFault
from search.photos import bands, fingerprint
from search.questions import Duplicates, Options
from search.records import BadRow, Product, read
from search.shop import Shop
from search.store import Store
from tests.search.fakes import Models
from tests.search.test_index import ENGINES, make_store

pytestmark = [pytest.mark.filterwarnings("ignore:Local mode"), pytest.mark.filterwarnings("ignore:Payload indexes")]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return make_store(request.param, tmp_path / "index")


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def shop(store: Store, models: Models) -> Any:
    shop = Shop(store, models.client)
    yield shop
    shop.close()


def picture(seed: int, colour: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    """A drawing of shapes, whose places depend on the seed, and whose greys do not depend on the colour."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (256, 192), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = (int(n) for n in rng.integers(0, 180, 2))
        draw.rectangle((x, y, x + 60, y + 45), fill=colour, outline="black")
    return image


def save(image: Image.Image, path: Path, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def product(name: str, *photos: str, kind: str = "mug", **attributes: Any) -> Product:
    return Product(id=name, product_type=kind, title=name, attributes=attributes, photos=photos)


def words(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def groups(shop: Shop) -> list[list[str]]:
    return [one.products for one in shop.duplicates(10)]


def names(hits: Any) -> list[str]:
    return [hit.payload["product"] for hit in hits]


def test_copies_of_a_photo_are_embedded_once_and_listed(shop: Shop, models: Models, tmp_path: Path) -> None:
    image = picture(1)
    first = save(image, tmp_path / "a.png")
    same = save(image, tmp_path / "b.png")
    larger = save(image.resize((512, 384)), tmp_path / "c.jpg", quality=80)
    other = save(picture(2), tmp_path / "d.png")
    report = shop.upsert([product("a", first), product("b", same), product("c", larger, other), product("d", other)])
    assert report.photos == {"embedded": 2, "shared": 3}
    assert models.calls == 2
    near, exact = shop.duplicates(10)
    assert near == Duplicates(near.group, False, ["a", "b", "c"], [("a", 0, first), ("b", 0, same), ("c", 0, larger)])
    assert (exact.exact, exact.products) == (True, ["c", "d"])
    assert shop.duplicates(10, offset=1) == [exact]
    boxes = {point.payload["photo"]: point.payload["box"] for point in shop.served().points({})}
    assert (boxes[first], boxes[larger]) == ([0, 0, 10, 10], [0, 0, 20, 20])  # in pixels of each photo

    # A duplicate is not similar to the product, not even by another of its photos.
    assert names(shop.similar("a", Options())) == ["d"]
    assert set(names(shop.similar("a", Options(), duplicates=True))) == {"b", "c", "d"}
    assert names(shop.recommend({"a": 1.0}, Options())) == ["d"]
    assert set(names(shop.recommend({"a": 1.0}, Options(), duplicates=True))) == {"b", "c", "d"}
    assert names(shop.recommend({"d": 1.0}, Options(), disliked=["b"])) == []

    # Another product type looks for another box, so it shares the group but not the embedding.
    assert shop.upsert([product("lamp", first, kind="lamp")]).photos == {"embedded": 1}
    assert "lamp" in groups(shop)[0]


@pytest.mark.parametrize("change", ["colour", "turned", "shapes"])
def test_what_only_resembles_a_photo_is_no_copy_of_it(shop: Shop, tmp_path: Path, change: str) -> None:
    blue = (20, 71, 255)  # as grey as the red
    red = (255, 20, 20)
    one = picture(1, red)
    exif = Image.Exif()
    exif[274] = 3
    paths = [save(one, tmp_path / "a.jpg", quality=95)]
    if change == "turned":
        paths.append(save(one, tmp_path / "b.jpg", quality=95, exif=exif))
    else:
        other = picture(1, blue) if change == "colour" else picture(9, red)
        paths.append(save(other, tmp_path / "b.jpg", quality=95))
    shop.upsert([product(f"p{n}", path) for n, path in enumerate(paths)])
    assert groups(shop) == []


def test_a_photo_that_is_near_two_groups_makes_them_one(shop: Shop, tmp_path: Path) -> None:
    """It differs from either in 3 bits, which differ from each other in 6."""
    shop.upsert([product(name, save(picture(n), tmp_path / f"{name}.png")) for n, name in enumerate(["a", "b", "c"])])
    between = save(picture(9), tmp_path / "between.png")
    hashes = fingerprint(Path(between).read_bytes())
    for point in shop.served().points({"product": ["a", "b"]}):
        bits = 0b111 if point.payload["product"] == "a" else 0b111 << 40
        near = f"{int(hashes.perceptual, 16) ^ bits:016x}"
        copied = {"perceptual": near, "colours": hashes.colours, "bands": bands(near, 3)}
        shop.served().amend([([point.id], copied)])
    assert groups(shop) == []
    shop.upsert([product("between", between)])
    assert groups(shop) == [["a", "b", "between"]]


def test_only_what_has_changed_is_embedded(shop: Shop, models: Models, tmp_path: Path) -> None:
    row = product("a", words(tmp_path, "a.jpg", "red mug"), words(tmp_path, "b.jpg", "red side"))
    shop.upsert([row])
    for given, embedded in [
        (row, 0),
        (row.model_copy(update={"title": "new title"}), 0),
        (row.model_copy(update={"photos": row.photos[:1]}), 0),
        (row.model_copy(update={"photos": (words(tmp_path, "moved.jpg", "red mug"),)}), 0),
        (row.model_copy(update={"product_type": "cup"}), 2),
    ]:
        before = models.calls
        shop.upsert([given])
        assert models.calls - before == embedded
        points = sorted(shop.served().points({}), key=lambda point: point.payload["number"])
        assert [point.payload["photo"] for point in points] == list(given.photos)
        assert {point.payload["product_type"] for point in points} == {given.product_type}
        assert {point.payload["title"] for point in points} == {given.title}
    words(tmp_path, "a.jpg", "blue mug")  # the file is replaced in place
    assert shop.upsert([row.model_copy(update={"product_type": "cup"})]).photos == {"embedded": 1, "shared": 1}
    assert shop.by_text("blue mug", Options(limit=1))[0].score == pytest.approx(1, abs=1e-4)


def test_the_last_row_of_an_id_replaces_the_others_whole(shop: Shop, tmp_path: Path) -> None:
    many = product("a", *(words(tmp_path, f"{n}.jpg", f"red {n}") for n in range(3)))
    one = product("a", words(tmp_path, "last.jpg", "blue"))
    report = shop.upsert([many, product("b", words(tmp_path, "b.jpg", "b")), one])
    assert (report.products, report.removed_photos) == (3, 2)
    assert [point.payload["photo"] for point in shop.served().points({"product": "a"})] == list(one.photos)


def test_a_catalogue_that_has_shrunk_deletes_only_if_asked_and_read_whole(shop: Shop, tmp_path: Path) -> None:
    rows = [product(f"p{n}", words(tmp_path, f"{n}.jpg", f"mug {n}")) for n in range(3)]
    shop.upsert(rows)
    assert shop.upsert(rows[:1]).deleted == 0
    assert shop.upsert([rows[0], BadRow("a.csv:2", "bad")], delete_missing=True).deleted == 0
    assert shop.served().count() == 3
    assert shop.upsert(rows[:1], delete_missing=True).deleted == 2
    assert shop.served().count() == 1


def test_the_radius_of_duplicates_belongs_to_the_index(store: Store, models: Models, tmp_path: Path) -> None:
    shop = Shop(store, models.client)
    with pytest.raises(ValueError, match="between 0 and 16"):
        shop.upsert([], radius=17)
    shop.upsert([product("a", words(tmp_path, "a.jpg", "a"))], radius=5)
    with pytest.raises(IndexFault, match="within 5 bits, not 3"):
        shop.upsert([], radius=3)
    shop.reindex(Models(2).client)
    served = store.served()
    assert served is not None
    assert served.radius == 5
    shop.close()


HOSTILE: list[tuple[str, Any]] = [
    ("a/b/../c", "mug"), ("größe 😀 'x\"", "mug"), ("x" * 256, "mug"), (" %2F?#", "mug"), ("1", 'ty"pe'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), HOSTILE)
def test_any_id_and_attribute_can_be_stored_filtered_and_deleted(
    shop: Shop, tmp_path: Path, name: str, kind: str
) -> None:
    attributes = {"screen size": "15 in", "size.eu": 38, "größe": ["S", "M"], "n[0]": True, "mixed": "M", "a'b": "c"}
    row = product(name.strip(), words(tmp_path, "a.jpg", "mug"), kind=kind, **attributes)
    other = product("other", words(tmp_path, "b.jpg", "mug lamp"), kind=kind, mixed=5)
    assert shop.upsert([other, row]).bad == []
    with TestClient(create_app(shop, Models().client, Settings())) as http:
        for filters in (
            {"screen size": "15 in"}, {"size.eu": 38}, {"size.eu": {"gte": 30}}, {"größe": "M"}, {"n[0]": True},
            {"mixed": "M"}, {"mixed": {"not": 5}}, {"a'b": "c"}, {"product": row.id},
        ):  # fmt: skip
            found = http.post("/v1/search", json={"text": "mug", "filters": filters})
            assert found.status_code == 200, found.text
            assert [one["product"] for one in found.json()["products"]] == [row.id], filters
        unknown = http.post("/v1/search", json={"text": "mug", "filters": {"none such": "x", "nor.this": {"gt": 1}}})
        assert unknown.json()["products"] == []
        beyond = http.post("/v1/search", json={"text": "mug", "limit": 100, "offset": 10_000})
        assert beyond.json()["products"] == []
        assert http.post("/v1/facets", json={}).status_code == 200
        assert http.get("/v1/duplicates").json() == []
    assert shop.delete([row.id]) == 1
    assert names(shop.by_text("mug", Options())) == ["other"]


def test_more_attributes_than_the_index_has_fields_for_are_filtered_too(tmp_path: Path) -> None:
    shop = Shop(make_store("edge", tmp_path / "index"), Models().client)
    rows = [
        product(f"p{n}", words(tmp_path, f"{n}.jpg", f"mug {n}"), **{f"a{n}-{m}": "x" for m in range(70)})
        for n in range(2)
    ]
    shop.upsert(rows)
    assert len(shop.served().fields()) == MOST_FIELDS
    assert names(shop.by_text("mug", Options(where={"attributes.a1-69": "x"}))) == ["p1"]
    shop.close()


def test_a_catalogue_of_windows_is_read(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    words(tmp_path, "photos/a.jpg", "red mug")
    text = 'id;type;title;photo;price;size\r\n1;mug;"Tasse; rot";photos\\a.jpg;12,50;38\r\n'
    (tmp_path / "a.csv").write_bytes("\ufeff".encode() + text.encode())
    [row] = read(tmp_path / "a.csv")
    assert isinstance(row, Product)
    assert (row.title, row.attributes) == ("Tasse; rot", {"price": 12.5, "size": 38})
    assert shop.upsert([row]).bad == []
