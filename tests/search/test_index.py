"""Both engines answer the same questions in the same way, and a write is applied whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from search.attributes import Attribute
from search.cluster import ClusterStore
from search.edge import EdgeIndex
from search.index import IMAGE, TEXT, Index, IndexAway, IndexFault, Leg, Point, Question, point_id
from search.questions import Options, UnknownProduct, recent, recommend, similar
from search.store import Collection, FolderStore, Store, rollback

# The emulator of a cluster says that it is one.
pytestmark = [pytest.mark.filterwarnings("ignore:Local mode"), pytest.mark.filterwarnings("ignore:Payload indexes")]
D = 16


def vector(*angles: float) -> Any:
    """A vector that turns from the first axis to the second."""
    made = np.zeros(D, np.float32)
    made[:2] = np.cos(angles[0]), np.sin(angles[0])
    return made


def point(product: str, angle: float, number: int = 0, **payload: Any) -> Point:
    fields = {
        "product": product, "product_type": "mug", "title": product, "content": f"c-{product}-{number}",
        "bands": [], "duplicate": f"d-{product}", "attributes": {}, "version": "v1",
    }  # fmt: skip
    words = f"{product} {payload.get('product_type', 'mug')}"
    return Point(point_id(product, number), {IMAGE: vector(angle), TEXT: vector(-angle)}, words, fields | payload)


def make_store(engine: str, folder: Path) -> Store:
    if engine == "edge":
        return FolderStore(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the emulator says that payload indexes have no effect
        if engine == "cluster":
            return ClusterStore(QdrantClient(":memory:"))
        return ClusterStore(QdrantClient(os.environ["QDRANT_URL"]), f"test-{uuid.uuid4().hex[:8]}")


ENGINES = ["edge", "cluster", *(["url"] if os.environ.get("QDRANT_URL") else [])]
"""The embedded engine, the emulator of a cluster and, where QDRANT_URL names one, a cluster."""


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return make_store(request.param, tmp_path)


@pytest.fixture(scope="module", params=ENGINES)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index that tests only read."""
    made = filled(make_store(request.param, tmp_path_factory.mktemp("index")))
    yield made
    made.close()


@pytest.fixture
def writable(store: Store) -> Iterator[Index]:
    """An index that tests may change."""
    made = filled(store)
    yield made
    made.close()


def filled(store: Store) -> Index:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = store.open(store.create("v1", "mini", D))
    made.write(
        [
            point("near", 0.1, attributes={"price": 5.0, "colour": "red", "sale": True}),
            point("near", 0.6, 1, attributes={"price": 5.0, "colour": "red", "sale": True}),
            point("mid", 0.5, attributes={"price": 9.5, "colour": "blue", "sale": False}),
            point("far", 1.2, attributes={"price": 20.0, "colour": "red", "tags": ["gift", "new"]}),
            point("lamp", 0.2, product_type="lamp", duplicate="d-near"),
        ]
    )
    return made


def ask(index: Index, angle: float = 0.0, **options: Any) -> list[str]:
    return [hit.payload["product"] for hit in index.ask(Options(**options).question([Leg(IMAGE, vector(angle))]))]


@pytest.mark.parametrize(
    ("options", "products"),
    [
        ({}, ["near", "lamp", "mid", "far"]),
        ({"types": ["mug"]}, ["near", "mid", "far"]),
        ({"types": ["mug", "lamp"], "limit": 2}, ["near", "lamp"]),
        ({"limit": 2, "offset": 1}, ["lamp", "mid"]),
        ({"offset": 10}, []),
        ({"where": {"attributes.price": {"gte": 6, "lt": 20}}}, ["mid"]),
        ({"where": {"attributes.price": 9.5}}, ["mid"]),
        ({"where": {"attributes.colour": ["red"]}}, ["near", "far"]),
        ({"where": {"attributes.colour": {"not": "red"}, "product_type": "mug"}}, ["mid"]),
        ({"where": {"attributes.sale": True}}, ["near"]),
        ({"where": {"attributes.sale": {"not": False}, "product_type": "mug"}}, ["near", "far"]),
        ({"where": {"attributes.price": [5, 9.5]}}, ["near", "mid"]),
        ({"where": {"attributes.tags": "gift"}}, ["far"]),
        ({"threshold": 0.8}, ["near", "lamp", "mid"]),
    ],
)
def test_products_come_once_best_first_within_the_conditions(
    index: Index, options: dict[str, Any], products: list[str]
) -> None:
    assert ask(index, **options) == products


