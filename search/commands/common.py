"""What the commands share: options, the shop that they name, and how answers are printed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from search.conditions import filtered
from search.gateway.remote import Remote
from search.index import Hit
from search.ingest import LoadPhoto
from search.photos import load
from search.questions import Options
from search.shop import Shop
from search.store import FolderStore, Store
from vlclip import Client

console = Console(stderr=True)


class Add(Protocol):
    """Adds a command with its options ``parents``, and returns its parser. The epilog is shown as it is."""

    def __call__(
        self, name: str, run: Any, text: str, *parents: argparse.ArgumentParser, epilog: str | None = None
    ) -> argparse.ArgumentParser: ...


def common() -> argparse.ArgumentParser:
    """Options of every command."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(
        "--index", default=os.environ.get("VLCLIP_INDEX", "build/index"), metavar="FOLDER|URL",
        help="a folder, or the URL of a Qdrant cluster such as http://qdrant:6333 (VLCLIP_INDEX, or build/index)",
    )  # fmt: skip
    made.add_argument(
        "--url", default=os.environ.get("VLCLIP_URL", "localhost:8001"),
        help="gRPC address of the server of the models (VLCLIP_URL, or %(default)s)",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


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

        return ClusterStore(QdrantClient(where, api_key=os.environ.get("VLCLIP_INDEX_KEY"), check_compatibility=False))
    return FolderStore(Path(where))


def loader(hosts: Sequence[str]) -> LoadPhoto:
    """What loads photos: files, data URIs, and URLs of these hosts."""
    remote = Remote(hosts)

    def load_photo(photo: str | bytes) -> bytes:
        is_url = hosts and isinstance(photo, str) and photo.startswith(("http://", "https://"))
        return remote.fetch(str(photo)) if is_url else load(photo)

    return load_photo


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


def progress_bar(verb: str = "embedding", things: str = "products") -> Progress:
    """A bar of products or of other things, on standard error."""
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(things),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


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
