"""Measure a shop of drawn products, whose truth is known: text and similar items, through the gateway and the index.

    python -m benchmarks.shop_figures                                    2,000 products in 4,000 scenes
    python -m benchmarks.shop_figures --products 300 --scenes 600        a short run

Text queries are captions, such as "a red striped mug"; every product that fits the caption in full is right. The
products of the index have a shop's noisy title and description, and no attributes.

    text       HITS@5 through the gateway and the index, and of an exact search over the same vectors
    similar    share of the first five similar items, of all types, that have the same type, and the same pattern too
    ablation   what each part adds, on the half of the queries that the shares were not chosen on: photos as a whole,
               + grounding, + the enriched texts, + the words (BM25). Rankings are fused by reciprocal rank.

build/shop-figures has the catalogue, the index, judgements.jsonl for `python -m search evaluate`, the figures as JSON,
a table in Markdown and a plot.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from rich.console import Console

from benchmarks.shop import draw
from benchmarks.target import keep, parser_of, served
from search import evaluate, plot, questions
from search.edge import EdgeIndex
from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.index import IMAGE, TEXT, WORDS, Index, Point
from search.measures import TOP, Estimate, Values, estimate, graded
from search.questions import Options
from search.records import Product, read
from search.shop import Shop
from search.store import FolderStore
from training.catalogue.items import Item
from vlclip import Client

Report = dict[str, Any]
SHOWN = (f"HITS@{TOP}", "MRR", "nDCG@10")
SIMILAR = 500
"""Products whose similar items are looked at."""
BATCH = 64


@dataclass(frozen=True)
class Truth:
    """What a product shows, whatever its title says."""

    product_type: str
    pattern: str
    caption: str


def truth_of(catalogue: Path) -> dict[str, Truth]:
    """The truth of each product of a drawn catalogue, by its id."""
    rows = [json.loads(line) for line in catalogue.read_text().splitlines()]
    return {
        row["id"]: Truth(
            row["product_type"],
            row["pattern"],
            Item(row["product_type"], row["colour"], row["pattern"], row["material"], "", 0).caption,
        )
        for row in rows
    }


def text_queries(truth: Mapping[str, Truth]) -> list[evaluate.Query]:
    """A query for each caption; all products that it describes in full are right."""
    queries: dict[str, evaluate.Query] = {}
    for product, true in truth.items():
        queries.setdefault(true.caption, evaluate.Query("text", true.caption)).grades[product] = 1.0
    return list(queries.values())


def write_judgements(file: Path, truth: Mapping[str, Truth], queries: Sequence[evaluate.Query], similar: int) -> None:
    """Write the queries by text, and ``similar`` products with those of their type (2 if the pattern is the same)."""
    rows: list[dict[str, object]] = [
        {"query": query.text, "product": product} for query in queries for product in query.grades
    ]
    for product, true in islice(truth.items(), similar):
        rows += [
            {"query": f"product:{product}", "product": other, "grade": 1 + (its.pattern == true.pattern)}
            for other, its in truth.items()
            if other != product and its.product_type == true.product_type
        ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def without_attributes(catalogue: Path) -> Iterator[Product]:
    """The products with the shop's texts only."""
    for product in read(catalogue):
        assert isinstance(product, Product), str(product)
        yield product.model_copy(update={"attributes": {}})


@contextmanager
def whole_images(folder: Path, index: Index, client: Client) -> Iterator[EdgeIndex]:
    """An index of the same photos, embedded as a whole. It is made anew each time."""
    shutil.rmtree(folder, ignore_errors=True)
    points = sorted(index.points({}, vectors=(IMAGE, TEXT)), key=lambda point: point.id)
    whole: EdgeIndex | None = None
    for start in range(0, len(points), BATCH):
        batch = points[start : start + BATCH]
        vectors = client.embed_whole_images([Path(point.payload["photo"]) for point in batch]).embedding
        whole = whole or EdgeIndex(folder, dimension=vectors.shape[1])
        whole.write([
            Point(point.id, {IMAGE: vector, TEXT: point.vectors[TEXT]}, point.words, point.payload)
            for point, vector in zip(batch, vectors, strict=True)
        ])  # fmt: skip
    assert whole is not None
    whole.optimize()
    try:
        yield whole
    finally:
        whole.close()


