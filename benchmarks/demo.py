"""Search photos with and without grounding, and write a page that shows the difference.

    python -m benchmarks.demo                                  300 photos of the synthetic catalogue
    python -m benchmarks.demo --photos folder --type "mug"     your own photos, all of one product type

The page is build/demo/index.html. The photos and the crops that it shows lie in the same folder.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks.judge import TOP, hits, mrr, ranks
from benchmarks.photos import add_options, draw_each, find_photos
from benchmarks.target import parser_of, served
from training.catalogue.items import Item, draw_item
from vlclip import Client, ImageEmbeddings, Status

SEED = 2026
TEXTS, PHOTOS = 12, 8
"""Queries by text, and by photo."""


@dataclass(frozen=True)
class Entry:
    """A photo of the catalogue, and the item that it shows; ``item`` is None for a user's own photo."""

    path: Path
    product_type: str
    item: Item | None = None

    @property
    def label(self) -> str:
        return self.item.caption if self.item else self.path.name

    @property
    def text(self) -> str:
        return self.item.caption if self.item else self.product_type


@dataclass(frozen=True)
class Hit:
    """A photo that a query found, as a row of the catalogue; ``correct`` is None if the right answer is unknown."""

    row: int
    cosine: float
    correct: bool | None


@dataclass(frozen=True)
class Query:
    """A query and its nearest photos, with and without grounding; ``row`` is the photo of a query by photo."""

    title: str
    row: int | None
    grounded: list[Hit]
    whole: list[Hit]


@dataclass(frozen=True)
class Embeddings:
    """What the server returned for N photos and for the text of each."""

    found: ImageEmbeddings
    whole: np.ndarray  # [N, D]
    text: np.ndarray  # [N, D]


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - begin


def draw_catalogue(folder: Path, count: int) -> list[Entry]:
    """Draw scenes of ``count`` items as JPEG files. Each shows its item among others of the same catalogue."""
    rng = np.random.default_rng(SEED)
    entries = []
    for index, photo in enumerate(draw_each([draw_item(rng) for _ in range(count)], SEED)):
        path = folder / f"{index:04d}.jpg"
        path.write_bytes(photo.jpeg)
        entries.append(Entry(path, photo.items[0].product_type, photo.items[0]))
    return entries


def copy_photos(folder: Path, source: Path, product_type: str) -> list[Entry]:
    """Copy the user's photos, so that the page can show them. Raises SystemExit if there is none."""
    entries = []
    for index, (path, shown) in enumerate(find_photos(source, product_type)):
        copy = folder / f"{index:04d}-{path.name}"
        shutil.copyfile(path, copy)
        entries.append(Entry(copy, shown))
    return entries


def embed(client: Client, entries: Sequence[Entry], seconds: dict[str, float]) -> Embeddings:
    """Embed every photo with ``product_image`` and with ``whole_image``, and every text."""
    paths, types = [entry.path for entry in entries], [entry.product_type for entry in entries]
    with Console().status(f"embedding {len(entries)} photos"):
        with timed(seconds, "product_image"):
            found = client.embed_images(paths, types)
        with timed(seconds, "whole_image"):
            whole = client.embed_whole_images(paths)
        with timed(seconds, "product_text"):
            text = client.embed_texts([entry.text for entry in entries])
    return Embeddings(found, whole.embedding, text.embedding)


def ask(entries: Sequence[Entry], embeddings: Embeddings) -> tuple[list[Query], list[Query]]:
    """Queries by text and queries by photo; no two by text ask for the same product type."""
    order = np.random.default_rng(SEED).permutation(len(entries)).tolist()
    first: dict[str, int] = {}
    for row in order:
        first.setdefault(entries[row].product_type, row)
    by_text = list(first.values())
    by_photo = by_text[TEXTS:] if entries[0].item else order
    return (
        [search(entries, embeddings, row, by_text=True) for row in by_text[:TEXTS]],
        [search(entries, embeddings, row, by_text=False) for row in by_photo[:PHOTOS]],
    )


def search(entries: Sequence[Entry], embeddings: Embeddings, row: int, *, by_text: bool) -> Query:
    """Find the photos nearest to the text of a row, or the other photos nearest to its photo."""
    answers = []
    for images in (embeddings.found.embedding, embeddings.whole):
        cosine = images @ (embeddings.text[row] if by_text else images[row])
        if not by_text:
            cosine[row] = -np.inf
        nearest = [int(found) for found in np.argsort(-cosine)[:TOP] if np.isfinite(cosine[found])]
        answers.append([Hit(found, float(cosine[found]), correct(entries, row, found, by_text)) for found in nearest])
    return Query(entries[row].text, None, *answers) if by_text else Query(entries[row].label, row, *answers)


