"""What enriching a text buys: find products by what their shop wrote, and by what `enriched_text` makes of it.

    python -m benchmarks.texts --scenes 500 --seed 2468 --json out.json

The scenes are those of `benchmarks.retrieval`; here the queries are the noisy title and description that the catalogue
draws for each item, raw and enriched, searched among whole images and among grounded products. No text but the caption,
which nobody has in a shop and which is the ceiling, is told colour or pattern other than in the shop's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval import draw_scenes, ranks
from benchmarks.target import keep, parser_of, served
from training.catalogue.items import TRAINED_TYPES, Item
from vlclip import Client

TOP = 5
ENRICHED = "enriched"


def products(items: Sequence[Item]) -> list[dict[str, str]]:
    """What a shop has of each: no more than the text that it is compared with, and the type that grounding has too."""
    return [{"product_type": item.product_type, "title": item.title, "description": item.description} for item in items]


def raw_texts(items: Sequence[Item]) -> dict[str, list[str]]:
    """The rows of the table that need no server."""
    return {
        "title": [item.title for item in items],
        "title, description": [f"{item.title}. {item.description}" for item in items],
        "type, title": [f"{item.product_type} {item.title}" for item in items],
        "caption": [item.caption for item in items],
    }


def measure(text: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """HITS@5 and the mean reciprocal rank of N texts [N, D] among N images [N, D]."""
    rank = ranks(text, images)
    return {"hits5": float((rank <= TOP).mean()), "mrr": float((1 / rank).mean())}


def run(client: Client, scenes: int, seed: int) -> dict[str, Any]:
    """The figures of every text, among whole images and among grounded products."""
    photos = draw_scenes(scenes, seed, TRAINED_TYPES)
    items, files = [photo.items[0] for photo in photos], [photo.jpeg for photo in photos]
    images = {
        "whole": client.embed_whole_images(files).embedding,
        "grounded": client.embed_images(files, [item.product_type for item in items]).embedding,
    }
    enriched = client.enrich(products(items))
    texts = {name: client.embed_texts(texts).embedding for name, texts in raw_texts(items).items()}
    texts[ENRICHED] = enriched.embedding
    return {
        "scenes": scenes,
        "seed": seed,
        "statuses": {str(status): int((enriched.status == status).sum()) for status in np.unique(enriched.status)},
        "examples": [[item.title, str(text)] for item, text in zip(items[:3], enriched.text, strict=False)],
        "figures": {
            name: {where: measure(embedding, among) for where, among in images.items()}
            for name, embedding in texts.items()
        },
    }


def show(report: dict[str, Any]) -> None:
    """Print the figures as a table, and how some texts came out."""
    table = Table(title=f"Text to image retrieval among {report['scenes']} scenes, seed {report['seed']}")
    for column in ("text", "HITS@5 whole", "MRR whole", "HITS@5 grounded", "MRR grounded"):
        table.add_column(column, justify="left" if column == "text" else "right")
    for name, figures in sorted(report["figures"].items(), key=lambda row: row[1]["grounded"]["mrr"]):
        table.add_row(
            name, *(f"{figures[where][key]:.3f}" for where in ("whole", "grounded") for key in figures[where])
        )
    console = Console()
    console.print(table)
    console.print(f"status of the enriched texts: {report['statuses']}")
    for title, text in report["examples"]:
        console.print(f"  {title}\n    {text}", markup=False, highlight=False)


def main() -> None:
    parser = parser_of("texts", __doc__)
    parser.add_argument("--scenes", type=int, default=500, help="scenes to search (%(default)s)")
    parser.add_argument("--seed", type=int, default=2468, help="of the catalogue (%(default)s; 1 is the training's)")
    args = parser.parse_args()
    with served(args.url) as url, Client(url, timeout=120) as client:
        report = run(client, args.scenes, args.seed)
    show(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
