"""The next version is built beside the served one, judged, and served together with its models; and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from export.__main__ import main as export
from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.index import Hit, IndexFault, WrongVersion
from search.questions import Options, UnknownProduct
from search.records import Product
from search.shop import Shop
from search.store import Store
from serving.paths import REPOSITORIES
from serving.server.server import Server
from tests import toys
from tests.asking import SECONDS, until
from tests.search.fakes import Models
from tests.search.test_index import ENGINES, make_store
from vlclip import Client

pytestmark = [pytest.mark.filterwarnings("ignore:Local mode"), pytest.mark.filterwarnings("ignore:Payload indexes")]
COUNT = 12


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return make_store(request.param, tmp_path / "index")


@pytest.fixture
def edge(tmp_path: Path) -> Store:
    return make_store("edge", tmp_path / "index")


def product(folder: Path, n: int, words: str = "") -> Product:
    path = folder / f"p{n}.jpg"
    path.write_text(words or f"shape{n} mug")
    return Product(id=f"p{n}", product_type="mug", title=words or f"shape{n} mug", photos=(str(path),))


@pytest.fixture
def rows(tmp_path: Path) -> list[Product]:
    return [product(tmp_path, n) for n in range(COUNT)]


def indexed(store: Store, models: Models, rows: list[Product]) -> Shop:
    shop = Shop(store, models.client)
    assert shop.upsert(rows).bad == []
    return shop


def ids(shop: Shop) -> set[str]:
    return {point.payload["product"] for point in shop.served().points({})}


def check(hits: list[Hit], n: int, score: float | None) -> None:
    """All hits are of one version, and the product's own vector was met exactly, which needs its own encoder."""
    assert len({hit.payload["version"] for hit in hits}) == 1
    if score is not None:
        assert hits[0].payload["product"] == f"p{n}"
        assert hits[0].score == pytest.approx(score, abs=1e-4)


def ask_until(done: Event, shop: Shop, counts: list[int]) -> None:
    """Ask by text, by photo and by product, and check every answer."""
    number = 0
    while not done.is_set():
        n = number % COUNT
        number += 1
        check(shop.by_text(f"shape{n} mug", Options(limit=5)), n, 1.0)
        check(shop.by_photo(f"shape{n} mug".encode(), "mug", Options(limit=5)).hits, n, 1.0)
        check(shop.similar(f"p{n}", Options(limit=5)), n, None)
        check(shop.recommend({f"p{n}": 1.0}, Options(limit=5)), n, None)
        counts.append(number)


def wait_for_two_answers(counts: list[list[int]], askers: list[Future[None]]) -> None:
    """Wait until each of the threads has had two more answers, or one of them has failed."""
    before = [len(mine) for mine in counts]
    until(
        lambda: (
            any(one.done() for one in askers)
            or all(len(mine) > count + 1 for mine, count in zip(counts, before, strict=True))
        )
    )


