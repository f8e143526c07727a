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
from rich.table import Table

from search.measures import TOP, estimate, hits, ranks, reciprocal
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
COLUMNS = (("hits5", f"HITS@{TOP}", "#2f6f9f"), ("mrr", "MRR", "#d98b3a"))


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


def measure(rank: np.ndarray) -> dict[str, float]:
    """HITS@5 and MRR of the ranks [N], each with the bounds of its 95 % bootstrap interval."""
    found: dict[str, float] = {}
    for name, values in (("hits5", hits(rank)), ("mrr", reciprocal(rank))):
        mean = estimate(values)
        found |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return found


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


def steps(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of each of ``STEPS``."""
    return {step: report["figures"][text][where] for step, (where, text) in STEPS.items()}


def is_ordered(report: dict[str, Any]) -> bool:
    """Whether each step is better than the one before it, in HITS@5 and in MRR."""
    found = list(steps(report).values())
    return all(before[name] < after[name] for before, after in pairwise(found) for name in ("hits5", "mrr"))


def show(report: dict[str, Any]) -> None:
    """Print the steps, the figures of all texts, and some enriched texts."""
    console = Console()
    title = f"among {report['scenes']} scenes, seed {report['seed']}"
    table = Table("", title=f"What each step adds, {title}", caption="in brackets: 95 % bootstrap intervals")
    for _, label, _ in COLUMNS:
        table.add_column(label, justify="right")
    for step, figures in steps(report).items():
        cells = (
            f"{figures[name]:.3f} \\[{figures[f'{name}_low']:.3f}, {figures[f'{name}_high']:.3f}]"
            for name, _, _ in COLUMNS
        )
        table.add_row(step, *cells)
    console.print(table)
    table = Table("text", title=f"All texts, {title}")
    places = [(where, name, label) for where in ("whole", "grounded") for name, label, _ in COLUMNS]
    for where, _, label in places:
        table.add_column(f"{label} {where}", justify="right")
    for text, found in sorted(report["figures"].items(), key=lambda row: row[1]["grounded"]["mrr"]):
        table.add_row(text, *(f"{found[where][name]:.3f}" for where, name, _ in places))
    console.print(table)
    console.print(f"Enriched texts by status: {report['statuses']}")
    for raw, text in report["examples"]:
        console.print(f"  {raw}\n    {text}", markup=False, highlight=False)
    order = "each step adds to the one before" if is_ordered(report) else "NOT reproduced"
    console.print(f"The order of the paper: {order}")


def plot(report: dict[str, Any], file: Path) -> None:
    """Draw the steps as bars with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    found = steps(report)
    where = np.arange(len(found))
    for shift, (name, label, colour) in zip((-0.2, 0.2), COLUMNS, strict=True):
        height = np.array([figures[name] for figures in found.values()])
        errors = np.abs([[figures[f"{name}_{end}"] for figures in found.values()] for end in ("low", "high")] - height)
        bars = axes.bar(where + shift, height, 0.38, label=label, color=colour, yerr=errors, capsize=4, ecolor="#444")
        axes.bar_label(bars, [f"{value:.3f}" for value in height], padding=3)
    axes.set_xticks(where, list(found))
    axes.set_ylim(0, 1.1)
    axes.set_title(f"Text to image retrieval among {report['scenes']} cluttered scenes (lines: 95 % bootstrap)")
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
