"""The commands of ``vlclip``. Each returns its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import vlclip
from vlclip import _wire
from vlclip._connection import TLS
from vlclip.cli.exits import NO_SERVER, NOT_DECODED, OK, UsageError, in_flags
from vlclip.cli.files import Content, checked_out, save
from vlclip.cli.journal import Journal
from vlclip.cli.photos import Photos, draw
from vlclip.cli.rows import ENRICHED_STATUSES, FAILED, IMAGE_STATUSES, Column, Feed, Item, Row, columns_of
from vlclip.cli.screen import Screen, print_list
from vlclip.cli.tables import Record, Table, needed, text_of
from vlclip.client import Client
from vlclip.errors import VlclipError
from vlclip.results import Result, TextEmbeddings, comparable

ENRICH_SECONDS = 600.0
"""The time-out of requests to an agent, which answers a batch when its slowest product is done."""


class Source(Protocol):
    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int | None: ...


def embed_image(arguments: argparse.Namespace) -> int:
    source = _photos(arguments)
    pipeline = _wire.WHOLE_IMAGE if arguments.whole else _wire.PRODUCT_IMAGE
    columns = columns_of(pipeline, similarity=arguments.query is not None)
    with _client(arguments) as client:
        query: TextEmbeddings | None = None if arguments.query is None else client.embed_texts(arguments.query)

        def ask(feed: Feed) -> Iterator[Result]:
            if arguments.whole:
                return client.stream.embed_whole_images(feed.column(_content))
            return client.stream.embed_images(*feed.columns(_content, _type))

        def compare(row: Row) -> None:
            nonlocal query
            if query is None or "embedding" not in row.values:
                return
            if not comparable(query.version, row.values["version"]):  # the server has changed its models
                query = client.embed_texts(arguments.query)
            if comparable(query.version, row.values["version"]):
                row.values["similarity"] = query.embedding[0] @ row.values["embedding"]

        return _run(arguments, client, source, ask, columns, compare)


def ground(arguments: argparse.Namespace) -> int:
    source = _photos(arguments)
    if arguments.draw and not isinstance(source, Photos):
        raise UsageError("--draw: expected photos as arguments, not --table")
    target = source.drawn_to(arguments.draw) if arguments.draw and isinstance(source, Photos) else None
    with _client(arguments) as client:

        def ask(feed: Feed) -> Iterator[Result]:
            return client.stream.ground(*feed.columns(_content, _type))

        def draw_box(row: Row) -> None:
            if target and row.item.file and not row.failed:
                draw(row, target(row.item.file))

        return _run(arguments, client, source, ask, columns_of(_wire.GROUND), draw_box)


def embed_text(arguments: argparse.Namespace) -> int:
    source = _texts(arguments)
    with _client(arguments) as client:

        def ask(feed: Feed) -> Iterator[Result]:
            return client.stream.embed_texts(feed.column(lambda item, _: item.text))

        return _run(arguments, client, source, ask, columns_of(_wire.PRODUCT_TEXT))


def enrich(arguments: argparse.Namespace) -> int:
    source = _products(arguments)
    with _client(arguments, timeout=arguments.timeout or ENRICH_SECONDS) as client:

        def ask(feed: Feed) -> Iterator[Result]:
            return client.stream.enrich(*feed.columns(lambda item, _: item.product, _content))

        return _run(arguments, client, source, ask, columns_of(_wire.ENRICHED_TEXT), names=ENRICHED_STATUSES)


def _run(
    arguments: argparse.Namespace,
    client: Client,
    source: Source,
    ask: Callable[[Feed], Iterator[Result]],
    columns: dict[str, Column],
    add: Callable[[Row], None] = lambda row: None,
    names: tuple[str, ...] = IMAGE_STATUSES,
) -> int:
    """Asks about each item, prints and saves its row, and says on stderr how many rows have each status."""
    out = checked_out(getattr(arguments, "out", None))
    statuses = Counter[str]()
    about = {"command": arguments.command, "columns": [*columns], "query": getattr(arguments, "query", None)}
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(out, about)) if out else None
        items = journal.resume(source, statuses) if journal else iter(source)
        if done := statuses.total():
            print(f"vlclip: continues after the first {done} {'row' if done == 1 else 'rows'}", file=sys.stderr)
        form = "json" if arguments.json else "problems" if out else "table"
        feed = Feed(items)
        with Screen(form, [*columns], source.count, done) as screen:
            for rows in feed.rows(ask(feed), names):
                for row in rows:
                    add(row)
                if journal:
                    journal.append(rows, columns)
                screen.write(rows)
                statuses.update(row.status or "" for row in rows)
        saved = _save(out, journal, columns, client, about) if out and journal else ""
    failed = sum(n for status, n in statuses.items() if status in FAILED)
    if failed or not arguments.json:
        counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in statuses.items() if status)
        drawn = f"drawn: {arguments.draw}" if getattr(arguments, "draw", None) else ""
        things = arguments.things if statuses.total() != 1 else arguments.things.removesuffix("s")
        summary = f"{statuses.total()} {things}" + (f": {counts}" if counts else "")
        print("; ".join(filter(None, (summary, saved, drawn))), file=sys.stderr)
    return NOT_DECODED if failed else OK


def _save(out: Path, journal: Journal, columns: dict[str, Column], client: Client, about: dict[str, Any]) -> str:
    """Writes the file of ``--out`` from its finished rows. Returns what it holds, in words."""
    dim, versions = 0, set[str]()
    for row in journal.rows():
        dim = dim or len(row.get("embedding", ()))
        versions |= {row["version"]} if "version" in row else set()
    if not dim and "embedding" in columns:
        dim = client.embed_texts([]).embedding.shape[1]
    made_by = {"client": vlclip.__version__, "command": about["command"], "versions": sorted(versions)}
    save(out, Content(journal.rows, columns, dim, journal.count, made_by))
    if len(versions) > 1:
        different = "Embeddings cannot be compared if the first eight digits differ: delete the file and run again"
        print(
            f"vlclip: the models changed during the run: {out} has rows of the versions {', '.join(sorted(versions))}. "
            + ("Their embeddings can be compared" if comparable(versions) else different),
            file=sys.stderr,
        )
    held = f"embeddings [{journal.count}, {dim}]" if dim else f"{journal.count} rows"
    # A .npy file has no column for it.
    return f"{out}: {held}" + (f", version {versions.pop()}" if out.suffix == ".npy" and len(versions) == 1 else "")


def _content(item: Item, content: bytes) -> bytes:
    return content


def _type(item: Item, content: bytes) -> str:
    return item.type or ""


def _photos(arguments: argparse.Namespace) -> Source:
    whole = getattr(arguments, "whole", False)
    if arguments.table is None:
        if not arguments.files:
            raise UsageError("expected photos, folders or patterns, or --table with a photo in each row")
        if arguments.type is None and not whole:
            what = ", or --whole for whole photos" if hasattr(arguments, "whole") else ""
            raise UsageError(f'--type: expected the product to find in each photo, such as "coffee mug"{what}')
        return Photos(arguments.files, arguments.type)
    if arguments.files:
        raise UsageError("expected photos as arguments or --table, got both")
    needs_type = not whole and arguments.type is None

    def to_item(record: Record) -> Item:
        path = needed(record, "path")
        kind = None if whole else needed(record, "type") if needs_type else text_of(record, "type") or arguments.type
        return Item(id=text_of(record, "id"), path=path, file=arguments.table.parent / path, type=kind).checked()

    return Table(arguments.table, ["path", "type"] if needs_type else ["path"], to_item)


def _texts(arguments: argparse.Namespace) -> Source:
    if arguments.table is None:
        if not arguments.texts:
            raise UsageError("expected texts, - for the lines of standard input, or --table with a text in each row")
        return Texts(arguments.texts)
    if arguments.texts:
        raise UsageError("expected texts as arguments or --table, got both")

    def to_item(record: Record) -> Item:
        return Item(id=text_of(record, "id"), text=needed(record, "text", "title")).checked()

    return Table(arguments.table, ["text|title"], to_item)


@dataclass
class Texts:
    """The texts of the arguments, and for "-" the lines of standard input."""

    arguments: Sequence[str]

    def __iter__(self) -> Iterator[Item]:
        for argument in self.arguments:
            if argument != "-":
                yield Item(text=argument).checked()
                continue
            with open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", closefd=False) as lines:
                for number, line in enumerate(lines, 1):
                    yield Item(where=f"stdin:{number}", text=line.rstrip("\r\n")).checked()

    def count(self) -> int | None:
        return None if "-" in self.arguments else len(self.arguments)


def _products(arguments: argparse.Namespace) -> Source:
    given = {"product_type": arguments.type, "title": arguments.title, "description": arguments.description}
    product = {name: value for name, value in given.items() if value}
    if arguments.table is None:
        if not product:
            raise UsageError("expected --title, --description or --type of a product, or --table with one in each row")
        return Single(_product(None, arguments.photo, Path(), product))
    if product or arguments.photo:
        raise UsageError("expected one product (--title, --description, --type, --photo) or --table, got both")

    def to_item(record: Record) -> Item:
        values = {name: value for name, value in record.items() if value not in (None, "")}
        number, path = text_of(values, "id"), text_of(values, "path")
        names = {name: name for name in values if name not in ("id", "path")} | {"type": "product_type"}
        product = {names[name]: value for name, value in values.items() if name in names}
        if not product:
            raise ValueError("expected a title, a description or another attribute, got none")
        return _product(number, path, arguments.table.parent, product)

    return Table(arguments.table, (), to_item)


def _product(number: str | None, path: str | None, folder: Path, product: dict[str, Any]) -> Item:
    kind = product.get("product_type")
    item = Item(id=number, path=path, type=kind if isinstance(kind, str) else None, product=product)
    return replace(item, file=folder / path if path else None).checked()


@dataclass
class Single:
    """One product."""

    item: Item

    def __iter__(self) -> Iterator[Item]:
        yield self.item

    def count(self) -> int:
        return 1


def health(arguments: argparse.Namespace) -> int:
    healths, problems = [], []
    seconds = arguments.timeout or 5.0
    for address in _addresses(arguments):
        with _client(arguments, address) as client:
            healths.append({"address": address, **asdict(client.health(timeout=seconds))})
            if not healths[-1]["live"]:
                try:
                    client.models(timeout=seconds)
                except VlclipError as error:  # which has the reason
                    problems.append(in_flags(error))
    state = {(False, False): "no answer", (True, False): "not ready", (True, True): "ready"}
    cells = [(one["address"], state[one["live"], one["ready"]], f"{one['server']} {one['version']}") for one in healths]
    print_list(arguments.json, healths, ("server", "state", "software"), cells)
    for problem in problems:
        print(f"vlclip: {problem}", file=sys.stderr)
    return OK if all(one["ready"] for one in healths) else NO_SERVER


def models(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        models = client.models(timeout=arguments.timeout or 5.0)
    cells = [
        (model.name, "ready", model.version, model.label, str(model.max_batch_size))
        if model.ready
        else (model.name, "not ready", "", "", "")
        for model in models
    ]
    print_list(
        arguments.json, [asdict(model) for model in models], ("pipeline", "state", "version", "models", "batch"), cells
    )
    return OK


def _addresses(arguments: argparse.Namespace) -> list[str]:
    return arguments.address or os.environ.get("VLCLIP_ADDRESS", "").split() or ["localhost:8001"]


def _client(arguments: argparse.Namespace, address: str | None = None, timeout: float | None = None) -> Client:
    """A client of ``address``, or of all addresses of the command line."""
    addresses = [address] if address else _addresses(arguments)
    tls = TLS(arguments.ca, arguments.cert, arguments.key, arguments.server_name)
    return Client(
        addresses[0] if len(addresses) == 1 else addresses,
        timeout=timeout or arguments.timeout,
        tls=arguments.tls if tls == TLS() else tls,
        headers=dict(map(_header, arguments.header)),
        max_in_flight=arguments.max_in_flight,
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not name or not colon:
        raise UsageError(f'--header: expected NAME:VALUE, got "{text}"')
    return name, value
