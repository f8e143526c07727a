"""The next version of a collection: built while the present one is served, checked by gates, and served in one step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from search.index import IMAGE, Index, Point, Where
from search.ingest import Report
from search.photos import bands
from search.questions import Options, by_text
from search.records import Product
from search.store import RADIUS, Collection, Store
from vlclip import Client, comparable

SAMPLE = 300
"""Products whose own texts are searched for, to compare two collections."""


@dataclass(frozen=True)
class Gates:
    """What the next collection must reach to be served.

    ``products``: its share of the served collection's products; ``grounded``: how much lower the share of photos in
    which the product was found may be; ``hits``: how much lower the share of products may be that are among the first
    ten for their own text.
    """

    products: float = 0.99
    grounded: float = 0.05
    hits: float = 0.02

    def failures(self, served: Mapping[str, float], following: Mapping[str, float]) -> list[str]:
        """A sentence for each gate that the next collection does not pass."""
        found = []
        if following["products"] < self.products * served["products"]:
            found.append(
                f"it has {following['products']:.0f} products, the served one has {served['products']:.0f}; "
                f"expected at least {self.products:.0%}"
            )
        for name, most in (("grounded", self.grounded), ("hits10", self.hits)):
            if name in served and name in following and following[name] < served[name] - most:
                found.append(
                    f"{name} is {following[name]:.3f}, that of the served one is {served[name]:.3f}; "
                    f"expected at most {most:g} less"
                )
        return found


@dataclass(frozen=True)
class Built:
    """The next collection, the figures of both, and the gates that it does not pass."""

    collection: Collection
    report: Report
    served: Mapping[str, float]
    following: Mapping[str, float]
    failures: list[str]


def create(store: Store, client: Client, radius: int = RADIUS) -> Collection:
    """An empty collection for the models behind ``client``, or one that an interrupted reindex has left."""
    bands("0", radius)  # refuses a radius that cannot be
    model = next(model for model in client.models() if model.name == "product_image")
    served, before = store.served(), store.previous()
    for left in reversed(store.collections()):
        is_used = served is None or left.name <= served.name or (before is not None and left.name == before.name)
        if not is_used and (left.version, left.radius) == (model.version, radius):
            return left
    dimension = client.embed_texts(["a product"]).embedding.shape[1]
    return store.create(model.version, model.label, dimension, radius)


def digests(index: Index) -> dict[str, str]:
    """A digest of each product of a collection: of its photos, where they are stored, and its text."""
    found: dict[str, list[str]] = {}
    for point in index.points({}):
        fields = [str(point.payload[name]) for name in ("number", "content", "photo", "text_key")]
        found.setdefault(point.payload["product"], []).append("\0".join(fields))
    return {key: hashlib.sha256("\n".join(sorted(one)).encode()).hexdigest()[:16] for key, one in found.items()}


def products_of(index: Index, where: Where | None = None) -> Iterator[Product]:
    """The products of a collection, as they were given, with the paths or URLs of their photos."""
    last: list[Point] = []
    for point in sorted(
        index.points(where or {}), key=lambda point: (point.payload["product"], point.payload["number"])
    ):
        if last and last[0].payload["product"] != point.payload["product"]:
            yield _product(last)
            last = []
        last.append(point)
    if last:
        yield _product(last)


def _product(points: list[Point]) -> Product:
    payload = points[0].payload
    fields = {name: payload[name] for name in ("product_type", "title", "description", "attributes")}
    return Product(id=payload["product"], photos=tuple(point.payload["photo"] for point in points), **fields)


def figures(
    index: Index, collection: Collection, client: Client, queries: Sequence[tuple[str, str]] = (), sample: int = SAMPLE
) -> dict[str, float]:
    """The figures that the gates compare.

    ``products`` and ``photos``: counts; ``grounded``: share of the photos in which the product was found; ``hits10``:
    share of the queries (a text and the id of its product) whose product is among the first ten. Without queries, it is
    the share of a sample of products that are among the first ten for their own text. ``hits10`` is what was measured
    when the collection was built if ``client`` has other models, or missing if nothing was measured then.
    """
    texts: dict[str, tuple[str, str]] = {}
    photos = grounded = 0
    for point in index.points({}):
        payload = point.payload
        photos += 1
        grounded += payload["status"] == 0
        rank = hashlib.sha256(payload["product"].encode()).hexdigest()
        texts[payload["product"]] = (rank, payload["text"])
    own = sorted((rank, product, text) for product, (rank, text) in texts.items() if text)[:sample]
    asked = list(queries) or [(text, product) for _, product, text in own]
    found = {"products": len(texts), "photos": photos, "grounded": grounded / max(photos, 1)}
    hits = _hits(index, collection, client, asked) if asked else None
    if hits is None and not queries:
        hits = collection.figures.get("hits10")
    return found if hits is None else found | {"hits10": hits}


def _hits(index: Index, collection: Collection, client: Client, asked: Sequence[tuple[str, str]]) -> float | None:
    """The share of the texts whose product is among the first ten; None if the client has other models."""
    encoded = client.embed_texts([text for text, _ in asked])
    if not comparable(collection.version, encoded.version):
        return None
    hits = 0
    for (text, product), vector in zip(asked, encoded.embedding, strict=True):
        found = by_text(index, text, vector, Options(limit=10), {IMAGE: 1.0})
        hits += product in {hit.payload["product"] for hit in found}
    return hits / len(asked)
