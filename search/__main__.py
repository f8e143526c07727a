"""From a folder of photos to search, similar items and recommendations.

    python -m search index products.jsonl          embed a catalogue and index it
    python -m search query "a red striped mug"      products for a text
    python -m search query --photo mug.jpg          products for a photo
    python -m search similar p17                    products that look like a product
    python -m search recommend p17 p4 --not p9      products for a person
    python -m search serve                          the HTTP gateway and its page

The index is a folder (Qdrant Edge), or the URL of a Qdrant cluster. Only one process can open a folder: while `serve`
runs, ask the gateway instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from search import attributes, records
from search.conditions import filtered
from search.index import Hit, IndexFault
from search.photos import PhotoError, load
from search.questions import Options, UnknownProduct, recent
from search.records import CatalogueError, read
from search.shop import NoPhoto, Shop
from search.store import FolderStore, Store, rollback
from vlclip import Client, VlclipError

console = Console(stderr=True)
VOCABULARY = (attributes.__doc__ or "").partition("show.")[2].strip()
CATALOGUE = (records.__doc__ or "").partition("row by row.")[2].strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a failure, or 3 if some rows of a catalogue were bad."""
    args = parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except (IndexFault, CatalogueError, UnknownProduct, NoPhoto, PhotoError, VlclipError, ValueError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; what was written stays, and the same command continues")
        return 130


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    shown = argparse.RawDescriptionHelpFormatter
    main_parser = argparse.ArgumentParser(prog="python -m search", description=__doc__, formatter_class=shown)
    commands = main_parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--index", default=os.environ.get("VLCLIP_INDEX", "build/index"), metavar="FOLDER|URL",
        help="a folder, or the URL of a Qdrant cluster such as http://qdrant:6333 (VLCLIP_INDEX, or build/index)",
    )  # fmt: skip
    common.add_argument(
        "--url", default=os.environ.get("VLCLIP_URL", "localhost:8001"),
        help="gRPC address of the server of the models (VLCLIP_URL, or %(default)s)",
    )  # fmt: skip
    common.add_argument("--json", action="store_true", help="print JSON")

    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--type", action="append", metavar="TYPE", help="only this product type; can be repeated")
    asked.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE",
        help="only products with this attribute: colour=red, price>=5, price<20, guessed.colour=red; can be repeated",
    )  # fmt: skip
    asked.add_argument("--limit", type=int, default=10, help="number of products (%(default)s)")
    asked.add_argument("--offset", type=int, default=0, help="number of products to skip (%(default)s)")
    asked.add_argument(
        "--diversity", type=float, default=0.0, help="0: the most similar; 1: the most varied (%(default)s)"
    )

    def command(name: str, run: Any, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common, *parents], help=text, description=text)
        made.set_defaults(run=run)
        return made

    made = command("index", run_index, "Embed a catalogue and index it; what has not changed is skipped.")
    made.formatter_class = shown
    made.epilog = CATALOGUE
    made.add_argument("catalogue", type=Path, help="a folder of photos, or a .jsonl, .csv or .parquet file")
    made = command("query", run_query, "Find products for a text or a photo.", asked)
    made.add_argument("text", nargs="?", help="what to look for, such as 'a red striped mug'")
    made.add_argument("--photo", metavar="FILE", help="a photo instead of a text")
    made.add_argument("--photo-type", metavar="TYPE", help="what to look for in the photo; found if missing")
    made = command("similar", run_similar, "Find products that look like a product.", asked)
    made.add_argument("product", help="the id of a product")
    made.add_argument("--widen", action="store_true", help="products of other types that go with it")
    made.add_argument("--duplicates", action="store_true", help="also products that show the same photo")
    made = command("recommend", run_recommend, "Find products for a person.", asked)
    made.add_argument("liked", nargs="+", help="ids of products that the person looked at, latest first")
    made.add_argument("--not", dest="disliked", action="append", default=[], metavar="PRODUCT", help="a disliked one")
    made = command("dedup", run_dedup, "List the products that show the same photo.")
    made = command("delete", run_delete, "Delete products.")
    made.add_argument("products", nargs="+", help="ids of products")
    made = command("attributes", run_attributes, "Guess attributes of products from their photos, to filter by.")
    made.formatter_class = shown
    made.epilog = VOCABULARY
    made.add_argument(
        "values", type=Path, nargs="?", help="a .json or .yaml file; without it, what is guessed is listed"
    )
    made.add_argument(
        "--confidence", type=float, default=attributes.LEAST, metavar="P",
        help="a guess with less confidence is not stored (%(default)s)",
    )  # fmt: skip
    command("versions", run_versions, "List the collections, one for each version of the models.")
    made = command("reindex", run_reindex, "Embed the catalogue with other models, and serve the result if it is good.")
    made.add_argument("--next", metavar="ADDRESS", help="gRPC address of the server of the new models (default: --url)")
    made.add_argument("--catalogue", type=Path, help="the products (default: those of the served collection)")
    command("rollback", run_rollback, "Serve the collection that was served before.")
    made = command("serve", run_serve, "Start the HTTP gateway and its page.")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    made.add_argument("--port", type=int, default=8080, help="port to listen on (%(default)s)")
    made.add_argument(
        "--photo-host", action="append", default=[], metavar="HOST", help="photos may come from URLs of this host"
    )
    made.add_argument("--origin", action="append", default=[], help="allow pages of this origin (CORS)")
    return main_parser


