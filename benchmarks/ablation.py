"""Measure what each part of the paper adds to retrieval: `python -m benchmarks.retrieval --ablation`.

The queries are a shop's texts of the products: the noisy title and description, as they are and as ``enriched_text``
rewrites them. They search the scenes as whole images and as grounded products. The clean caption, which no shop has,
is the upper bound. The other texts know colour and pattern only from the shop's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.measures import TOP, Estimate, estimate, hits, ranks, reciprocal
from search.plot import bars
from training.catalogue.items import Item
from training.catalogue.scenes import Photo
from vlclip import Client

RAW, ENRICHED = "title, description", "enriched"
STEPS = {
    "whole image, raw text": ("whole", RAW),
    "+ grounding": ("grounded", RAW),
    "+ enriched text": ("grounded", ENRICHED),
}
"""The steps of the paper's ablation: which images are searched, with which text."""
COLUMNS = (f"HITS@{TOP}", "MRR")


def products(items: Sequence[Item]) -> list[dict[str, str]]:
    """The metadata to enrich: the raw text, and the product type, which grounding has too."""
    return [{"product_type": item.product_type, "title": item.title, "description": item.description} for item in items]


def raw_texts(items: Sequence[Item]) -> dict[str, list[str]]:
    """The texts that need no server."""
    return {
        "title": [item.title for item in items],
        RAW: [f"{item.title}. {item.description}" for item in items],
        "type, title": [f"{item.product_type} {item.title}" for item in items],
        "caption": [item.caption for item in items],
    }


def measure(rank: np.ndarray) -> dict[str, Estimate]:
    """HITS@5 and MRR of the ranks [N]."""
    return dict(zip(COLUMNS, (estimate(hits(rank)), estimate(reciprocal(rank))), strict=True))


def run(client: Client, photos: Sequence[Photo]) -> dict[str, Any]:
    """The figures of every text, among whole images and among grounded products."""
    items, files = [photo.items[0] for photo in photos], [photo.jpeg for photo in photos]
    images = {
        "whole": client.embed_whole_images(files).embedding,
        "grounded": client.embed_images(files, [item.product_type for item in items]).embedding,
    }
    enriched = client.enrich(products(items))
    texts = {name: client.embed_texts(texts).embedding for name, texts in raw_texts(items).items()}
    texts[ENRICHED] = enriched.embedding
    return {
        "statuses": {str(status): int((enriched.status == status).sum()) for status in np.unique(enriched.status)},
        "examples": [[item.title, str(text)] for item, text in zip(items[:3], enriched.text, strict=False)],
        "figures": {
            name: {where: measure(ranks(embedding, among)) for where, among in images.items()}
            for name, embedding in texts.items()
        },
    }


def steps(report: dict[str, Any]) -> dict[str, dict[str, Estimate]]:
    """The figures of each of ``STEPS``."""
    return {step: report["figures"][text][where] for step, (where, text) in STEPS.items()}


def is_ordered(report: dict[str, Any]) -> bool:
    """Whether each step is better than the one before it, in HITS@5 and in MRR."""
    found = list(steps(report).values())
    return all(before[name].value < after[name].value for before, after in pairwise(found) for name in COLUMNS)


def show(report: dict[str, Any]) -> None:
    """Print the steps, the figures of all texts, and some enriched texts."""
    console = Console()
    title = f"among {report['scenes']} scenes, seed {report['seed']}"
    table = Table("", title=f"What each step adds, {title}", caption="in brackets: 95 % bootstrap intervals")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for step, figures in steps(report).items():
        table.add_row(step, *(escape(str(figures[name])) for name in COLUMNS))
    console.print(table)
    table = Table("text", title=f"All texts, {title}")
    places = [(where, name) for where in ("whole", "grounded") for name in COLUMNS]
    for where, name in places:
        table.add_column(f"{name} {where}", justify="right")
    for text, found in sorted(report["figures"].items(), key=lambda row: row[1]["grounded"]["MRR"].value):
        table.add_row(text, *(f"{found[where][name].value:.3f}" for where, name in places))
    console.print(table)
    console.print(f"Enriched texts by status: {report['statuses']}")
    for raw, text in report["examples"]:
        console.print(f"  {raw}\n    {text}", markup=False, highlight=False)
    order = "each step adds to the one before" if is_ordered(report) else "NOT reproduced"
    console.print(f"The order of the paper: {order}")


def plot(report: dict[str, Any], file: Path) -> None:
    """Draw the steps as bars with their intervals."""
    bars(steps(report), file, f"Text to image retrieval among {report['scenes']} cluttered scenes")
