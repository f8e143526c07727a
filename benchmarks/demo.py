"""Show what grounding buys: embed photos through the served pipelines, search them, and write a page to look at.

    python -m benchmarks.demo                                  300 photos of the synthetic catalogue
    python -m benchmarks.demo --photos folder --type "mug"     your own photos, all asked for one product type

Writes build/demo/index.html, the photos and their crops beside it.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.judge import TOP, hits, mrr, ranks
from benchmarks.photos import draw_each, find_photos
from benchmarks.target import parser_of, served
from training.catalogue.items import Item, draw_item
from vlclip import Client, ImageEmbeddings, Status

CATALOGUE_SEED = 2026


@dataclass(frozen=True)
class Entry:
    """A photo file and what it was taken of; ``item`` is None for a user's own photo."""

    path: Path
    product_type: str
    item: Item | None = None

    @property
    def label(self) -> str:
        return self.item.caption if self.item else self.path.name


@dataclass
class Timings:
    """Seconds of each step, in order."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.steps[name] = time.perf_counter() - start


@dataclass(frozen=True)
class Hit:
    """A found photo: its row, how similar, and whether it shows what was asked for (None where nobody knows)."""

    row: int
    cosine: float
    right: bool | None


@dataclass(frozen=True)
class Query:
    """A question and its answers, with and without grounding; ``row`` is the photo that asks, None for a text."""

    title: str
    row: int | None
    grounded: list[Hit]
    whole: list[Hit]


def draw_catalogue(folder: Path, count: int) -> list[Entry]:
    """Draw scenes of ``count`` items as JPEG files. Each shows its item among others of the same catalogue."""
    rng = np.random.default_rng(CATALOGUE_SEED)
    items = [draw_item(rng) for _ in range(count)]
    paths = [folder / f"{index:04d}.jpg" for index in range(count)]
    for path, photo in zip(paths, draw_each(items, CATALOGUE_SEED), strict=True):
        path.write_bytes(photo.jpeg)
    return [Entry(path, item.product_type, item) for path, item in zip(paths, items, strict=True)]


def copy_photos(folder: Path, source: Path, product_type: str) -> list[Entry]:
    """The user's photos, copied beside the page. Raises SystemExit where there is none."""
    entries = []
    for index, (path, prompt) in enumerate(find_photos(source, product_type)):
        target = folder / f"{index:04d}-{path.name}"
        shutil.copyfile(path, target)
        entries.append(Entry(target, prompt))
    return entries


def embed(client: Client, entries: Sequence[Entry], timings: Timings) -> tuple[ImageEmbeddings, np.ndarray]:
    """Every photo through ``product_image`` and through ``whole_image``, with a progress bar."""
    parts, wholes = [], []
    with timings.step("product_image"):
        for start in tqdm(range(0, len(entries), 32), desc="product_image", unit="batch"):
            batch = entries[start : start + 32]
            parts.append(client.embed_images([e.path for e in batch], [e.product_type for e in batch]))
    with timings.step("whole_image"):
        for start in tqdm(range(0, len(entries), 32), desc="whole_image", unit="batch"):
            wholes.append(client.embed_whole_images([e.path for e in entries[start : start + 32]]).embedding)
    columns = ("embedding", "box_xyxy", "score", "status")
    joined = [np.concatenate([getattr(part, column) for part in parts]) for column in columns]
    return ImageEmbeddings(*joined), np.concatenate(wholes)


def search(
    title: str, wanted: Item | None, query: np.ndarray, images: np.ndarray, entries: Sequence[Entry], row: int | None
) -> list[Hit]:
    """The TOP photos nearest to a query [D] among ``images`` [N, D], leaving out the photo that asks."""
    cosine = images @ query
    if row is not None:
        cosine[row] = -np.inf
    return [
        Hit(int(r), float(cosine[r]), _is_right(wanted, entries[r].item, by_text=row is None))
        for r in np.argsort(-cosine)[:TOP]
        if np.isfinite(cosine[r])
    ]


def _is_right(wanted: Item | None, found: Item | None, *, by_text: bool) -> bool | None:
    """Whether a found item is what was asked for: in every attribute by a text, in its type by a photo."""
    if wanted is None or found is None:
        return None
    return wanted.caption == found.caption if by_text else wanted.product_type == found.product_type


def ask(
    client: Client, entries: Sequence[Entry], grounded: np.ndarray, whole: np.ndarray, timings: Timings
) -> tuple[list[Query], list[Query], np.ndarray]:
    """Queries by text and by photo, and the embeddings of the texts [N, D]."""
    captions = [entry.item.caption if entry.item else entry.product_type for entry in entries]
    with timings.step("product_text"):
        texts = client.embed_texts(captions).embedding
    rng = np.random.default_rng(CATALOGUE_SEED)
    chosen = _one_of_each_type(entries, rng)
    by_text, by_photo = [], []
    with timings.step("search"):
        for row in chosen[:12]:
            item = entries[row].item
            results = (search(captions[row], item, texts[row], images, entries, None) for images in (grounded, whole))
            by_text.append(Query(captions[row], None, *results))
        for row in chosen[12:20] if entries[0].item else rng.permutation(len(entries))[:12].tolist():
            item = entries[row].item
            results = (
                search(entries[row].label, item, images[row], images, entries, row) for images in (grounded, whole)
            )
            by_photo.append(Query(entries[row].label, row, *results))
    return by_text, by_photo, texts