def test_no_answer_mixes_the_query_s_encoder_and_the_collection_while_versions_change(
    edge: Store, rows: list[Product]
) -> None:
    """A question whose encoder is of another version than the collection would find no product with a score of 1."""
    shop = indexed(edge, Models(1), rows)
    done, counts = Event(), [list[int]() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        askers = [threads.submit(ask_until, done, shop, mine) for mine in counts]
        try:
            for version in (2, 3, 2):
                assert shop.reindex(Models(version).client).failures == []
                shop.rollback()
                wait_for_two_answers(counts, askers)
        finally:
            done.set()
    for asker in askers:
        asker.result()
    shop.close()


def test_a_question_that_was_encoded_before_the_switch_is_answered_by_the_version_that_encoded_it(
    store: Store, rows: list[Product]
) -> None:
    first = Models(1)
    shop = indexed(store, first, rows)

    def switch(pipeline: str) -> None:
        first.before = lambda pipeline: None
        assert shop.reindex(Models(2).client).failures == []

    first.before = switch  # the version of this answer is decided already
    hits = shop.by_text("shape3 mug", Options(limit=3))
    check(hits, 3, 1.0)
    assert hits[0].payload["version"].startswith("00000001")
    assert shop.by_text("shape3 mug", Options(limit=3))[0].payload["version"].startswith("00000002")
    shop.close()


def test_a_server_that_changes_its_models_in_place_is_followed(store: Store, rows: list[Product]) -> None:
    models = Models(1)
    shop = indexed(store, models, rows)
    models.version = 2
    with pytest.raises(WrongVersion, match="run reindex"):
        shop.by_text("shape1 mug", Options())
    with pytest.raises(WrongVersion, match="run reindex"):
        shop.upsert([rows[0].model_copy(update={"title": "other"})])
    assert len(shop.similar("p1", Options())) == 10
    built = shop.reindex(models.client)
    assert built.failures == []
    assert "hits10" not in built.served  # no server has the models that it takes to measure the first collection
    check(shop.by_text("shape1 mug", Options()), 1, 1.0)
    models.version = 1
    shop.rollback()
    check(shop.by_text("shape1 mug", Options()), 1, 1.0)
    shop.close()


def test_what_changes_while_the_next_version_is_built_is_in_it(
    store: Store, rows: list[Product], tmp_path: Path
) -> None:
    shop = indexed(store, Models(1), rows)
    changes: Iterator[Callable[[], object]] = iter(
        [
            lambda: shop.delete(["p0"]),
            lambda: shop.upsert([product(tmp_path, 1, "new look")]),
            lambda: shop.upsert([product(tmp_path, 99)]),
        ]
    )

    def change(pipeline: str) -> None:
        if (make := next(changes, None)) is not None:
            make()

    assert shop.reindex(Models(2, change).client).failures == []
    assert next(changes, None) is None
    assert ids(shop) == {f"p{n}" for n in (*range(1, COUNT), 99)}
    check(shop.by_text("new look", Options()), 1, 1.0)
    shop.close()


def test_an_interrupted_reindex_continues_and_older_collections_are_deleted(
    store: Store, rows: list[Product], tmp_path: Path
) -> None:
    shop = indexed(store, Models(1), rows)
    shop.upsert([product(tmp_path, n) for n in range(COUNT, 80)])  # more than one batch

    def fail(pipeline: str) -> None:
        if pipeline == "product_image" and following.calls:  # the second batch
            raise IndexFault("interrupted")

    following = Models(2, fail)
    with pytest.raises(IndexFault, match="interrupted"):
        shop.reindex(following.client)
    shop.delete(["p0"])
    following = Models(2)
    assert shop.reindex(following.client).failures == []
    assert following.calls < 79
    assert ids(shop) == {f"p{n}" for n in range(1, 80)}
    assert [one.name for one in store.collections()] == ["c0001", "c0002"]
    shop.reindex(Models(3).client)
    assert [one.name for one in store.collections()] == ["c0002", "c0003"]
    shop.close()


class Worse(Models):
    """Models whose texts do not fit their photos."""

    def embed_texts(self, texts: Any) -> Any:
        return super().embed_texts(["nothing"] * len(texts))


def lose_photos(rows: list[Product]) -> None:
    for row in rows[:3]:
        Path(str(row.photos[0])).unlink()


@pytest.mark.parametrize(
    ("models", "spoil", "reason"),
    [(Models(2), lose_photos, "it has 9 products"), (Worse(2), lambda rows: None, "hits10 is")],
)
def test_a_worse_version_is_not_served(
    edge: Store, rows: list[Product], models: Models, spoil: Callable[[list[Product]], None], reason: str
) -> None:
    shop = indexed(edge, Models(1), rows)
    queries = [(f"shape{n} mug", f"p{n}") for n in range(COUNT)]
    spoil(rows)
    built = shop.reindex(models.client, queries=queries)
    assert reason in built.failures[0]
    assert [one.name for one in edge.collections()] == ["c0001"]
    check(shop.by_text("shape4 mug", Options()), 4, 1.0)
    with pytest.raises(IndexFault, match="no previous collection"):
        shop.rollback()
    shop.close()


@pytest.fixture
def shop(edge: Store, rows: list[Product]) -> Iterator[Shop]:
    shop = indexed(edge, Models(1), rows)
    yield shop
    shop.close()


def test_the_gateway_builds_the_next_version_and_goes_back(shop: Shop) -> None:
    asked, resume = Event(), Event()

    def wait(pipeline: str) -> None:
        asked.set()
        assert resume.wait(60)

    app = create_app(shop, Models(1).client, Settings(), lambda: Models(2, wait).client)
    with TestClient(app) as http:
        assert http.get("/v1/versions").json()["reindex"]["state"] == "none"
        assert http.post("/v1/versions/rollback").status_code == 409
        assert http.post("/v1/versions").status_code == 202
        assert asked.wait(60)
        refused = http.post("/v1/versions")
        assert (refused.status_code, "being built already" in refused.json()["detail"]) == (409, True)
        assert len(http.post("/v1/search", json={"text": "shape1 mug"}).json()["products"]) == 10
        resume.set()
        until(lambda: http.get("/v1/versions").json()["reindex"]["state"] != "running")
        done = http.get("/v1/versions").json()
        assert (done["served"], done["previous"], done["reindex"]["state"]) == ("c0002", "c0001", "served")
        assert done["reindex"]["products"] == COUNT
        assert done["reindex"]["figures"]["next"]["hits10"] == 1
        assert http.post("/v1/versions/rollback").json()["served"] == "c0001"


def test_an_empty_index_answers_and_has_no_product(edge: Store) -> None:
    shop = Shop(edge, Models(1).client)
    with pytest.raises(IndexFault, match="index a catalogue first"):
        shop.by_text("mug", Options())
    shop.upsert([])
    assert shop.by_text("mug", Options()) == []
    assert shop.by_photo(b"a mug", None, Options()).hits == []
    assert shop.served().facet("product_type") == {}
    with pytest.raises(UnknownProduct):
        shop.similar("p1", Options())
    assert shop.reindex(Models(2).client).failures == []
    shop.close()


class Trimmed(Client):
    """A client of toys, whose texts get embeddings as long as those of their photos."""

    def embed_texts(self, texts: Any, **options: Any) -> Any:
        return self._trimmed(super().embed_texts(texts, **options))

    def enrich(self, *products: Any, **options: Any) -> Any:
        return self._trimmed(super().enrich(*products, **options))

    def _trimmed(self, found: Any) -> Any:
        return replace(
            found, embedding=found.embedding[:, :3] / np.linalg.norm(found.embedding[:, :3], axis=1)[:, None]
        )


@pytest.mark.slow
def test_no_answer_mixes_versions_while_triton_changes_its_models(tmp_path: Path) -> None:
    """A photo's embedding by toys of one version has a cosine of 1 with the others of that version, and 0.95 else."""
    models = toys.build(REPOSITORIES[0], tmp_path / "models")
    toys.place_version(models, 1)
    photos = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(photos):
        Image.effect_mandelbrot((64, 64), (-2 + n / 4, -1, 1, 1), 20 + n).save(path)
    rows = [Product(id=path.stem, product_type="mug", title=path.stem, photos=(str(path),)) for path in photos]
    done = Event()
    answered: list[str] = []

    def ask(shop: Shop) -> None:
        while not done.is_set():
            try:
                answers = [shop.by_photo(photos[0].read_bytes(), "mug", Options()).hits, shop.similar("1", Options())]
                answers.append(shop.by_text("a mug", Options()))
            except WrongVersion:  # no collection has been made by the new models yet
                answered.append("refused")
                continue
            for hits in answers:
                assert len({hit.payload["version"] for hit in hits}) == 1
            assert answers[0][0].score == pytest.approx(1, abs=1e-4)
            answered.append(answers[0][0].payload["version"])

    with (
        Server.start([models, REPOSITORIES[1]]) as server,
        Trimmed(server.grpc_url, timeout=SECONDS) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        first = client.models()[0].version
        shop = Shop(make_store("edge", tmp_path / "index"), client)
        assert shop.upsert(rows).bad == []
        askers = [threads.submit(ask, shop) for _ in range(3)]
        try:
            until(lambda: len(answered) > 10)
            toys.place_version(models, 2)
            until(lambda: client.models()[0].version != first)
            until(lambda: "refused" in answered)
            assert shop.reindex(client).failures == []
            until(lambda: len({*answered} - {"refused"}) == 2)
            assert export(["use", "--version", "1", "--out", str(models)]) == 0
            until(lambda: client.models()[0].version == first)
            shop.rollback()
            count = len(answered)
            until(lambda: len(answered) > count + 10 or any(one.done() for one in askers))
        finally:
            done.set()
        for asker in askers:
            asker.result()
        assert answered[-1].partition("-")[0] == first.partition("-")[0]
        shop.close()
