"""Changes and views of what is indexed: index, delete, attributes and dedup."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search import attributes, records
from search.commands.common import Add, console, loader, progress_bar, shop_of
from search.ingest import Report
from search.records import read
from search.store import RADIUS

VOCABULARY = (attributes.__doc__ or "").partition("show.")[2].strip()
CATALOGUE = (records.__doc__ or "").partition("row by row.")[2].strip()


def add(command: Add) -> None:
    """Add the commands."""
    made = command(
        "index", run_index, "Embed a catalogue and index it; what has not changed is skipped.", epilog=CATALOGUE
    )
    made.add_argument("catalogue", type=Path, help="a folder of photos, or a .jsonl, .csv or .parquet file")
    made.add_argument(
        "--delete-missing", action="store_true",
        help="delete the products of the index that the catalogue does not have, unless some of its rows are bad",
    )  # fmt: skip
    made.add_argument(
        "--duplicates-within", type=int, metavar="BITS",
        help="for a new index: photos whose perceptual hashes differ in at most so many of 64 bits are duplicates "
        f"({RADIUS})",
    )  # fmt: skip
    made.add_argument(
        "--photo-host", action="append", default=[], metavar="HOST", help="photos may come from URLs of this host"
    )
    made = command("delete", run_delete, "Delete products.")
    made.add_argument("products", nargs="+", help="ids of products")
    made = command(
        "attributes", run_attributes, "Guess attributes of products from their photos, to filter by.", epilog=VOCABULARY
    )
    made.add_argument(
        "values", type=Path, nargs="?", help="a .json or .yaml file; without it, what is guessed is listed"
    )
    made.add_argument(
        "--confidence", type=float, default=attributes.LEAST, metavar="P",
        help="a guess with less confidence is not stored (%(default)s)",
    )  # fmt: skip
    command("dedup", run_dedup, "List the photos that are copies of each other, and their products.")


def run_index(args: argparse.Namespace) -> int:
    """Embed a catalogue and index it."""
    rows = read(args.catalogue)
    with shop_of(args) as shop, progress_bar() as bar:
        task = bar.add_task("", total=count(args.catalogue))
        report = shop.upsert(
            rows,
            progress=lambda products: bar.advance(task, products),
            load_photo=loader(args.photo_host),
            radius=args.duplicates_within,
            delete_missing=args.delete_missing,
        )
        shop.served().optimize()
    if args.json:
        print(json.dumps({**asdict(report), "bad": [str(row) for row in report.bad]}))
    else:
        show_report(report)
        if args.delete_missing and report.bad_count:
            print("nothing was deleted, because a missing product may be one of the bad rows")
    return 3 if report.bad_count else 0


def show_report(report: Report) -> None:
    """Print what was indexed and what was not."""
    done = report.photos
    print(
        f"{report.products} products: {done['embedded']} photos embedded, "
        f"{done['shared']} shared with a duplicate, {done['unchanged']} unchanged, {done['unreadable']} unreadable"
    )
    if report.deleted:
        print(f"{report.deleted} products deleted, which the catalogue does not have")
    for row in report.bad[:20]:
        print(f"  {row}")
    if report.bad_count > 20:
        print(f"  … and {report.bad_count - 20} more bad rows; --json lists up to 1000")


def count(catalogue: Path) -> int | None:
    """The number of rows of a catalogue, where it is cheap to know."""
    if catalogue.is_dir() or catalogue.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
        return None
    with catalogue.open("rb") as file:
        return sum(1 for _ in file)


def run_delete(args: argparse.Namespace) -> int:
    """Delete products."""
    with shop_of(args) as shop:
        deleted = shop.delete(args.products)
    print(f"{deleted} of {len(args.products)} products deleted")
    return 0 if deleted == len(args.products) else 1


def run_attributes(args: argparse.Namespace) -> int:
    """Guess attributes of products, or list what is guessed."""
    with shop_of(args) as shop:
        if args.values is None:
            print(json.dumps([asdict(one) for one in shop.attributes()], indent=2))
            return 0
        outcomes = shop.guess(attributes.vocabulary_of(_read_values(args.values), args.confidence))
    if args.json:
        print(json.dumps([asdict(one) for one in outcomes]))
        return 0
    table = Table("type", "attribute", "products", "guessed", "known", "accuracy", "of guesses", "calibration error")
    for one in outcomes:
        counts = (str(one.products), str(one.guessed), str(one.labelled))
        shares = ("" if x is None else f"{x:.3f}" for x in (one.accuracy, one.guessed_accuracy, one.calibration_error))
        table.add_row(one.attribute.product_type, one.attribute.name, *counts, *shares)
    Console(width=max(Console().width, 120)).print(table)
    for one in outcomes:
        if not one.attribute.labelled:
            console.print(
                f"{one.attribute.product_type}: {one.attribute.name}: the confidence is not calibrated, because "
                f"{one.labelled} products have a known value; it takes {attributes.LABELLED}", highlight=False,
            )  # fmt: skip
    return 0


def _read_values(path: Path) -> Any:
    """The content of a .json or .yaml file, of which JSON is a part. Raises ValueError."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither JSON nor YAML ({error})") from None


def run_dedup(args: argparse.Namespace) -> int:
    """List the photos that are copies of each other, and their products."""
    with shop_of(args) as shop:
        found = shop.duplicates(limit=shop.served().count() + 1)
    if args.json:
        print(json.dumps([asdict(one) for one in found]))
        return 0
    table = Table("products", "photos", "")
    for one in found:
        photos = "  ".join(path or f"{product}, photo {number + 1}" for product, number, path in one.photos)
        table.add_row("  ".join(one.products), photos, "same file" if one.exact else "similar files")
    Console().print(table)
    several = sum(len(one.products) > 1 for one in found)
    print(f"{len(found)} photos exist more than once, {several} of them in several products")
    return 0
