"""Magento's sample catalogue as a catalogue for `make shop`: clothes and sports gear, whose variants share photos.

    git clone --depth 1 https://github.com/magento/magento2-sample-data build/magento2-sample-data
    python examples/magento.py build/magento2-sample-data build/magento
    make shop CATALOGUE=build/magento/products.jsonl

The folder gets products.jsonl, the photos, and related.csv with Magento's related products as judgements. The sample
data has its own licence; do not add it to another repository.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = "app/code/Magento"
CLOTHES = f"{MODULES}/ConfigurableSampleData/fixtures/products.csv"
GEAR = f"{MODULES}/CatalogSampleData/fixtures/SimpleProduct"
RELATED = [
    f"{MODULES}/{module}/fixtures/Links/related.csv" for module in ("CatalogSampleData", "ConfigurableSampleData")
]
PHOTOS = "pub/media/catalog/product"
TYPES = {
    "Hoodies & Sweatshirts": "hoodie", "Jackets": "jacket", "Tees": "t-shirt", "Tanks": "tank top",
    "Bras & Tanks": "sports top", "Pants": "pants", "Shorts": "shorts",
}  # fmt: skip


def main(repository: str, folder: str) -> None:
    """Write products.jsonl, related.csv and the photos."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(git(repository, "archive", "HEAD", PHOTOS))) as archive:
        archive.extractall(out, filter="data")
    rows = [*clothes(repository), *gear(repository)]
    for row in rows:
        row["photos"] = [f"{PHOTOS}{photo}" for photo in row["photos"] if (out / f"{PHOTOS}{photo}").exists()]
    rows = [row for row in rows if row["photos"]]
    (out / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first: dict[str, str] = {}  # a piece of clothing is related as a whole; its first variant stands for it
    for row in rows:
        first.setdefault(row["id"], row["id"])
        first.setdefault(row["id"].rsplit("-", 2)[0], row["id"])
    related = [pair for path in RELATED for pair in pairs(table(repository, path), first)]
    with (out / "related.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query", "product", "grade"), *((*pair, 1) for pair in related)])
    print(f"{len(rows)} products and {len(related)} related ones in {out}")


def clothes(repository: str) -> Iterator[dict[str, Any]]:
    """A product for each size and colour."""
    for row in table(repository, CLOTHES):
        kind = next((TYPES[part] for part in reversed(re.split("[/,]", row["categories"])) if part in TYPES), "")
        if row["product_type"] != "simple" or not kind:
            continue
        given = dict(pair.partition("=")[::2] for pair in row["additional_attributes"].split(","))
        photos = [row["base_image"], *row["additional_images"].split(",")]
        yield {
            "id": row["sku"], "product_type": kind, "title": row["name"], "description": words(row["description"]),
            "photos": list(dict.fromkeys(photo for photo in photos if photo)), "price": float(row["price"]),
            "for": "men" if "/Men/" in row["categories"] else "women", "size": given.get("size", ""),
            "colour": given.get("color", ""), "in_stock": row["is_in_stock"] == "1",
        }  # fmt: skip


def gear(repository: str) -> Iterator[dict[str, Any]]:
    """Bags, watches and fitness equipment."""
    for name, kind in (("bags", "bag"), ("watches", "watch"), ("fitness_equipment", "fitness equipment")):
        photos: dict[str, list[str]] = {}
        for row in table(repository, f"{GEAR}/images_gear_{name}.csv"):
            photos.setdefault(row["sku"], []).append(row["image"])
        for row in table(repository, f"{GEAR}/products_gear_{name}.csv"):
            yield {
                "id": row["sku"], "product_type": kind, "title": row["name"], "description": words(row["description"]),
                "photos": photos.get(row["sku"], []), "price": float(row["price"]),
                "material": lines(row.get("material", "")), "activity": lines(row.get("activity", "")),
                "in_stock": float(row["qty"] or 0) > 0,
            }  # fmt: skip


def pairs(rows: list[dict[str, str]], known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Products and what is related to them."""
    for row in rows:
        for other in row["linked_sku"].split("\n"):
            if row["sku"] in known and other in known:
                yield f"product:{known[row['sku']]}", known[other]


def lines(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line for line in text.split("\n") if line]


def words(text: str) -> str:
    """The text of HTML."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def table(repository: str, path: str) -> list[dict[str, str]]:
    """A CSV file of the repository."""
    return list(csv.DictReader(io.StringIO(git(repository, "show", f"HEAD:{path}").decode())))


def git(repository: str, *arguments: str) -> bytes:
    """What a git command prints."""
    return subprocess.run(["git", "-C", repository, *arguments], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
