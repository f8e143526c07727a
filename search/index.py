"""The index of photos: what a point is, what can be asked, and the few verbs that both engines share.

`search.edge` is Qdrant Edge, which runs in this process. `search.cluster` is a Qdrant cluster by URL. A point is one
photo of one product. Results are grouped by product.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Using = Literal["image", "text", "words"]
"""What a leg of a question compares: the vector of the crop, the vector of the text, or the words (BM25)."""

Kind = Literal["keyword", "number", "bool"]

Where = Mapping[str, Any]
"""Conditions that all must hold. A key is a field of the payload, such as ``product_type`` or ``attributes.price``. A
value is one value, a list of allowed values, a range such as ``{"gte": 5, "lt": 10}``, or ``{"not": value or list}``.
"""

IMAGE: Final = "image"
TEXT: Final = "text"
WORDS: Final = "words"
KEYWORDS = ("product", "product_type", "content", "bands", "duplicate")
"""Fields of the payload that are always indexed. Attributes are indexed when they are first seen."""


GROUPS = ("attributes", "guessed")
"""Objects of the payload whose fields are indexed when they are first seen: what the shop says of a product, and what
its photos show (`search.attributes`)."""
MOST_FIELDS = 128
"""Attributes with an index. Further ones can be used in filters too, but slow a question down."""


class IndexFault(RuntimeError):
    """The index cannot do what was asked; the message says why and what to do."""


class IndexAway(IndexFault):
    """The server of the index does not answer."""


class Closed(IndexFault):
    """The collection was closed while it was asked, because another one has taken its place."""


class WrongVersion(IndexFault):
    """The server encodes with other models than those that made the index."""


@dataclass(frozen=True)
class Point:
    """A photo of a product: its vectors by name (``image`` and ``text``), the words for BM25, and the payload."""

    id: str
    vectors: Mapping[str, Vector]
    words: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Leg:
    """One ranking of a question: a vector for ``image`` or ``text``, or a text for ``words``."""

    using: Using
    near: Vector | str
    weight: float = 1.0


@dataclass(frozen=True)
class Question:
    """What is asked of the index.

    Several ``legs`` are fused by reciprocal rank. ``diversity`` of 0 to 1 trades similarity for variety (maximal
    marginal relevance; one leg with a vector only). ``threshold`` is the lowest score, a cosine; it applies to one leg
    with a vector only. ``without`` are products that are left out. ``collapse`` leaves out products whose photo is a
    duplicate of one that is in the answer, such as the sizes of a garment.
    """

    legs: Sequence[Leg]
    where: Where = field(default_factory=dict)
    without: Sequence[str] = ()
    limit: int = 10
    offset: int = 0
    diversity: float = 0.0
    threshold: float | None = None
    exact: bool = False
    collapse: bool = False

    def __post_init__(self) -> None:
        if not self.legs:
            raise ValueError("a question needs at least one leg")
        if self.limit < 1 or self.offset < 0:
            raise ValueError(f"expected a limit above 0 and an offset of 0 or more, got {self.limit} and {self.offset}")
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"expected a diversity between 0 and 1, got {self.diversity:g}")
        if (self.diversity or self.threshold is not None) and (len(self.legs) > 1 or self.legs[0].using == WORDS):
            raise ValueError("diversity and threshold need a question of one vector; this one fuses several rankings")


@dataclass(frozen=True)
class Hit:
    """A product that was found, by the best of its photos. ``score`` is a cosine, or a fused rank."""

    id: str
    score: float
    payload: Mapping[str, Any]


class Index(Protocol):
    """A collection of points of one version."""

    def write(self, points: Sequence[Point], drop: Sequence[str] = ()) -> None:
        """Insert or replace points and delete the points ``drop``, all of it or nothing."""

    def amend(self, changes: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> None:
        """Set fields of the payload of points, by their ids. The other fields and the vectors stay."""

    def ask(self, question: Question) -> list[Hit]:
        """The best products, one hit each, best first."""

    def points(self, where: Where, *, vectors: Sequence[str] = ()) -> Iterator[Point]:
        """All points that match, with the named vectors."""

    def get(self, ids: Sequence[str], *, vectors: Sequence[str] = ()) -> list[Point]:
        """The points with these ids, where they exist."""

    def count(self, where: Where | None = None) -> int:
        """The number of points that match."""

    def facet(self, key: str, where: Where | None = None, limit: int = 100) -> dict[str, int]:
        """The values of a field and the number of points with each, most frequent first."""

    def fields(self) -> dict[str, Kind]:
        """The indexed fields of the payload and their kinds."""

    def optimize(self) -> None:
        """Build what makes searches fast. Returns when it is built."""

    def close(self) -> None:
        """Release the index."""


def depth(wanted: int) -> int:
    """How many points diversity and fusion choose from, to find so many products.

    Few steps, because the choice depends on it: so the pages of an answer, which differ in their offset, fit together.
    """
    return next((step for step in (256, 1024, 4096) if step >= 2 * wanted), 10_000)


def kind_of(value: Any) -> Kind:
    """The kind of an attribute's value."""
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "keyword"


def point_id(product: str, number: int) -> str:
    """The id of the point of a product's photo ``number``, which is the same each time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{number}/{product}"))


def decoded(id: object, payload: Mapping[str, Any] | None, vectors: Any, names: Sequence[str]) -> Point:
    """A point as an engine stores it, with the vectors of these names where it has them."""
    fields = dict(payload or {})
    words = fields.pop("words", "")
    fields.pop("flags", None)
    arrays = {name: np.array(vectors[name], np.float32) for name in names if name in (vectors or {})}
    return Point(str(id), arrays, words, fields)


def ordered(hits: Sequence[Hit], question: Question) -> list[Hit]:
    """The best hit of each product, best first. Equal scores, as of duplicates, have the same order every time."""
    found = one_a_product(hits if question.diversity else sorted(hits, key=lambda hit: (-hit.score, hit.id)))
    return _one_each(found, "duplicate") if question.collapse else found


def one_a_product(hits: Sequence[Hit]) -> list[Hit]:
    """The best hit of each product, in order."""
    return _one_each(hits, "product")


def _one_each(hits: Sequence[Hit], field: str) -> list[Hit]:
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.payload[field], hit)
    return list(best.values())
