"""How good the answers of an index are, by judgements of which products fit which queries."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product as combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search import questions
from search.index import IMAGE, TEXT, WORDS, Hit, Index, Using, Vector
from search.measures import Estimate, Values, estimate, graded, overlap
from search.photos import load
from search.questions import Options, UnknownProduct
from search.records import BadRow, CatalogueError, sentence
from search.shop import Shop

FORMAT = """\
Judgements are a .csv or .jsonl file with a row for each judged product of a query:

    query,product,grade
    a red striped mug,p17,2
    a red striped mug,p4,1
    product:p17,p4,1
    photo:photos/mug.jpg,p17,1

    query         a text; or "product:" and the id of a product, for similar products; or "photo:" and the path of a
                  photo, relative to the file. "text:" before a text is allowed, for texts that begin like these.
    product       the id of a product that was judged for the query
    grade         how well it fits: 0 if it does not, more if it does; 1 if the field is missing or empty
    product_type  optional, for a photo: what to look for in it; found if missing

A product that was not judged counts as wrong. The measures, each as a mean over the queries:

    HITS@k, P@k   whether a right product is among the first k; the share of the first k that is right
    recall@k      the share of all right products that is among the first k
    nDCG@k        the sum of grades, each divided by log2(rank + 1), as a share of what is possible
    MRR           1 / rank of the first right product; 0 if it is not among the first 100
    recall of the index: the share of the first ten products of an exact search that the index finds
"""
"""What judgements are, for the help of the command."""
Kind = Literal["text", "product", "photo"]
Shares = Mapping[Using, float]
Rows = npt.NDArray[np.int64]

DEPTH = 100
"""Products that each query asks for. MRR counts a product below that as not found."""
KS = (1, 5, 10)
COMPARED = 10
"""Products of an exact search that are compared with those of the index."""
RECALL = "recall of the index"
CHOSEN_BY = "nDCG@10"
"""The measure by which the shares of a fusion are chosen."""
LEAST = 20
"""Text queries that are needed to choose shares."""
STEPS = 5
"""The shares are multiples of 1 / STEPS."""


class Row(BaseModel):
    """A judged product of a query."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True)

    query: str = Field(min_length=1, max_length=10_000)
    product: str = Field(min_length=1)
    grade: float = Field(1.0, ge=0, allow_inf_nan=False)
    product_type: str | None = None


@dataclass(frozen=True)
class Query:
    """A query and the grades of its judged products. ``text`` is a text, the id of a product, or a path."""

    kind: Kind
    text: str
    product_type: str | None = None
    grades: dict[str, float] = field(default_factory=dict)


def read_judgements(path: Path) -> tuple[list[Query], list[BadRow]]:
    """The queries of a file with at least one relevant product, and the rows that are wrong. Raises CatalogueError."""
    readers = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    if path.suffix.lower() not in readers or not path.is_file():
        raise CatalogueError(f"there are no judgements in {path}; expected a file in .csv or .jsonl")
    queries: dict[tuple[str, str | None], Query] = {}
    bad = []
    for line, given in readers[path.suffix.lower()](path):
        where = f"{path}:{line}"
        if isinstance(given, str):
            bad.append(BadRow(where, given))
            continue
        try:
            row = Row.model_validate(given)
        except ValidationError as error:
            bad.append(BadRow(where, "; ".join(sentence(dict(problem)) for problem in error.errors())))
            continue
        query = queries.setdefault((row.query, row.product_type), _query(row, path.parent))
        if row.product in query.grades:
            bad.append(BadRow(where, f"the product {row.product!r} was judged before for this query"))
        else:
            query.grades[row.product] = row.grade
    found = [query for query in queries.values() if any(query.grades.values())]
    if not found:
        raise CatalogueError(
            f"{path} has no query with a product of a grade above 0" + "".join(f"; {b}" for b in bad[:1])
        )
    return found, bad


def _query(row: Row, folder: Path) -> Query:
    prefix, colon, rest = row.query.partition(":")
    rest = rest.strip()
    if not colon or prefix not in ("text", "product", "photo"):
        return Query("text", row.query)
    if prefix == "photo":
        return Query("photo", str(folder / rest), row.product_type)
    return Query("product", rest) if prefix == "product" else Query("text", rest)


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"query", "product"} - {*(rows.fieldnames or ())}:
            raise CatalogueError(f"{path} has no column named {' and '.join(sorted(missing))}")
        for row in rows:
            given = {key: value for key, value in row.items() if key is not None and value not in (None, "")}
            yield rows.line_num, given


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, f"this line is not JSON ({error})"


@dataclass(frozen=True)
class Evaluation:
    """The measures of each kind of query: kind → measure → estimate. ``failed`` are queries that were not answered."""

    queries: Mapping[str, int]
    measures: Mapping[str, Mapping[str, Estimate]]
    failed: Sequence[BadRow]