def correct(entries: Sequence[Entry], row: int, found: int, by_text: bool) -> bool | None:
    """A text must match in every attribute, a photo in its product type."""
    wanted, item = entries[row].item, entries[found].item
    if wanted is None or item is None:
        return None
    return wanted.caption == item.caption if by_text else wanted.product_type == item.product_type


def measure(embeddings: Embeddings) -> dict[str, float]:
    """HITS@5 and MRR of the texts, each of which should find its own photo."""
    figures: dict[str, float] = {}
    for name, images in (("grounded", embeddings.found.embedding), ("whole", embeddings.whole)):
        rank = ranks(embeddings.text, images)
        figures |= {f"hits5_{name}": hits(rank), f"mrr_{name}": mrr(rank)}
    return figures


def write_page(out: Path, entries: Sequence[Entry], found: ImageEmbeddings, **parts: Any) -> Path:
    """Write the page and its crops; ``parts`` are the other variables of the template."""
    (out / "crops").mkdir(exist_ok=True)
    photos = [photo_of(out, entry, found, row) for row, entry in enumerate(entries)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    index = out / "index.html"
    page = environment.get_template("demo.html.j2").render(photos=photos, Status=Status, top=TOP, **parts)
    index.write_text(page, encoding="utf-8")
    return index


def photo_of(out: Path, entry: Entry, found: ImageEmbeddings, row: int) -> dict[str, Any]:
    """A photo as the template shows it, with its box in per cent; writes its crop, if the photo could be decoded."""
    status, crop = Status(int(found.status[row])), f"crops/{row:04d}.jpg"
    x0, y0, x1, y1 = found.box_xyxy[row].tolist()
    width = height = 1
    if status <= Status.WHOLE_IMAGE:
        with Image.open(entry.path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        width, height = image.size
        part = image.crop((int(x0), int(y0), -int(-x1 // 1), -int(-y1 // 1)))
        part.thumbnail((160, 160))
        part.save(out / crop, quality=88)
    return {
        "file": f"photos/{entry.path.name}",
        "crop": crop,
        "label": entry.label,
        "score": float(found.score[row]),
        "status": status,
        "ratio": width / height,
        "box": [100 * x0 / width, 100 * y0 / height, 100 * (x1 - x0) / width, 100 * (y1 - y0) / height],
    }


def show(count: int, found: ImageEmbeddings, figures: dict[str, float], seconds: dict[str, float]) -> None:
    """Print the quality of the search and the time of each step."""
    console = Console()
    if figures:
        table = Table("", title=f"Search by text: {count} captions, {count} photos")
        for column in ("whole image", "grounded"):
            table.add_column(column, justify="right")
        for name, label in (("hits5", f"own photo in the first {TOP} results"), ("mrr", "mean reciprocal rank")):
            table.add_row(label, f"{figures[f'{name}_whole']:.3f}", f"[bold]{figures[f'{name}_grounded']:.3f}")
        console.print(table)
    table = Table("step", title="Time of each step")
    for column in ("seconds", "ms per photo"):
        table.add_column(column, justify="right")
    for step, took in seconds.items():
        table.add_row(step, f"{took:.1f}", "" if step == "start the server" else f"{1e3 * took / count:.1f}")
    console.print(table)
    statuses = Counter(Status(int(status)).name for status in found.status)
    console.print("Photos by status: " + ", ".join(f"{number} {name}" for name, number in statuses.items()))


def main() -> None:
    parser = parser_of("demo", __doc__, figures=False)
    add_options(parser)
    parser.add_argument("--count", type=int, default=300, help="number of scenes to draw (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder of the page (%(default)s)")
    args = parser.parse_args()
    if args.photos and not args.photos.is_dir():
        raise SystemExit(f"--photos: no such folder: {args.photos}")

    shutil.rmtree(args.out, ignore_errors=True)
    folder = args.out / "photos"
    folder.mkdir(parents=True)
    seconds: dict[str, float] = {}
    with timed(seconds, "copy the photos" if args.photos else "draw the photos"):
        entries = copy_photos(folder, args.photos, args.type) if args.photos else draw_catalogue(folder, args.count)
    begin = time.perf_counter()
    # One batch after the other, so that a slow machine does not refuse the next one.
    with served(args.url) as url, Client(url, timeout=120, max_in_flight=1) as client:
        seconds["start the server"] = time.perf_counter() - begin
        embeddings = embed(client, entries, seconds)
    by_text, by_photo = ask(entries, embeddings)
    figures = measure(embeddings) if entries[0].item else {}
    page = write_page(
        args.out, entries, embeddings.found, by_text=by_text, by_photo=by_photo, figures=figures, seconds=seconds
    )
    show(len(entries), embeddings.found, figures, seconds)
    Console().print(f"\nOpen the page: [bold]{page.resolve().as_uri()}", soft_wrap=True)


if __name__ == "__main__":
    main()
