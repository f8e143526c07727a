"""What a shop asks an index: products for a text or a photo, similar to a product, or for what a person liked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.index import IMAGE, TEXT, WORDS, Hit, Index, Leg, Point, Question, Using, Vector, Where


class UnknownProduct(LookupError):
    """The index has no such product."""


@dataclass(frozen=True)
class Options:
    """What all questions have in common. ``types`` limits the product types; None allows all."""

    types: Sequence[str] | None = None
    where: Where = field(default_factory=dict)
    limit: int = 10
    offset: int = 0
    diversity: float = 0.0
    threshold: float | None = None
    exact: bool = False

    def question(self, legs: Sequence[Leg], *, without: Sequence[str] = (), more: Where | None = None) -> Question:
        """The question with these options and ``more`` conditions."""
        where = {**self.where, **(more or {})}
        if self.types is not None:
            where["product_type"] = list(self.types)
        return Question(legs, where, without, self.limit, self.offset, self.diversity, self.threshold, exact=self.exact)


def by_text(
    index: Index, text: str, vector: Vector, options: Options, fuse: Mapping[Using, float] | None = None
) -> list[Hit]:
    """Products for a text and its embedding.

    ``fuse`` gives weights to the photos, the products' texts and the words (BM25). The default asks the photos only.
    """
    weights = {using: weight for using, weight in (fuse or {IMAGE: 1.0}).items() if weight > 0}
    legs = [Leg(using, text if using == WORDS else vector, weight) for using, weight in weights.items()]
    return index.ask(options.question(legs))


def by_photo(index: Index, vector: Vector, options: Options) -> list[Hit]:
    """Products that look like the product in a photo, by the embedding of its crop."""
    return index.ask(options.question([Leg(IMAGE, vector)]))


def similar(
    index: Index, product: str, options: Options, *, widen: bool = False, duplicates: bool = False
) -> list[Hit]:
    """Products that look like a product: of its own type, or with ``widen`` of all other types.

    Products that show the same photo are left out unless ``duplicates`` is set. Raises UnknownProduct.
    """
    points = points_of(index, product)
    kind = points[0].payload["product_type"]
    more: dict[str, Any] = {}
    if options.types is None:
        more["product_type"] = {"not": [kind]} if widen else kind
    if not duplicates:
        more["duplicate"] = {"not": sorted({point.payload["duplicate"] for point in points})}
    legs = [Leg(IMAGE, _mean([point.vectors[IMAGE] for point in points]))]
    return index.ask(options.question(legs, without=[product], more=more))


def recommend(index: Index, liked: Mapping[str, float], options: Options, *, disliked: Sequence[str] = ()) -> list[Hit]:
    """Products for a person, from the products that they liked, each with a weight, and those that they disliked.

    The question is the weighted mean of the liked products' vectors, moved away from the mean of the disliked ones.
    Raises UnknownProduct, and ValueError if nothing was liked.
    """
    if not liked:
        raise ValueError("a recommendation needs at least one liked product")
    wanted = _mean([_vector(index, product) for product in liked], list(liked.values()))
    if disliked:
        wanted = 2 * wanted - _mean([_vector(index, product) for product in disliked])
    return index.ask(options.question([Leg(IMAGE, wanted)], without=[*liked, *disliked]))


def recent(products: Sequence[str], half_life: float = 5.0) -> dict[str, float]:
    """Weights for the products that a person looked at, latest first: half as much after ``half_life`` products."""
    weights: dict[str, float] = {}
    for age, product in enumerate(products):
        weights.setdefault(product, 0.5 ** (age / half_life))
    return weights


def points_of(index: Index, product: str) -> list[Point]:
    """The points of a product, with their vectors. Raises UnknownProduct."""
    points = sorted(index.points({"product": product}, vectors=(IMAGE, TEXT)), key=lambda point: point.id)
    if not points:
        raise UnknownProduct(f"the index has no product {product!r}")
    return points


def _vector(index: Index, product: str) -> Vector:
    return _mean([point.vectors[IMAGE] for point in points_of(index, product)])


def _mean(vectors: Sequence[Vector], weights: Sequence[float] | None = None) -> Vector:
    return np.asarray(np.average(np.stack(vectors), axis=0, weights=weights), np.float32)
