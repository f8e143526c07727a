"""What a shop asks an index: products for a text or a photo, similar to a product, or for what a person liked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.index import IMAGE, TEXT, WORDS, Hit, Index, Leg, Point, Question, Using, Vector, Where

MOST_DUPLICATES = 1000
"""Products that show a photo of the asked one and are left out with all of their photos. Of further ones, which appear
where many products share a placeholder, the shared photo is left out."""


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
    collapse: bool = False

    def question(self, legs: Sequence[Leg], *, without: Sequence[str] = (), more: Where | None = None) -> Question:
        """The question with these options and ``more`` conditions."""
        if self.types is not None and "product_type" in self.where:
            raise ValueError("product types are named twice: as such, and in a condition on product_type")
        where = {**(more or {}), **self.where}
        if self.types is not None:
            where["product_type"] = list(self.types)
        return Question(
            legs, where, without, self.limit, self.offset, self.diversity, self.threshold, self.exact, self.collapse
        )


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

    Types in the options come before both. Products that show the same photo are left out unless ``duplicates`` is set.
    Raises UnknownProduct.
    """
    points = points_of(index, product)
    kind = points[0].payload["product_type"]
    more: dict[str, Any] = {}
    if options.types is None:
        more["product_type"] = {"not": [kind]} if widen else kind
    legs = [Leg(IMAGE, _mean([point.vectors[IMAGE] for point in points]))]
    return _others(index, legs, points, options, more, duplicates)


def recommend(
    index: Index,
    liked: Mapping[str, float],
    options: Options,
    *,
    disliked: Sequence[str] = (),
    duplicates: bool = False,
) -> list[Hit]:
    """Products for a person, from the products that they liked, each with a weight, and those that they disliked.

    The question is the weighted mean of the liked products' vectors, moved away from the mean of the disliked ones, as
    the engine's own recommendation by average vectors, which knows no weights. Products that the index no longer has
    are skipped. Products that show a photo of a liked or disliked one are left out unless ``duplicates`` is set. Raises
    UnknownProduct if the index has none of the liked ones, and ValueError if nothing was liked.
    """
    if not any(weight > 0 for weight in liked.values()) or min(liked.values()) < 0:
        raise ValueError("a recommendation needs at least one liked product, and no weight below 0")
    known = _known(index, [*liked, *disliked])
    wanted = [product for product in liked if product in known and liked[product] > 0]
    if not wanted:
        raise UnknownProduct(f"the index has none of the liked products: {', '.join(list(liked)[:5])}")
    vectors = {product: _mean([point.vectors[IMAGE] for point in points]) for product, points in known.items()}
    near = _mean([vectors[product] for product in wanted], [liked[product] for product in wanted])
    if unwanted := [vectors[product] for product in disliked if product in known]:
        near = 2 * near - _mean(unwanted)
    points = [point for found in known.values() for point in found]
    return _others(index, [Leg(IMAGE, near)], points, options, {}, duplicates)


def _others(
    index: Index, legs: Sequence[Leg], points: Sequence[Point], options: Options, more: dict[str, Any], duplicates: bool
) -> list[Hit]:
    """The answer without the products of ``points`` and, unless ``duplicates`` is set, those that show their photos."""
    without = {point.payload["product"] for point in points}
    if not duplicates:
        groups = sorted({point.payload["duplicate"] for point in points})
        more["duplicate"] = {"not": groups}
        without |= index.facet("product", {"duplicate": groups}, limit=MOST_DUPLICATES).keys()
    return index.ask(options.question(legs, without=sorted(without), more=more))


def _known(index: Index, products: Sequence[str]) -> dict[str, list[Point]]:
    """The points of those products that the index has, with their vectors."""
    found: dict[str, list[Point]] = {}
    for point in index.points({"product": list(products)}, vectors=(IMAGE,)):
        found.setdefault(point.payload["product"], []).append(point)
    return found


@dataclass(frozen=True)
class Duplicates:
    """Photos that are copies of one. ``exact``: all files have the same content.

    ``photos`` are product, number of the photo in the product, and the path or URL of the photo.
    """

    group: str
    exact: bool
    products: list[str]
    photos: list[tuple[str, int, str]]


def duplicates(index: Index, limit: int, offset: int = 0) -> list[Duplicates]:
    """Groups of photos that are copies of one, of several products or of one, largest first."""
    counts = index.facet("duplicate", limit=offset + limit)
    groups = [group for group, count in counts.items() if count > 1][offset:]
    found: dict[str, list[Point]] = {group: [] for group in groups}
    for start in range(0, len(groups), 100):
        for point in index.points({"duplicate": groups[start : start + 100]}):
            found[point.payload["duplicate"]].append(point)
    return [_duplicates(group, points) for group, points in found.items() if points]


def _duplicates(group: str, points: Sequence[Point]) -> Duplicates:
    fields = [point.payload for point in points]
    photos = sorted((one["product"], one["number"], one["photo"]) for one in fields)
    exact = len({one["content"] for one in fields}) == 1
    return Duplicates(group, exact, sorted({one["product"] for one in fields}), photos)


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


def _mean(vectors: Sequence[Vector], weights: Sequence[float] | None = None) -> Vector:
    return np.asarray(np.average(np.stack(vectors), axis=0, weights=weights), np.float32)