@contextmanager
def shop_of(args: argparse.Namespace) -> Iterator[Shop]:
    """The shop that the options name."""
    with Client(args.url) as client:
        shop = Shop(store_of(args.index), client)
        try:
            yield shop
        finally:
            shop.close()


def store_of(where: str) -> Store:
    """The store in a folder, or in a cluster by URL. VLCLIP_INDEX_KEY is the cluster's API key."""
    if where.startswith(("http://", "https://")):
        from qdrant_client import QdrantClient

        from search.cluster import ClusterStore

        return ClusterStore(QdrantClient(where, api_key=os.environ.get("VLCLIP_INDEX_KEY")))
    return FolderStore(Path(where))


def options_of(args: argparse.Namespace) -> Options:
    """The options of a question."""
    where: dict[str, Any] = {}
    for text in args.where:
        name, value = condition(text)
        key = filtered(name)
        where[key] = {**where[key], **value} if isinstance(value, dict) and isinstance(where.get(key), dict) else value
    return Options(args.type, where, args.limit, args.offset, args.diversity)


def condition(text: str) -> tuple[str, Any]:
    """The attribute and the condition of ``colour=red``, ``price>=5`` and so on."""
    for sign, bound in ((">=", "gte"), ("<=", "lte"), (">", "gt"), ("<", "lt"), ("=", "")):
        name, found, value = text.partition(sign)
        if found and name:
            if bound:
                return name, {bound: float(value)}
            return name, {"true": True, "false": False}.get(value, value)
    raise ValueError(f"--where {text}: expected NAME=VALUE, NAME>=NUMBER, NAME<=NUMBER, NAME>NUMBER or NAME<NUMBER")


def run_index(args: argparse.Namespace) -> int:
    """Embed a catalogue and index it."""
    rows = read(args.catalogue)
    with shop_of(args) as shop, progress_bar() as bar:
        task = bar.add_task("", total=_count(args.catalogue))
        report = shop.upsert(rows, progress=lambda products: bar.advance(task, products))
        shop.served().optimize()
    if args.json:
        print(json.dumps({**asdict(report), "bad": [str(row) for row in report.bad]}))
    else:
        done = report.photos
        print(
            f"{report.products} products: {done['embedded']} photos embedded, "
            f"{done['shared']} shared with a duplicate, {done['unchanged']} unchanged, {done['unreadable']} unreadable"
        )
        for row in report.bad[:20]:
            print(f"  {row}")
        if report.bad_count > 20:
            print(f"  … and {report.bad_count - 20} more bad rows; --json lists up to 1000")
    return 3 if report.bad_count else 0