def test_a_hit_says_which_photo_matched(index: Index) -> None:
    [hit] = index.ask(Question([Leg(IMAGE, vector(0.6))], limit=1))
    assert hit.id == point_id("near", 1)
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_rankings_are_fused_by_reciprocal_rank(index: Index) -> None:
    """The engines compute 1 / (rank / weight + 59), with ranks from 1, summed over the rankings."""
    legs = [Leg(IMAGE, vector(0.0)), Leg("words", "far", 3.0), Leg(TEXT, vector(0.0), 0.5)]
    found = {hit.payload["product"]: hit.score for hit in index.ask(Question(legs))}
    by_angle = ["near", "lamp", "mid", "near again", "far"]  # each photo has a place in the rankings of vectors
    expected = {
        name: 1 / (rank + 59) + 1 / (rank / 0.5 + 59) + (1 / (1 / 3 + 59) if name == "far" else 0)
        for rank, name in enumerate(by_angle, 1)
        if name != "near again"
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert list(found) == ["far", "near", "lamp", "mid"]
    only = index.ask(Question([Leg("words", "lamp")], limit=3))
    assert [hit.payload["product"] for hit in only] == ["lamp"]


def test_diversity_prefers_what_differs_and_keeps_the_scores(index: Index) -> None:
    assert ask(index) == ["near", "lamp", "mid", "far"]
    assert ask(index, diversity=0.9) == ["near", "far", "lamp", "mid"]
    assert ask(index, diversity=0.9, threshold=0.8) == ["near", "lamp", "mid"]
    [first, *_] = index.ask(Options(diversity=0.9).question([Leg(IMAGE, vector(0.0))]))
    assert first.score == pytest.approx(np.cos(0.1), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"limit": 0}, "limit above 0"), ({"offset": -1}, "offset of 0 or more"), ({"diversity": 2}, "between 0 and 1")],
)
def test_questions_that_cannot_be_answered_say_why(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Options(**options).question([Leg(IMAGE, vector(0.0))])


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"diversity": 0.5}])
def test_diversity_and_threshold_are_refused_for_fused_rankings(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one vector"):
        Question([Leg(IMAGE, vector(0.0)), Leg("words", "x")], **options)


def test_similar_products_stay_within_the_type_and_are_no_duplicates(index: Index) -> None:
    def products(**options: Any) -> list[str]:
        return [hit.payload["product"] for hit in similar(index, "near", Options(), **options)]

    assert products() == ["mid", "far"]
    assert products(widen=True) == []
    assert products(widen=True, duplicates=True) == ["lamp"]
    with pytest.raises(UnknownProduct, match="no product 'none'"):
        similar(index, "none", Options())


def test_types_are_named_once(index: Index) -> None:
    """A condition on the type widens similar items too, and contradicts types that are named as such."""
    widened = similar(index, "mid", Options(where={"product_type": ["lamp"]}))
    assert [hit.payload["product"] for hit in widened] == ["lamp"]
    with pytest.raises(ValueError, match="named twice"):
        ask(index, types=["mug"], where={"product_type": "lamp"})


@pytest.fixture(scope="module", params=ENGINES)
def fan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Products p0, p1 … p30, each turned by a twentieth from the one before."""
    store = make_store(request.param, tmp_path_factory.mktemp("fan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = store.open(store.create("v1", "mini", D))
    made.write([point(f"p{n}", n / 20) for n in range(31)])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("liked", "disliked", "angle"),
    [
        ({"p4": 1.0, "p21": 1.0}, [], 12.5),
        ({"p4": 3.0, "p20": 1.0}, [], 7.7),
        (recent(["p4", "p20"], half_life=1), [], 9.2),
        (recent(["p20", "p4"], half_life=1), [], 14.8),
        (recent(["p20", "gone", "p20", "p4"], half_life=1), [], 18.4),
        ({"p8": 1.0, "p12": 1.0, "p16": 1.0}, [], 12),
        ({"p12": 1.0}, ["p20"], 5.1),
        ({"p12": 1.0}, ["p16", "p24", "gone"], 5.3),
        ({"p12": 1.0, "gone": 5.0}, [], 12),
    ],
)
def test_recommendations_are_near_the_weighted_mean_of_the_liked_and_away_from_the_disliked(
    fan: Index, liked: dict[str, float], disliked: list[str], angle: float
) -> None:
    hits = recommend(fan, liked, Options(limit=3), disliked=disliked)
    left = sorted(set(range(31)) - {int(one[1:]) for one in [*liked, *disliked] if one != "gone"},
                  key=lambda n: abs(n - angle))  # fmt: skip
    assert {hit.payload["product"] for hit in hits[:2]} == {f"p{n}" for n in left[:2]}
    assert not {*liked, *disliked} & {hit.payload["product"] for hit in hits}


@pytest.mark.parametrize(
    ("liked", "error", "reason"),
    [
        ({}, ValueError, "at least one liked"),
        ({"p1": 0.0}, ValueError, "at least one liked"),
        ({"p1": -1.0}, ValueError, "no weight below 0"),
        ({"gone": 1.0}, UnknownProduct, "none of the liked products: gone"),
    ],
)
def test_a_recommendation_needs_a_liked_product(
    fan: Index, liked: dict[str, float], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        recommend(fan, liked, Options())


ONE = [Leg(IMAGE, vector(0.4))]
FUSED = [*ONE, Leg(TEXT, vector(-1.0), 2.0), Leg("words", "mug p9", 0.5)]


@pytest.mark.parametrize(
    ("legs", "diversity"), [(ONE, 0.0), (ONE, 0.6), (FUSED, 0.0)], ids=["one vector", "diverse", "fused"]
)
def test_pages_fit_together(fan: Index, legs: list[Leg], diversity: float) -> None:
    def page(limit: int, offset: int) -> list[str]:
        options = Options(limit=limit, offset=offset, diversity=diversity)
        return [hit.payload["product"] for hit in fan.ask(options.question(legs))]

    whole = page(31, 0)
    assert len(set(whole)) == 31
    assert [name for offset in range(0, 31, 7) for name in page(7, offset)] == whole
    assert page(100, 31) == page(5, 9_000) == []


def test_points_are_replaced_deleted_and_counted(writable: Index) -> None:
    writable.write([point("near", 1.5)], drop=[point_id("near", 1), point_id("lamp", 0)])
    assert ask(writable, 1.5)[0] == "near"
    assert writable.count() == 3
    assert writable.count({"product_type": "lamp"}) == 0
    assert writable.facet("product_type") == {"mug": 3}
    [stored] = writable.get([point_id("near", 0)], vectors=[IMAGE])
    assert np.allclose(stored.vectors[IMAGE], vector(1.5), atol=1e-6)
    assert stored.payload["product"] == "near"
    assert writable.get([point_id("lamp", 0)]) == []


def test_a_batch_that_the_engine_refuses_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, dimension=D)
    index.write([point("old", 0.1)])
    wrong = replace(point("new", 0.2), vectors={IMAGE: np.ones(D + 1, np.float32)})
    for bad in (wrong, point("new", 0.2, attributes={"price": float("nan")}), point("new", 0.2, attributes={'"': 1})):
        with pytest.raises(Exception, match=r"shape|NaN|quotation"):
            index.write([point("good", 0.3), bad], drop=[point_id("old", 0)])
    index.close()
    index = EdgeIndex(tmp_path)
    assert ask(index) == ["old"]
    index.close()


def test_fields_of_attributes_are_known(index: Index) -> None:
    if isinstance(index, EdgeIndex):  # the emulator of a cluster keeps no schema
        fields = index.fields()
        assert fields["attributes.price"] == "number"
        assert fields["attributes.sale"] == "bool"
        assert fields["attributes.tags"] == "keyword"


def test_a_store_serves_promotes_and_rolls_back(store: Store) -> None:
    first = store.create("v1", "mini", D)
    assert store.served() is None
    with pytest.raises(IndexFault, match="no previous collection"):
        rollback(store)
    store.promote(first)
    attribute = Attribute("mug", "handle", ("round", "square"), ("a", "b"))
    second = replace(
        store.create("v2", "other", D),
        figures={"products": 5.0},
        shares={"image": 0.6, "words": 0.4},
        attributes=(attribute,),
    )
    store.keep(second)
    assert store.served() == first
    store.promote(second)
    assert (store.served(), store.previous()) == (second, first)
    assert [one.name for one in store.collections()] == ["c0001", "c0002"]
    assert rollback(store) == first
    assert (store.served(), store.previous()) == (first, second)
    with pytest.raises(IndexFault, match="is served"):
        store.drop(first)
    store.drop(second)
    assert store.collections() == [first]
    assert isinstance(first, Collection)


def test_a_cluster_that_does_not_answer_is_an_error_with_a_sentence() -> None:
    with pytest.raises(IndexAway, match="the Qdrant cluster does not answer"):
        ClusterStore(QdrantClient("http://127.0.0.1:1", check_compatibility=False)).served()


def test_a_cluster_keeps_collections_of_several_shops_apart() -> None:
    client = QdrantClient(":memory:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, other = ClusterStore(client, "shop"), ClusterStore(client, "shop-cheap")
        mine.create("v1", "mini", D)
        other.create("v1", "mini", D)
    assert [len(store.collections()) for store in (mine, other)] == [1, 1]


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    collection = store.create("v1", "mini", D)
    index = store.open(collection)
    with pytest.raises(IndexFault, match="another process has the index"):
        store.open(collection)
    index.close()
    with pytest.raises(IndexFault, match="there is no index"):
        EdgeIndex(tmp_path / "none")


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
import qdrant_edge
import search.edge
from search.edge import EdgeIndex
from tests.search.test_index import point

where, moment = sys.argv[1], int(sys.argv[2])
index = EdgeIndex(Path(where))
count = 0

def maybe_die(*_):
    global count
    count += 1
    if count == moment:
        os._exit(9)

sys.setprofile(lambda frame, event, arg: maybe_die() if frame.f_code.co_filename == search.edge.__file__ else None)
index.write([point("new", 0.3, n) for n in range(3)], drop=[point("old", 0.0, n).id for n in range(4)])
sys.setprofile(None)
print(count)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_write_that_is_killed_is_applied_whole_or_not_at_all(tmp_path: Path, kills: int) -> None:
    """The process ends at its n-th step, as if it were killed there; n goes from the first step to the last."""
    steps = int(killed_at(tmp_path / "whole", 10**9).stdout)
    states = []
    for moment in np.linspace(1, steps, kills).astype(int):
        folder = tmp_path / str(moment)
        done = killed_at(folder, moment)
        index = EdgeIndex(folder)
        states.append((index.count({"product": "old"}), index.count({"product": "new"})))
        index.close()
        assert done.returncode == 9, done.stderr
    assert states[0] == (4, 0)
    assert states[-1] == (0, 3)
    assert set(states) == {(4, 0), (0, 3)}


def killed_at(folder: Path, moment: int) -> subprocess.CompletedProcess[str]:
    """Run a write in a process that ends at a step of it."""
    root = Path(__file__).resolve().parents[2]
    index = EdgeIndex(folder, dimension=D)
    index.write([point("old", 0.0, n) for n in range(4)])
    index.close()
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(moment)],
        cwd=root, capture_output=True, text=True, env={"PYTHONPATH": f"{root}:{root / 'client'}"}, check=False,
    )  # fmt: skip