def _one_of_each_type(entries: Sequence[Entry], rng: np.random.Generator) -> list[int]:
    """Rows in random order, no product type twice."""
    seen: dict[str, int] = {}
    for row in rng.permutation(len(entries)).tolist():
        seen.setdefault(entries[row].product_type, row)
    return list(seen.values())


def write_page(
    out: Path,
    entries: Sequence[Entry],
    found: ImageEmbeddings,
    queries: tuple[list[Query], list[Query]],
    figures: dict[str, Any],
    timings: Timings,
) -> Path:
    """The page, and the crops it shows."""
    (out / "crops").mkdir(exist_ok=True)
    photos = []
    for row, entry in enumerate(entries):
        status = Status(int(found.status[row]))
        box = found.box_xyxy[row].tolist()
        width = height = 1
        if status <= Status.WHOLE_IMAGE:
            with Image.open(entry.path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            width, height = image.size
            crop = image.crop((int(box[0]), int(box[1]), -int(-box[2] // 1), -int(-box[3] // 1)))
            crop.thumbnail((160, 160))
            crop.save(out / "crops" / f"{row:04d}.jpg", quality=88)
        photos.append(
            {
                "file": f"photos/{entry.path.name}",
                "crop": f"crops/{row:04d}.jpg",
                "label": entry.label,
                "type": entry.product_type,
                "score": float(found.score[row]),
                "status": status,
                "ratio": width / height,
                "box": [
                    100 * box[0] / width,
                    100 * box[1] / height,
                    100 * (box[2] - box[0]) / width,
                    100 * (box[3] - box[1]) / height,
                ],
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("demo.html.j2").render(
        photos=photos, by_text=queries[0], by_photo=queries[1], figures=figures, timings=timings.steps, Status=Status
    )
    index = out / "index.html"
    index.write_text(page, encoding="utf-8")
    return index


def measure(entries: Sequence[Entry], texts: np.ndarray, grounded: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Part of the captions that find their photo among the first TOP, and the mean reciprocal rank."""
    figures: dict[str, float] = {}
    for name, images in (("grounded", grounded), ("whole", whole)):
        rank = ranks(texts, images)
        figures |= {f"hits5_{name}": hits(rank), f"mrr_{name}": mrr(rank)}
    return figures


def show(entries: Sequence[Entry], found: ImageEmbeddings, figures: dict[str, float], timings: Timings) -> None:
    """Print what was found and how long it took."""
    console = Console()
    if figures:
        quality = Table(title=f"Text to image, {len(entries)} captions among {len(entries)} photos")
        for column in ("", "whole image", "grounded"):
            quality.add_column(column, justify="left" if not column else "right")
        for name, label in (("hits5", f"found among the first {TOP}"), ("mrr", "mean reciprocal rank")):
            quality.add_row(label, f"{figures[f'{name}_whole']:.3f}", f"[bold]{figures[f'{name}_grounded']:.3f}")
        console.print(quality)
    counts = Counter(Status(int(status)).name for status in found.status)
    table = Table(title="What it took")
    for column in ("step", "seconds", "ms each"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, seconds in timings.steps.items():
        each = f"{1e3 * seconds / len(entries):.1f}" if name not in ("start the server", "search") else ""
        table.add_row(name, f"{seconds:.1f}", each)
    console.print(table)
    console.print("status of the photos: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def main() -> None:
    parser = parser_of("demo", __doc__, figures=False)
    parser.add_argument("--photos", type=Path, help="folder of your own photos (default: draw a catalogue)")
    parser.add_argument("--type", default="", help='product type of your photos, such as "mug"')
    parser.add_argument("--count", type=int, default=300, help="photos to draw (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the page goes (%(default)s)")
    args = parser.parse_args()
    if args.photos and not args.photos.is_dir():
        raise SystemExit(f"--photos: no such folder: {args.photos}")

    shutil.rmtree(args.out, ignore_errors=True)
    folder = args.out / "photos"
    folder.mkdir(parents=True)
    timings = Timings()
    with timings.step("copy the photos" if args.photos else "draw the photos"):
        entries = copy_photos(folder, args.photos, args.type) if args.photos else draw_catalogue(folder, args.count)
    started = time.perf_counter()
    with served(args.url) as url, Client(url, timeout=120) as client:
        timings.steps["start the server"] = time.perf_counter() - started
        found, whole = embed(client, entries, timings)
        *queries, texts = ask(client, entries, found.embedding, whole, timings)
    figures = measure(entries, texts, found.embedding, whole) if entries[0].item else {}
    page = write_page(args.out, entries, found, (queries[0], queries[1]), figures, timings)
    show(entries, found, figures, timings)
    Console().print(f"\nLook at it: [bold]{page.resolve().as_uri()}", soft_wrap=True)


if __name__ == "__main__":
    main()
