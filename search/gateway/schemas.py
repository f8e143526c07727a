"""Requests and answers of the gateway."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search.conditions import filtered
from search.index import Hit, Kind
from search.ingest import Report
from search.questions import Options

MOST = 100
"""Products in one answer."""
DEEPEST = 10_000
"""Products that an answer can skip."""

Condition = (
    bool
    | float
    | str
    | list[str]
    | list[float]
    | dict[Literal["gte", "gt", "lte", "lt"], float]
    | dict[Literal["not"], bool | float | str | list[str]]
)


class Strict(BaseModel):
    """A request. An unknown field is an error, so that a typing error does not go unseen."""

    # Stripping also refuses text that UTF-8 cannot encode.
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class FacetsRequest(Strict):
    """Which products to count, and how every question can be narrowed."""

    product_types: list[str] | None = Field(None, description="Only these product types; all by default")
    filters: dict[str, Condition] = Field(
        default_factory=dict,
        description="Conditions on attributes: a value, a list of values, a range or `not`. `guessed.NAME` is "
        "what the photos show, where attributes are guessed",
        examples=[{"colour": ["red", "blue"], "price": {"gte": 5, "lt": 20}, "brand": {"not": "Acme"}}],
    )

    def where(self) -> dict[str, Any]:
        """The conditions on the payload's fields."""
        return {key if key in PLAIN else filtered(key): value for key, value in self.filters.items()}


class Ask(FacetsRequest):
    """What every question can say."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 10
    offset: Annotated[int, Field(ge=0, le=DEEPEST)] = 0
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(0, description="0: the most similar; 1: the most varied")
    threshold: float | None = Field(None, ge=-1, le=1, description="The lowest cosine of an answer")
    collapse: bool = Field(False, description="One product of those that show the same photo, such as sizes")

    def options(self) -> Options:
        """The question's options, with the conditions on the payload's fields."""
        return Options(
            self.product_types, self.where(), self.limit, self.offset, self.diversity, self.threshold,
            collapse=self.collapse,
        )  # fmt: skip


PLAIN = frozenset({"product", "product_type", "status"})
"""Names in filters that are fields of every product, rather than attributes."""


class Fuse(Strict):
    """Weights of the rankings that a text question fuses. A weight of 0 leaves the ranking out."""

    image: Annotated[float, Field(ge=0)] = 1
    text: Annotated[float, Field(ge=0)] = 0
    words: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def some(self) -> Fuse:
        """Require one ranking."""
        if not (self.image or self.text or self.words):
            raise ValueError("one of image, text and words needs a weight above 0")
        return self


class SearchRequest(Ask):
    """Search by a text or by a photo."""

    text: str | None = Field(None, min_length=1, max_length=1000, examples=["a red striped mug"])
    photo: str | None = Field(None, description="A data URI, or a URL of an allowed host")
    product_type: str | None = Field(
        None, description="What to look for in the photo; found if missing; empty for the photo as a whole"
    )
    fuse: Fuse | None = Field(None, description="If missing: the shares chosen for this index, or the photos alone")

    @model_validator(mode="after")
    def one(self) -> SearchRequest:
        """Require either a text or a photo."""
        if (self.text is None) == (self.photo is None):
            raise ValueError("expected either text or photo")
        return self


class SimilarRequest(Ask):
    """Products that look like a product."""

    product: str
    widen: bool = Field(False, description="Products of other types that go with it, instead of its own type")
    duplicates: bool = Field(False, description="Also products that show the same photo")


class RecommendRequest(Ask):
    """Products for a person."""

    liked: list[str] = Field(default_factory=list, max_length=100)
    disliked: list[str] = Field(default_factory=list, max_length=100)
    recent: list[str] = Field(default_factory=list, max_length=100, description="Latest first; older ones count less")
    duplicates: bool = Field(False, description="Also products that show a photo of one of these")


class Found(BaseModel):
    """A product of an answer, by the photo that matched best."""

    product: str
    score: float
    product_type: str
    title: str
    text: str
    attributes: dict[str, Any]
    guessed: dict[str, str] = Field(description="What the photos show, where attributes are guessed")
    confidence: dict[str, float] = Field(description="The probability of each guess")
    photo: str = Field(description="The path of the photo at this gateway")
    size: list[int] = Field(description="Width and height of the photo, in pixels")
    box: list[float] = Field(description="What was embedded: x0 y0 x1 y1 in pixels of the photo")
    grounded: bool
    detector_score: float
    duplicate: str = Field(description="Products with the same value show the same photo")


class Photo(BaseModel):
    """What was found in the photo of a question."""

    product_type: str
    box: list[float]
    score: float
    grounded: bool


class Answer(BaseModel):
    """Products, best first."""

    products: list[Found]
    photo: Photo | None = None


class ProductAnswer(BaseModel):
    """A product and its photos."""

    product: str
    product_type: str
    title: str
    description: str
    text: str
    attributes: dict[str, Any]
    photos: list[Found]
    duplicates: list[Found] = Field(description="Other products that show one of the photos, at most 100")
    version: str


class Facet(BaseModel):
    """The values of an attribute, with the number of photos of each. A number has none; a bool has true and false."""

    kind: Kind
    values: dict[str, int]


class Facets(BaseModel):
    """What to filter by: product types and attributes that have few values, with the number of photos of each."""

    product_types: dict[str, int]
    attributes: dict[str, Facet]


class Written(BaseModel):
    """What an upsert did."""

    products: int
    unchanged: int
    photos: dict[str, int]
    statuses: dict[str, int]
    bad_count: int = Field(description="Bad rows and photos; `bad` names the first 1,000")
    bad: list[str]


class Deleted(BaseModel):
    """How many products were deleted."""

    products: int


def found(hit: Hit) -> Found:
    """A hit as the gateway shows it."""
    payload = hit.payload
    return Found(
        product=payload["product"],
        score=round(hit.score, 6),
        product_type=payload["product_type"],
        title=payload["title"],
        text=payload["text"],
        attributes=payload["attributes"],
        guessed=payload.get("guessed", {}),
        confidence=payload.get("confidence", {}),
        photo=f"/v1/photos/{hit.id}",
        size=payload["size"],
        box=payload["box"],
        grounded=payload["status"] == 0,
        detector_score=payload["score"],
        duplicate=payload["duplicate"],
    )


def written(report: Report) -> Written:
    """A report as the gateway shows it."""
    return Written(
        products=report.products,
        unchanged=report.unchanged,
        photos=dict(report.photos),
        statuses=dict(report.statuses),
        bad_count=report.bad_count,
        bad=[str(row) for row in report.bad],
    )
