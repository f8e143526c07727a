"""The gateway of a shop of drawn products: questions, changes, OpenAI's path, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient

from benchmarks.photos import draw_scenes
from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.gateway.remote import Remote
from search.photos import PhotoError
from search.shop import Shop
from search.store import FolderStore
from serving.server.server import Server
from training.catalogue.scenes import Photo
from vlclip import Client

COUNT = 16


def uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


@pytest.fixture(scope="module")
def scenes() -> list[Photo]:
    return draw_scenes(COUNT, seed=303)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def shop(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(FolderStore(tmp_path_factory.mktemp("index")), client)
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def http(shop: Shop, client: Client, scenes: list[Photo]) -> Iterator[TestClient]:
    """The gateway, with the scenes as products p0, p1 … and a copy of p0 named twin."""
    with TestClient(create_app(shop, client, Settings(seconds=300))) as http:
        rows = [row(f"p{n}", scene, n) for n, scene in enumerate(scenes)] + [row("twin", scenes[0], 0)]
        answer = http.post("/v1/products", content="".join(json.dumps(one) + "\n" for one in rows))
        assert answer.status_code == 200, answer.text
        assert answer.json()["photos"] == {"embedded": COUNT, "shared": 1}
        yield http


def row(name: str, scene: Photo, n: int) -> dict[str, Any]:
    item = scene.items[0]
    return {
        "id": name, "product_type": item.product_type, "title": item.title, "description": item.description,
        "photo": uri(scene.jpeg), "colour": item.colour, "price": float(n),
    }  # fmt: skip


def products(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["product"] for one in answer.json()["products"]]


def test_a_text_finds_its_product(http: TestClient, scenes: list[Photo]) -> None:
    found = [
        f"p{n}" in products(http.post("/v1/search", json={"text": scene.items[0].caption, "limit": 5}))
        for n, scene in enumerate(scenes)
    ]
    assert np.mean(found) >= 0.8
    fused = {"text": scenes[1].items[0].caption, "fuse": {"image": 1, "text": 1, "words": 1}}
    assert "p1" in products(http.post("/v1/search", json=fused))


def test_a_photo_finds_its_product_and_says_what_was_found(http: TestClient, scenes: list[Photo]) -> None:
    kind = scenes[2].items[0].product_type
    for given in (
        http.post("/v1/search", json={"photo": uri(scenes[2].jpeg), "product_type": kind, "limit": 1}),
        http.post("/v1/search", files={"photo": scenes[2].jpeg}, data={"product_type": kind, "limit": "1"}),
    ):
        assert products(given) == ["p2"]
        assert given.json()["photo"]["product_type"] == kind
        assert len(given.json()["photo"]["box"]) == 4
    unnamed = http.post("/v1/search", json={"photo": uri(scenes[2].jpeg)})
    assert unnamed.json()["photo"]["product_type"] in {one.items[0].product_type for one in scenes}


def test_similar_products_are_not_the_product_or_its_duplicate(http: TestClient) -> None:
    found = products(http.post("/v1/similar", json={"product": "p0", "product_types": None, "widen": True}))
    assert found
    assert not {"p0", "twin"} & set(found)
    assert products(http.post("/v1/similar", json={"product": "p0", "duplicates": True}))[0] == "twin"


def test_of_products_with_the_same_photo_one_is_shown_if_asked(http: TestClient) -> None:
    question = {"text": "a product", "limit": 100}
    assert {"p0", "twin"} <= set(products(http.post("/v1/search", json=question)))
    found = products(http.post("/v1/search", json={**question, "collapse": True}))
    assert (len({"p0", "twin"} & set(found)), len(found)) == (1, COUNT)


def test_recommendations_leave_out_what_is_known(http: TestClient) -> None:
    found = products(http.post("/v1/recommend", json={"recent": ["p3", "p4"], "liked": ["p5"], "disliked": ["p6"]}))
    assert len(found) == 10
    assert not {"p3", "p4", "p5", "p6"} & set(found)


def test_filters_and_facets_agree(http: TestClient, scenes: list[Photo]) -> None:
    counts = http.post("/v1/facets", json={}).json()
    assert sum(counts["product_types"].values()) == COUNT + 1
    assert counts["attributes"]["price"] == {"kind": "number", "values": {}}
    colour, count = next(iter(counts["attributes"]["colour"]["values"].items()))
    question = {"filters": {"colour": colour, "price": {"gte": 0}}}
    assert len(products(http.post("/v1/search", json={**question, "text": "a product", "limit": 100}))) == count
    narrowed = http.post("/v1/facets", json=question).json()
    assert sum(narrowed["product_types"].values()) == count
    assert narrowed["attributes"]["colour"] == counts["attributes"]["colour"], "a filter does not narrow itself"


def test_attributes_are_guessed_from_the_photos_and_filter(http: TestClient, scenes: list[Photo]) -> None:
    colours = sorted({scene.items[0].colour for scene in scenes})
    [outcome] = http.post("/v1/attributes", params={"confidence": 0}, json={"*": {"colour": colours}}).json()
    assert (outcome["products"], outcome["guessed"], outcome["labelled"]) == (COUNT + 1, COUNT + 1, COUNT + 1)
    assert outcome["accuracy"] >= 0.8
    assert http.get("/v1/attributes").json()[0]["values"] == colours
    counts = http.post("/v1/facets", json={}).json()["attributes"]["guessed.colour"]["values"]
    assert sum(counts.values()) == COUNT + 1
    colour, count = next(iter(counts.items()))
    found = http.post("/v1/search", json={"text": "a product", "filters": {"guessed.colour": colour}, "limit": 100})
    assert len(products(found)) == count
    assert {one["guessed"]["colour"] for one in found.json()["products"]} == {colour}
    assert min(one["confidence"]["colour"] for one in found.json()["products"]) > 1 / len(colours)
    assert http.post("/v1/attributes", json={"*": {"colour": ["red"]}}).status_code == 422
    assert http.post("/v1/attributes", json={"*": {"colour": []}}).json() == []
    assert "guessed.colour" not in http.post("/v1/facets", json={}).json()["attributes"]


def test_a_product_is_inserted_shown_replaced_and_deleted(http: TestClient, scenes: list[Photo]) -> None:
    given = row("new/1", scenes[7], 7) | {"photos": [uri(scenes[7].jpeg), uri(scenes[8].jpeg)]}
    del given["photo"], given["id"]
    assert http.put("/v1/products/new/1", json=given).json()["photos"] == {"shared": 1, "embedded": 1}
    shown = http.get("/v1/products/new/1").json()
    assert len(shown["photos"]) == 2
    assert "p7" in [one["product"] for one in shown["duplicates"]]
    picture = http.get(shown["photos"][0]["photo"], params={"crop": True, "width": 64})
    assert picture.headers["content-type"] == "image/jpeg"
    assert http.put("/v1/products/new/1", json=given).json()["unchanged"] == 1
    http.put("/v1/products/new/1", json=given | {"photos": [given["photos"][0]], "title": "other"})
    shown = http.get("/v1/products/new/1").json()
    assert (len(shown["photos"]), shown["title"]) == (1, "other")
    assert http.delete("/v1/products/new/1").json() == {"products": 1}
    assert http.get("/v1/products/new/1").status_code == 404


def test_a_bad_row_of_many_costs_only_itself(http: TestClient, scenes: list[Photo]) -> None:
    rows = ["nonsense", json.dumps(row("good", scenes[9], 9)), json.dumps({"id": "broken", "photo": uri(b"no image")})]
    answer = http.post("/v1/products", content="\n".join(rows)).json()
    assert answer["products"] == 2
    assert len(answer["bad"]) == 2
    assert answer["bad"][0].startswith("line 1: ")
    assert "is not an image" in answer["bad"][1]
    assert http.delete("/v1/products/good").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("POST", "/v1/search", {}, 422, "expected either text or photo"),
        ("POST", "/v1/search", {"text": "x", "limt": 5}, 422, "limt"),
        ("POST", "/v1/search", {"text": "x", "limit": 1000}, 422, "limit"),
        ("POST", "/v1/search", {"text": "x", "fuse": {"image": 0}}, 422, "weight above 0"),
        ("POST", "/v1/search", {"text": "x", "fuse": {"image": 1, "text": 1}, "diversity": 1}, 422, "one vector"),
        ("POST", "/v1/search", {"photo": "/etc/passwd"}, 422, "must be a data URI"),
        ("POST", "/v1/search", {"photo": "http://127.0.0.1/a.jpg"}, 422, "--photo-host"),
        ("POST", "/v1/search", {"photo": uri(b"no image"), "product_type": "mug"}, 422, "not a JPEG"),
        ("POST", "/v1/similar", {"product": "none"}, 404, "no product 'none'"),
        ("POST", "/v1/recommend", {"disliked": ["p1"]}, 422, "liked or recent"),
        ("PUT", "/v1/products/x", {"photo": "/etc/passwd"}, 422, "must be a data URI"),
        ("PUT", "/v1/products/x", {"title": "no photo"}, 422, "photos is missing"),
        ("DELETE", "/v1/products/none", None, 404, "no product"),
        ("GET", "/v1/photos/none", None, 404, "no photo"),
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("PUT", "/v1/search", {}, 405, "Method Not Allowed"),
    ],
)
def test_what_is_refused_is_a_problem_with_a_sentence(
    http: TestClient, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    answer = http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert detail in answer.json()["detail"]


def test_openai_s_client_embeds_texts_and_images(http: TestClient, client: Client, scenes: list[Photo]) -> None:
    api = openai.OpenAI(api_key="none", base_url="http://testserver/v1", http_client=http)
    kind = scenes[1].items[0].product_type
    found = api.embeddings.create(model="vlclip", input=["a red mug", uri(scenes[1].jpeg)])
    vectors = np.array([one.embedding for one in found.data], np.float32)
    assert np.allclose(vectors[0], client.embed_texts(["a red mug"]).embedding[0], atol=1e-4)
    assert np.allclose(vectors[1], client.embed_images([scenes[1].jpeg], "").embedding[0], atol=1e-4)
    body: Any = {"input": [{"image": uri(scenes[1].jpeg), "product_type": kind}, {"text": "a"}]}
    answer = http.post("/v1/embeddings", json=body).json()
    grounded = client.embed_images([scenes[1].jpeg], kind)
    assert np.allclose(answer["data"][0]["embedding"], grounded.embedding[0], atol=1e-4)
    assert answer["model"] == grounded.version[0].partition("-")[0]
    with pytest.raises(openai.BadRequestError, match="dimensions must be"):
        api.embeddings.create(model="vlclip", input="a", dimensions=8)
    with pytest.raises(openai.BadRequestError, match="input 1 is not"):
        api.embeddings.create(model="vlclip", input=["a", uri(b"no image")])


def test_keys_bodies_and_requests_at_once_are_limited(shop: Shop, client: Client) -> None:
    settings = Settings(keys=frozenset({"secret"}), max_bytes=1 << 20)
    with TestClient(create_app(shop, client, settings)) as http:
        assert http.get("/v1/versions").status_code == 401
        assert http.get("/v1/versions", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert http.get("/healthz").status_code == 200
        key = {"Authorization": "Bearer secret"}
        assert http.get("/v1/versions", headers=key).status_code == 200
        large = http.post("/v1/products", content=b"x" * (2 << 20), headers=key)
        assert (large.status_code, large.json()["detail"][:24]) == (413, "a line has more than 1 M")
        chunks = http.post("/v1/products", content=iter([b"x" * (1 << 20)] * 2), headers=key)
        assert chunks.status_code == 413
        key["Content-Type"] = "application/json"
        for path in ("/v1/similar", "/v1/search", "/v1/embeddings"):
            for body in (b"x" * (2 << 20), iter([b"x" * (1 << 20)] * 2)):
                assert http.post(path, content=body, headers=key).status_code == 413
    with TestClient(create_app(shop, client, Settings(max_requests=0))) as http:
        refused = http.get("/v1/versions")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_without_the_server_of_the_models_what_needs_no_encoder_still_answers(shop: Shop, http: TestClient) -> None:
    with Client("127.0.0.1:1", timeout=1) as away:
        there, shop._client = shop._client, away
        try:
            assert products(http.post("/v1/similar", json={"product": "p1", "widen": True}))
            refused = http.post("/v1/search", json={"text": "a mug"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert http.get("/readyz").status_code == 503
        finally:
            shop._client = there
    assert http.get("/readyz").json() == {"index": True, "models": True}


def test_a_listed_host_with_a_private_address_is_refused() -> None:
    remote = Remote(["localhost", "localhost:9"])
    for url in ("http://localhost:9/a.jpg", "https://user:word@LOCALHOST/a.jpg"):
        with pytest.raises(PhotoError, match="private network"):
            remote.fetch(url)
    with pytest.raises(PhotoError, match="--photo-host localhost:22"):
        remote.fetch("http://localhost:22/a.jpg")
    with pytest.raises(PhotoError, match="--photo-host other"):
        remote.fetch("http://other/a.jpg")


def test_reindexing_replays_changes_and_keeps_the_version_before(
    shop: Shop, client: Client, http: TestClient, scenes: list[Photo]
) -> None:
    before = http.get("/v1/versions").json()["served"]

    def change(products: int) -> None:
        http_row = row("late", scenes[10], 10)
        if "late" not in changed:
            changed.append("late")
            http.put("/v1/products/late", json={k: v for k, v in http_row.items() if k != "id"})
            http.delete("/v1/products/twin")

    changed: list[str] = []
    built = shop.reindex(client, progress=change)
    assert built.failures == []
    versions = http.get("/v1/versions").json()
    assert (versions["served"], versions["previous"]) == (built.collection.name, before)
    assert http.get("/v1/products/late").status_code == 200
    assert http.get("/v1/products/twin").status_code == 404


def test_the_page_and_its_files_are_served(http: TestClient) -> None:
    page = http.get("/").text
    for name in ("app.js", "style.css"):
        assert f"/page/{name}" in page
        assert http.get(f"/page/{name}").status_code == 200
    assert http.get("/page/app.py").status_code == 404
    assert Path("/etc/passwd").name not in http.get("/page/..%2Fapp.py").text