def progress_bar() -> Progress:
    """A bar of products, on standard error."""
    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("products"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _count(catalogue: Path) -> int | None:
    """The number of rows of a catalogue, where it is cheap to know."""
    if catalogue.is_dir() or catalogue.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
        return None
    with catalogue.open("rb") as file:
        return sum(1 for _ in file)


def run_query(args: argparse.Namespace) -> int:
    """Find products for a text or a photo."""
    if (args.text is None) == (args.photo is None):
        raise ValueError("expected a text or --photo FILE, as in: python -m search query 'a red striped mug'")
    with shop_of(args) as shop:
        if args.text is not None:
            show(args, shop.by_text(args.text, options_of(args)))
            return 0
        answer = shop.by_photo(load(args.photo), args.photo_type, options_of(args))
        where = "in the box " + ", ".join(f"{x:.0f}" for x in answer.box_xyxy) if answer.grounded else "as a whole"
        what = answer.product_type or "any product, because no product type of the index was found in it"
        console.print(f"the photo was searched {where} for {what}", highlight=False)
        show(args, answer.hits)
    return 0


def run_similar(args: argparse.Namespace) -> int:
    """Find products that look like a product."""
    with shop_of(args) as shop:
        show(args, shop.similar(args.product, options_of(args), widen=args.widen, duplicates=args.duplicates))
    return 0


def run_recommend(args: argparse.Namespace) -> int:
    """Find products for a person."""
    with shop_of(args) as shop:
        show(args, shop.recommend(recent(args.liked), options_of(args), disliked=args.disliked))
    return 0


def show(args: argparse.Namespace, hits: list[Hit]) -> None:
    """Print products as a table or as JSON."""
    if args.json:
        print(json.dumps([{"id": hit.id, "score": hit.score, **hit.payload} for hit in hits]))
        return
    if not hits:
        print("No other products match. Remove --type or --where.")
        return
    table = Table("product", "score", "type", "title", "photo")
    for hit in hits:
        payload = hit.payload
        title = payload["title"] or payload["text"]
        table.add_row(payload["product"], f"{hit.score:.3f}", payload["product_type"], title, payload["photo"])
    Console().print(table)


def run_dedup(args: argparse.Namespace) -> int:
    """List the products that show the same photo."""
    groups: dict[str, set[str]] = {}
    with shop_of(args) as shop:
        for point in shop.served().points({}):
            groups.setdefault(point.payload["duplicate"], set()).add(point.payload["product"])
    found = [sorted(products) for products in groups.values() if len(products) > 1]
    if args.json:
        print(json.dumps(found))
    else:
        for products in found:
            print("  ".join(products))
        print(f"{len(found)} groups of products show the same photo")
    return 0


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
        task = bar.add_task("", total=_count(args.catalogue) if args.catalogue else None)
        rows = read(args.catalogue) if args.catalogue else None
        built = shop.reindex(client, rows=rows, progress=lambda products: bar.advance(task, products))
    if args.json:
        print(json.dumps({**asdict(built.collection), "served": built.served, "next": built.following,
                          "failures": built.failures}))  # fmt: skip
    else:
        table = Table("", "served", built.collection.label)
        for name, value in built.served.items():
            table.add_row(name, f"{value:g}", f"{built.following[name]:g}")
        Console().print(table)
    for sentence in built.failures:
        console.print(f"not served: {sentence}", style="red", highlight=False)
    return 1 if built.failures else 0


def run_rollback(args: argparse.Namespace) -> int:
    """Serve the collection that was served before."""
    served = rollback(store_of(args.index))
    print(f"{served.name} is served again ({served.label})")
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """Start the gateway."""
    import uvicorn

    from search.gateway.app import Settings, create_app

    keys = frozenset(key for key in os.environ.get("VLCLIP_API_KEYS", "").split(",") if key)
    if not keys and args.host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"--host {args.host} is open to others: set VLCLIP_API_KEYS=key1,key2 first")
    settings = Settings(keys, frozenset(args.photo_host), tuple(args.origin))
    with Client(args.url) as client:
        shop = Shop(store_of(args.index), client)
        try:
            console.print(f"http://{args.host}:{args.port} is the shop; /docs describes the API")
            uvicorn.run(create_app(shop, client, settings), host=args.host, port=args.port, log_level="warning")
        finally:
            shop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