def through_gateway(http: TestClient, queries: Sequence[evaluate.Query]) -> list[list[str]]:
    """The first five products that the gateway finds by the photos, for each query."""
    found = []
    for query in queries:
        answer = http.post("/v1/search", json={"text": query.text, "limit": TOP, "fuse": {"image": 1}})
        answer.raise_for_status()
        found.append([one["product"] for one in answer.json()["products"]])
    return found


def exact(index: Index, vectors: np.ndarray) -> list[list[str]]:
    """The first five products for each of the vectors [Q, D], by all cosines."""
    points = list(index.points({}, vectors=(IMAGE,)))
    images = np.stack([point.vectors[IMAGE] for point in points])
    products = [str(point.payload["product"]) for point in points]
    order = np.argsort(-(vectors @ images.T), axis=1, kind="stable")
    return [list(islice(dict.fromkeys(products[n] for n in row), TOP)) for row in order]


def possible(truth: Mapping[str, Truth], asked: Sequence[str]) -> dict[str, float]:
    """The shares that `similar_items` would find at best: some products have fewer than five of their kind."""
    types = Counter(true.product_type for true in truth.values())
    both = Counter((true.product_type, true.pattern) for true in truth.values())
    of = [truth[product] for product in asked]
    return {
        "same type": float(np.mean([min(types[one.product_type] - 1, TOP) / TOP for one in of])),
        "same type and pattern": float(
            np.mean([min(both[one.product_type, one.pattern] - 1, TOP) / TOP for one in of])
        ),
    }


def similar_items(index: Index, truth: Mapping[str, Truth], asked: Sequence[str]) -> dict[str, Estimate]:
    """The shares of the first five similar items of all types that are right in type, and in type and pattern."""
    options = Options(types=sorted({true.product_type for true in truth.values()}), limit=TOP)
    found = {product: [h.payload["product"] for h in questions.similar(index, product, options)] for product in asked}

    def share(is_right: Callable[[Truth, Truth], bool]) -> Estimate:
        return estimate([
            sum(is_right(truth[product], truth[other]) for other in others) / TOP for product, others in found.items()
        ])  # fmt: skip

    return {
        "same type": share(lambda one, other: one.product_type == other.product_type),
        "same type and pattern": share(
            lambda one, other: (one.product_type, one.pattern) == (other.product_type, other.pattern)
        ),
    }


def ablation(grounded: Index, whole: Index, queries: Sequence[evaluate.Query], vectors: np.ndarray) -> Report:
    """The measures of each step on the half of the queries that no shares were chosen on, and the shares."""
    with_photos = [shares for shares in evaluate.grid() if IMAGE in shares]
    with_text = evaluate.choose(grounded, queries, vectors, [one for one in with_photos if WORDS not in one])
    with_words = evaluate.choose(grounded, queries, vectors, with_photos)
    steps: dict[str, tuple[Index, evaluate.Shares]] = {
        "whole image": (whole, {IMAGE: 1.0}),
        "+ grounding": (grounded, {IMAGE: 1.0}),
        "+ enriched text": (grounded, with_text.shares),
        "+ words (fusion)": (grounded, with_words.shares),
    }
    _, held_out = evaluate.halves(len(queries))

    def measured(values: Mapping[str, Values]) -> dict[str, Estimate]:
        return {name: estimate(values[name][held_out]) for name in SHOWN}

    return {
        "queries": len(held_out),
        "steps": {
            name: measured(evaluate.measure_texts(index, queries, vectors, shares))
            for name, (index, shares) in steps.items()
        },
        "shares": {"+ enriched text": with_text.shares, "+ words (fusion)": with_words.shares},
        "gain_of_fusion": with_words.gain,
    }


