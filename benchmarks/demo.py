"""Search photos with and without grounding, and write a page that shows the difference.

    python -m benchmarks.demo                                  300 photos of the synthetic catalogue
    python -m benchmarks.demo --photos folder                  your own: folder/mug/1.jpg, folder/desk lamp/2.jpg, …
    python -m benchmarks.demo --photos photos.csv              a table with the columns path and type; label is optional
    python -m benchmarks.demo --photos folder --type "mug"     all photos show the same product type

Results are counted as right or wrong if your photos have at least two types or labels. A label says more than a type,
such as "red mug"; it is the query by text, and a right result has the same label.

The page is build/demo/index.html. The photos and the crops that it shows lie in the same folder.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks.photos import OwnPhoto, add_options, draw_each, find_photos
from benchmarks.target import parser_of, served
from search.edge import EdgeIndex
from search.index import IMAGE, Leg, Point, Question, point_id
from search.measures import TOP, hits, ranks, reciprocal
from training.catalogue.items import Item, draw_item
from vlclip import Client, ImageEmbeddings, Status

SEED = 2026
TEXTS, PHOTOS = 12, 8
"""Queries by text, and by photo."""
FEW_FOUND = (
    "The detector did not find most of the products. The mini models know drawn products only, and no real photo; "
    "`make models DETECTOR=yolo-world-s ENCODER=ViT-B-32` exports models that do."
)


@dataclass(frozen=True)
class Entry:
    """A photo of the catalogue, and the item that it shows; ``item`` is None for a user's own photo.

    ``name`` is what the page calls the photo, ``text`` the query that should find it, and ``group`` what a right
    result of a search by this photo has in common with it.
    """

    path: Path
    product_type: str
    name: str
    text: str
    group: str
    item: Item | None = None


@dataclass(frozen=True)
class Hit:
    """A photo that a query found, as a row of the catalogue; ``correct`` is None if the right answer is unknown."""

    row: int
    cosine: float
    correct: bool | None


@dataclass(frozen=True)
class Figure:
    """A figure of the page: with grounding, and what to compare it with."""

    title: str
    value: str
    other: str


@dataclass(frozen=True)
class Query:
    """A query and its nearest photos, with and without grounding; ``row`` is the photo of a query by photo."""

    title: str
    row: int | None
    grounded: list[Hit]
    whole: list[Hit]

    @property
    def is_same(self) -> bool:
        """Whether grounding makes no difference."""
        return [hit.row for hit in self.grounded] == [hit.row for hit in self.whole]


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
        item = photo.items[0]
        entries.append(Entry(path, item.product_type, item.caption, item.caption, item.product_type, item))
    return entries


def find_own(source: Path, product_type: str) -> list[OwnPhoto]:
    """The user's photos. Raises SystemExit if there is none, or if a photo has no product type."""
    photos = find_photos(source, product_type, otherwise="")
    if untyped := [photo.path for photo in photos if not photo.product_type]:
        folder = source if source.is_dir() else source.parent
        raise SystemExit(
            f"{len(untyped)} of {len(photos)} photos have no product type, such as {untyped[0]}. The detector must "
            f"know which product to look for. Do one of these:\n"
            f'  - if all photos show the same type, name it: make demo PHOTOS="{source}" TYPE="mug" (or --type "mug")\n'
            f"  - move the photos into one subfolder for each type, such as {folder / 'mug' / untyped[0].name}\n"
            f"  - write {folder / 'photos.csv'} with the columns path and type"
        )
    return photos


def copy_photos(folder: Path, photos: Sequence[OwnPhoto]) -> list[Entry]:
    """Copy the user's photos, so that the page can show them."""
    entries = []
    for index, photo in enumerate(photos):
        copy = folder / f"{index:04d}-{photo.path.name}"
        shutil.copyfile(photo.path, copy)
        text = photo.label or photo.product_type
        entries.append(Entry(copy, photo.product_type, f"{text} ({photo.path.name})", text, text))
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


