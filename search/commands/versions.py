"""Versions of the models: versions, reindex and rollback."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from search.commands.catalogue import count
from search.commands.common import Add, console, loader, progress_bar, shop_of, store_of
from search.evaluate import read_judgements
from search.records import read
from search.store import rollback
from vlclip import Client


def add(command: Add) -> None:
    """Add the commands."""
    command("versions", run_versions, "List the collections, one for each version of the models.")
    made = command("reindex", run_reindex, "Embed the catalogue with other models, and serve the result if it is good.")
    made.add_argument("--next", metavar="ADDRESS", help="gRPC address of the server of the new models (default: --url)")
    made.add_argument("--catalogue", type=Path, help="the products (default: those of the served collection)")
    made.add_argument(
        "--photo-host", action="append", default=[], metavar="HOST", help="photos may come from URLs of this host"
    )
    made.add_argument(
        "--queries", type=Path, metavar="FILE",
        help="judgements as for evaluate, whose texts must find their products (default: the products' own texts)",
    )  # fmt: skip
    command("rollback", run_rollback, "Serve the collection that was served before.")


def run_versions(args: argparse.Namespace) -> int:
    """List the collections."""
    with shop_of(args) as shop:
        found = shop.versions()
    if args.json:
        print(json.dumps(found))
        return 0
    table = Table("collection", "", "models", "version", "created")
    for one in found["collections"]:
        role = {found["served"]: "served", found["previous"]: "previous"}.get(one["name"], "")
        table.add_row(one["name"], role, one["label"], one["version"], one["created"])
    Console(width=max(Console().width, 120)).print(table)
    return 0


def run_reindex(args: argparse.Namespace) -> int:
    """Build the next collection, and serve it if it passes the gates."""
    with shop_of(args) as shop, Client(args.next or args.url) as client, progress_bar() as bar:
        task = bar.add_task("", total=count(args.catalogue) if args.catalogue else None)
        rows = read(args.catalogue) if args.catalogue else None
        built = shop.reindex(
            client,
            rows=rows,
            queries=_queries(args.queries),
            load_photo=loader(args.photo_host),
            progress=lambda products: bar.advance(task, products),
        )
    if args.json:
        print(json.dumps({**asdict(built.collection), "served": built.served, "next": built.following,
                          "failures": built.failures}))  # fmt: skip
    else:
        table = Table("", "served", built.collection.label)
        for name, value in built.served.items():
            table.add_row(name, f"{value:g}", f"{built.following.get(name, float('nan')):g}")
        Console().print(table)
    for sentence in built.failures:
        console.print(f"not served: {sentence}", style="red", highlight=False)
    return 1 if built.failures else 0


def run_rollback(args: argparse.Namespace) -> int:
    """Serve the collection that was served before."""
    served = rollback(store_of(args.index))
    print(f"{served.name} is served again ({served.label})")
    return 0


def _queries(path: Path | None) -> list[tuple[str, str]]:
    """The texts of a file of judgements, each with the product of the highest grade."""
    if path is None:
        return []
    queries, bad = read_judgements(path)
    for row in bad[:20]:
        console.print(str(row), highlight=False, markup=False)
    return [
        (one.text, max(one.grades, key=lambda product: one.grades[product])) for one in queries if one.kind == "text"
    ]