def run(client: Client, folder: Path, products: int, scenes: int) -> Report:
    """Draw the catalogue, index it and measure."""
    catalogue = draw(folder, products, scenes)
    truth = truth_of(catalogue)
    queries = text_queries(truth)
    write_judgements(folder / "judgements.jsonl", truth, queries, 200)
    shop = Shop(FolderStore(folder / "index"), client)
    try:
        indexed = shop.upsert(without_attributes(catalogue))
        index = shop.served()
        index.optimize()
        _, vectors = shop.encode([query.text for query in queries])
        with TestClient(create_app(shop, client, Settings(seconds=300))) as http:
            answers = {"gateway and index": through_gateway(http, queries), "exact search": exact(index, vectors)}
        grades = [query.grades for query in queries]
        hits = {name: graded(found, grades, [TOP])[f"HITS@{TOP}"] for name, found in answers.items()}
        asked = sorted(truth)[:SIMILAR]
        with whole_images(folder / "whole", index, client) as whole:
            similar = {
                "whole image": similar_items(whole, truth, asked),
                "grounded": similar_items(index, truth, asked),
            }
            steps = ablation(index, whole, queries, vectors)
        return {
            "products": products,
            "scenes": scenes,
            "photos": dict(indexed.photos),
            "text": {"queries": len(queries), **{name: estimate(values) for name, values in hits.items()}},
            "similar": {"queries": len(asked), **similar, "possible": possible(truth, asked)},
            "ablation": steps,
        }
    finally:
        shop.close()


def table(report: Report) -> str:
    """The figures as tables in Markdown."""
    text, similar, steps = report["text"], report["similar"], report["ablation"]
    lines = [
        f"{report['products']:,} products in {report['scenes']:,} scenes; in brackets: 95 % bootstrap intervals.",
        "",
        f"| text → product, {text['queries']} queries | HITS@{TOP} |",
        "| --- | ---: |",
        *(f"| {name} | {text[name]} |" for name in ("gateway and index", "exact search")),
        "",
        f"| similar items, {similar['queries']} products | same type | same type and pattern |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {' | '.join(map(str, similar[name].values()))} |" for name in ("whole image", "grounded")),
        f"| at best | {' | '.join(f'{share:.3f}' for share in similar['possible'].values())} |",
        "",
        f"| what each part adds, {steps['queries']} queries | {' | '.join(SHOWN)} | shares |",
        f"| --- |{' ---: |' * len(SHOWN)} --- |",
    ]
    for name, measures in steps["steps"].items():
        shares = ", ".join(f"{using} {share:g}" for using, share in steps["shares"].get(name, {IMAGE: 1}).items())
        lines.append(f"| {name} | {' | '.join(str(measures[one]) for one in SHOWN)} | {shares} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("shop_figures", __doc__, figures=False)
    parser.add_argument("--products", type=int, default=2000, help="number of products (%(default)s)")
    parser.add_argument("--scenes", type=int, default=4000, help="number of photos (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="(build/shop-figures/PRODUCTS-SCENES)")
    args = parser.parse_args(arguments)
    if args.scenes < args.products:
        parser.error(f"--scenes: expected at least one for each of the {args.products} products, got {args.scenes}")
    folder = args.out or Path("build/shop-figures") / f"{args.products}-{args.scenes}"
    folder.mkdir(parents=True, exist_ok=True)
    with served(args.url) as url, Client(url, timeout=120, max_in_flight=1) as client:
        report = run(client, folder, args.products, args.scenes)
    plot.bars(report["ablation"]["steps"], folder / "ablation.png", "What each part adds")
    (folder / "figures.md").write_text(table(report))
    keep(report, folder / "figures.json")
    Console().print(table(report), markup=False, highlight=False, soft_wrap=True)
    print(f"{folder} has the figures as JSON, this table and a plot")


if __name__ == "__main__":
    main()