@contextmanager
def indexed(folder: Path, embeddings: Embeddings) -> Iterator[tuple[EdgeIndex, EdgeIndex]]:
    """Two indices of the photos, grounded and whole. A photo that could not be decoded is in neither."""
    rows = np.flatnonzero(embeddings.found.status <= Status.WHOLE_IMAGE).tolist()
    with ExitStack() as stack:
        made = []
        for name, images in (("grounded", embeddings.found.embedding), ("whole", embeddings.whole)):
            index = EdgeIndex(folder / name, dimension=images.shape[1], vectors=(IMAGE,))
            stack.callback(index.close)
            index.write([Point(point_id(str(row), 0), {IMAGE: images[row]}, "", {"product": str(row)}) for row in rows])
            made.append(index)
        yield made[0], made[1]


def ask(
    entries: Sequence[Entry], embeddings: Embeddings, indices: tuple[EdgeIndex, EdgeIndex]
) -> tuple[list[Query], list[Query]]:
    """Queries by text and queries by photo; no two by text ask for the same group."""
    is_decoded = embeddings.found.status <= Status.WHOLE_IMAGE
    order = np.random.default_rng(SEED).permutation(len(entries)).tolist()
    first: dict[str, int] = {}
    for row in order:
        first.setdefault(entries[row].group, row)
    by_text = list(first.values())
    by_photo = [row for row in (by_text[TEXTS:] if entries[0].item else order) if is_decoded[row]]
    return (
        [search(entries, embeddings, indices, row, by_text=True) for row in by_text[:TEXTS]],
        [search(entries, embeddings, indices, row, by_text=False) for row in by_photo[:PHOTOS]],
    )


def search(
    entries: Sequence[Entry],
    embeddings: Embeddings,
    indices: tuple[EdgeIndex, EdgeIndex],
    row: int,
    *,
    by_text: bool,
) -> Query:
    """Find the photos nearest to the text of a row, or the other photos nearest to its photo."""
    answers = []
    for index, images in zip(indices, (embeddings.found.embedding, embeddings.whole), strict=True):
        leg = Leg(IMAGE, embeddings.text[row] if by_text else images[row])
        hits = index.ask(Question([leg], without=[] if by_text else [str(row)], limit=TOP))
        found = [(int(hit.payload["product"]), hit.score) for hit in hits]
        answers.append([Hit(other, cosine, correct(entries, row, other, by_text)) for other, cosine in found])
    return Query(entries[row].text, None, *answers) if by_text else Query(entries[row].name, row, *answers)


def is_labelled(entries: Sequence[Entry]) -> bool:
    """Whether a result can be wrong: photos of a single type are all right."""
    return len({entry.group for entry in entries}) > 1


def correct(entries: Sequence[Entry], row: int, found: int, by_text: bool) -> bool | None:
    """A text must match in full (every attribute of a drawn item), a photo in its group."""
    if not is_labelled(entries):
        return None
    wanted, other = entries[row], entries[found]
    return wanted.text == other.text if by_text else wanted.group == other.group


def measure(entries: Sequence[Entry], embeddings: Embeddings) -> list[Figure]:
    """How well the texts and photos of the catalogue find what they should; nothing if that is unknown."""
    both = embeddings.found.embedding, embeddings.whole
    if not is_labelled(entries):
        return []
    if entries[0].item:
        (hits_found, hits_whole), (mrr_found, mrr_whole) = zip(
            *(
                (hits(rank).mean(), reciprocal(rank).mean())
                for rank in (ranks(embeddings.text, images) for images in both)
            ),
            strict=True,
        )
        return [
            Figure(f"own photo in the first {TOP} results", f"{hits_found:.0%}", f"{hits_whole:.0%}"),
            Figure("mean reciprocal rank", f"{mrr_found:.2f}", f"{mrr_whole:.2f}"),
        ]
    groups = np.array([entry.group for entry in entries])
    is_decoded = embeddings.found.status <= Status.WHOLE_IMAGE
    right = (groups[:, None] == groups) & is_decoded
    first = np.unique(groups, return_index=True)[1]
    by_text = [share_right(embeddings.text[first] @ images.T, right[first]) for images in both]
    np.fill_diagonal(right, val=False)
    others = np.where(np.eye(len(groups), dtype=bool), -np.inf, 0)
    by_photo = [share_right((images @ images.T + others)[is_decoded], right[is_decoded]) for images in both]
    return [
        Figure(f"right among the first {TOP} results of a {query}", *(f"{share:.0%}" for share in shares))
        for query, shares in (("text", by_text), ("photo", by_photo))
        if not np.isnan(shares[0])
    ]