def evaluate(
    shop: Shop,
    queries: Sequence[Query],
    *,
    ks: Sequence[int] = KS,
    options: Options | None = None,
    progress: Callable[[int], None] = lambda queries: None,
) -> Evaluation:
    """Ask the shop each query and measure the answers. The shares of a text question are those of the collection."""
    asked = replace(options or Options(), limit=max(DEPTH, *ks))
    failed: list[BadRow] = []
    counts: dict[str, int] = {}
    measures: dict[str, dict[str, Estimate]] = {}
    for kind in ("text", "product", "photo"):
        found, exact, grades = [], [], []
        for query in (one for one in queries if one.kind == kind):
            try:
                found.append(ask(shop, query, asked))
                exact.append(ask(shop, query, replace(asked, limit=COMPARED, exact=True)))
                grades.append(query.grades)
            except (UnknownProduct, ValueError) as error:
                failed.append(BadRow(f"{kind}:{query.text}", str(error)))
            progress(1)
        if found:
            counts[kind] = len(found)
            values = graded(found, grades, ks) | {RECALL: overlap([one[:COMPARED] for one in found], exact)}
            measures[kind] = {name: estimate(each) for name, each in values.items()}
    return Evaluation(counts, measures, [*_not_indexed(shop, queries), *failed])


def _not_indexed(shop: Shop, queries: Sequence[Query]) -> list[BadRow]:
    """What to say of judged products that the index does not have."""
    judged = sorted({product for query in queries for product in query.grades})
    known = {point.payload["product"] for point in shop.served().points({"product": judged})}
    missing = [product for product in judged if product not in known]
    if not missing:
        return []
    named = ", ".join(missing[:3])
    return [
        BadRow("judgements", f"the index lacks {len(missing)} judged products ({named} …); they count as not found")
    ]


def ask(shop: Shop, query: Query, options: Options) -> list[str]:
    """The products that the shop finds for a query, best first. Raises UnknownProduct, NoPhoto and PhotoError."""
    if query.kind == "text":
        hits = shop.by_text(query.text, options)
    elif query.kind == "product":
        hits = shop.similar(query.text, options)
    else:
        hits = shop.by_photo(load(query.text), query.product_type, options).hits
    return _products(hits)


def _products(hits: Sequence[Hit]) -> list[str]:
    return [str(hit.payload["product"]) for hit in hits]


@dataclass(frozen=True)
class Choice:
    """The shares that were chosen on one half of the queries, and what they bring on the other half.

    ``tried`` holds the estimate of each combination on the first half, in the order of `grid`. ``gain`` is the
    difference to the photos alone on the second half, query by query.
    """

    shares: Shares
    gain: Estimate
    tried: Sequence[tuple[Shares, Estimate]]

    @property
    def is_better(self) -> bool:
        """Whether the gain is more than chance."""
        return self.gain.low > 0

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
        kept = (
            "kept" if self.is_better else "not kept, because the gain may be chance: text questions stay as they were"
        )
        return (
            f"shares chosen on half of the text queries: {shares}. On the other half, {CHOSEN_BY} changes by "
            f"{self.gain} against the photos alone: {kept}"
        )


def grid(steps: int = STEPS) -> list[dict[Using, float]]:
    """All shares of image, text and words that are multiples of 1 / ``steps``; the photos alone come first."""
    found = [
        (i, t, steps - i - t) for i, t in combinations(range(steps, -1, -1), range(steps, -1, -1)) if i + t <= steps
    ]
    names: tuple[Using, ...] = (IMAGE, TEXT, WORDS)
    return [{name: part / steps for name, part in zip(names, parts, strict=True) if part} for parts in found]


def choose_shares(
    shop: Shop, queries: Sequence[Query], *, progress: Callable[[int], None] = lambda combinations: None
) -> Choice:
    """Choose the shares of image, text and words in a text question. Raises ValueError for fewer than 20 of them."""
    texts = [query for query in queries if query.kind == "text"]
    if len(texts) < LEAST:
        raise ValueError(f"choosing shares needs at least {LEAST} text queries, got {len(texts)}")
    index, vectors = shop.encode([query.text for query in texts])
    return choose(index, texts, vectors, grid(), progress=progress)


def choose(
    index: Index,
    texts: Sequence[Query],
    vectors: Vector,
    combinations: Sequence[Shares],
    *,
    progress: Callable[[int], None] = lambda combinations: None,
) -> Choice:
    """Choose the combination with the best nDCG@10 for queries by text and their ``vectors`` [Q, D].

    It is chosen on the first of the `halves` of the queries and compared with the first combination on the other half,
    so that the gain is not that of the luckiest combination.
    """
    values = []
    for shares in combinations:
        values.append(measure_texts(index, texts, vectors, shares, limit=COMPARED)[CHOSEN_BY])
        progress(1)
    first, second = halves(len(texts))
    best = max(range(len(values)), key=lambda n: values[n][first].mean())
    tried = [(shares, estimate(each[first])) for shares, each in zip(combinations, values, strict=True)]
    return Choice(tried[best][0], estimate(values[best][second] - values[0][second]), tried)


def halves(count: int) -> tuple[Rows, Rows]:
    """The queries that shares are chosen on, and those that the choice is measured on: two random halves."""
    order = np.random.default_rng(0).permutation(count)
    return order[::2], order[1::2]


def measure_texts(
    index: Index, texts: Sequence[Query], vectors: Vector, shares: Shares | None = None, *, limit: int = DEPTH
) -> dict[str, Values]:
    """The measures of the first ``limit`` products for queries by text and their ``vectors`` [Q, D], with shares."""
    options = Options(limit=limit)
    found = [
        _products(questions.by_text(index, query.text, vector, options, shares))
        for query, vector in zip(texts, vectors, strict=True)
    ]
    return graded(found, [query.grades for query in texts], KS)