def share_right(cosine: np.ndarray, right: np.ndarray) -> float:
    """The mean share of right photos among the first TOP results, of those that could be there.

    ``cosine`` and ``right`` are [Q, N]. Queries without a right photo do not count; NaN if there is no other.
    """
    possible = np.minimum(TOP, right.sum(axis=1))
    nearest = np.argsort(-cosine, axis=1)[:, :TOP]
    found = np.take_along_axis(right, nearest, axis=1).sum(axis=1)
    return float((found[possible > 0] / possible[possible > 0]).mean()) if possible.any() else float("nan")


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
    """A photo as the template shows it, with its box in per cent; writes its crop, if the product was found."""
    status, crop = Status(int(found.status[row])), f"crops/{row:04d}.jpg"
    x0, y0, x1, y1 = found.box_xyxy[row].tolist()
    width = height = 1
    if status <= Status.WHOLE_IMAGE:
        with Image.open(entry.path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        width, height = image.size
        if status == Status.GROUNDED:
            part = image.crop((int(x0), int(y0), -int(-x1 // 1), -int(-y1 // 1)))
            part.thumbnail((160, 160))
            part.save(out / crop, quality=88)
    return {
        "file": f"photos/{quote(entry.path.name)}",
        "crop": crop,
        "label": entry.name,
        "problem": {Status.GROUNDED: "", Status.WHOLE_IMAGE: "not found"}.get(status, describe(status)),
        "score": float(found.score[row]),
        "status": status,
        "ratio": width / height,
        "box": [100 * x0 / width, 100 * y0 / height, 100 * (x1 - x0) / width, 100 * (y1 - y0) / height],
    }


def describe(status: Status) -> str:
    """ "not an image" """
    return status.name.lower().replace("_", " ")


def show(count: int, found: ImageEmbeddings, figures: Sequence[Figure], seconds: dict[str, float]) -> None:
    """Print the quality of the search and the time of each step."""
    console = Console()
    if figures:
        table = Table("", title=f"Search in {count} photos")
        for column in ("whole image", "grounded"):
            table.add_column(column, justify="right")
        for figure in figures:
            table.add_row(figure.title, figure.other, f"[bold]{figure.value}")
        console.print(table)
    table = Table("step", title="Time of each step")
    for column in ("seconds", "ms per photo"):
        table.add_column(column, justify="right")
    for step, took in seconds.items():
        table.add_row(step, f"{took:.1f}", "" if step == "start the server" else f"{1e3 * took / count:.1f}")
    console.print(table)
    statuses = Counter(Status(int(status)).name for status in found.status)
    console.print("Photos by status: " + ", ".join(f"{number} {name}" for name, number in statuses.items()))
    if 2 * statuses[Status.GROUNDED.name] < count:
        console.print(FEW_FOUND)


def main() -> None:
    parser = parser_of("demo", __doc__, figures=False)
    add_options(parser)
    parser.add_argument("--count", type=int, default=300, help="number of scenes to draw (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder of the page (%(default)s)")
    args = parser.parse_args()
    own = find_own(args.photos, args.type) if args.photos else []

    shutil.rmtree(args.out, ignore_errors=True)
    folder = args.out / "photos"
    folder.mkdir(parents=True)
    seconds: dict[str, float] = {}
    with timed(seconds, "copy the photos" if args.photos else "draw the photos"):
        entries = copy_photos(folder, own) if own else draw_catalogue(folder, args.count)
    begin = time.perf_counter()
    # One batch after the other, so that a slow machine does not refuse the next one.
    with served(args.url) as url, Client(url, timeout=120, max_in_flight=1) as client:
        seconds["start the server"] = time.perf_counter() - begin
        embeddings = embed(client, entries, seconds)
    with (
        timed(seconds, "index and search"),
        TemporaryDirectory() as scratch,
        indexed(Path(scratch), embeddings) as indices,
    ):
        by_text, by_photo = ask(entries, embeddings, indices)
    figures = measure(entries, embeddings)
    page = write_page(
        args.out,
        entries,
        embeddings.found,
        by_text=by_text,
        by_photo=by_photo,
        figures=figures,
        seconds=seconds,
        is_drawn=entries[0].item is not None,
        few_found=FEW_FOUND,
    )
    show(len(entries), embeddings.found, figures, seconds)
    Console().print(f"\nOpen the page: [bold]{page.resolve().as_uri()}", soft_wrap=True)


if __name__ == "__main__":
    main()
