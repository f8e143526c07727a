"""From products to points: read and hash photos, embed what is new, and write it to the index batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.attributes import Guesser
from search.index import IMAGE, TEXT, Index, Point, Vector, WrongVersion, point_id
from search.photos import Fingerprint, PhotoError, bands, fingerprint, is_near, load
from search.records import BadRow, Product
from vlclip import Client, Status, comparable

BATCH = 64  # products that are written together
LoadPhoto = Callable[[str | bytes], bytes]
KeepPhoto = Callable[[bytes, Fingerprint], str]


@dataclass
class Report:
    """What an ingestion did. ``photos`` counts by outcome; ``deleted`` counts products; ``bad`` holds bad rows."""

    products: int = 0
    unchanged: int = 0
    removed_photos: int = 0
    deleted: int = 0
    photos: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    bad_count: int = 0
    bad: list[BadRow] = field(default_factory=list)

    def refuse(self, row: BadRow, *, keep: int = 1000) -> None:
        self.bad_count += 1
        if len(self.bad) < keep:
            self.bad.append(row)


@dataclass
class _Photo:
    """A photo of a product on its way to the index."""

    product: Product
    number: int
    source: str
    data: bytes
    hashes: Fingerprint
    group: str = ""
    twin: _Photo | Point | None = None  # whose image embedding is used
    payload: dict[str, Any] = field(default_factory=dict)
    image: Vector | None = None

    @property
    def id(self) -> str:
        return point_id(self.product.id, self.number)


def text_key(product: Product) -> str:
    """A digest of all that the text of a product is written from."""
    row = product.model_dump(exclude={"photos", "id"})
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:32]


def ingest(
    rows: Iterable[Product | BadRow],
    index: Index,
    client: Client,
    *,
    version: str,
    radius: int,
    progress: Callable[[int], None] = lambda rows: None,
    load_photo: LoadPhoto = load,
    keep_photo: KeepPhoto = lambda data, hashes: "",
    guesser: Guesser | None = None,
) -> Report:
    """Write products to the index. What is in the index already with the same content is not embedded again.

    A product's photos and text are replaced whole. A photo that cannot be read or decoded is reported and left out; a
    product without any readable photo is reported and not written. ``keep_photo`` stores a photo that came as bytes,
    and returns the path or URL under which it is found again. ``guesser`` guesses the attributes of what is written.
    Raises WrongVersion if the server embeds with another version.
    """
    report = Report()
    with ThreadPoolExecutor() as threads:
        for batch in _batches(rows, report, progress):
            _write(batch, index, client, version, radius, report, threads, load_photo, keep_photo, guesser)
            progress(len(batch))
    return report


def _batches(
    rows: Iterable[Product | BadRow], report: Report, progress: Callable[[int], None]
) -> Iterator[list[Product]]:
    """Products that are written together. One that is given again comes in a later batch, so the last one stays."""
    batch: dict[str, Product] = {}
    for product in _products(rows, report, progress):
        if product.id in batch or len(batch) == BATCH:
            yield list(batch.values())
            batch = {}
        batch[product.id] = product
    if batch:
        yield list(batch.values())


def _products(rows: Iterable[Product | BadRow], report: Report, progress: Callable[[int], None]) -> Iterator[Product]:
    for row in rows:
        if isinstance(row, BadRow):
            report.refuse(row)
            progress(1)
        else:
            report.products += 1
            yield row


def _write(
    products: list[Product],
    index: Index,
    client: Client,
    version: str,
    radius: int,
    report: Report,
    threads: ThreadPoolExecutor,
    load_photo: LoadPhoto,
    keep_photo: KeepPhoto,
    guesser: Guesser | None,
) -> None:
    before: dict[str, dict[str, Point]] = {}
    for point in index.points({"product": [product.id for product in products]}, vectors=(IMAGE, TEXT)):
        before.setdefault(point.payload["product"], {})[point.id] = point
    photos = _read(products, report, threads, load_photo, keep_photo)
    changed = []
    for product in products:
        mine = [photo for photo in photos if photo.product is product]
        if not mine:
            continue
        known = before.get(product.id, {})
        if _same(known, mine, version):
            report.unchanged += 1
            report.photos["unchanged"] += len(mine)
        else:
            changed += mine
    _find_twins(changed, before, index, version, radius)
    _embed_images(changed, client, report, version)
    written = [photo for photo in changed if photo.image is not None]
    texts = _texts(written, before, client, version)
    if guesser:
        _guess(written, guesser)
    points = [_point(photo, texts[photo.product.id], version, radius) for photo in written]
    kept = {point.id for point in points}
    touched = {photo.product.id for photo in written}
    drop = [point for product in touched for point in before.get(product, {}) if point not in kept]
    report.removed_photos += len(drop)
    if points or drop:
        index.write(points, drop)


def _read(
    products: Sequence[Product],
    report: Report,
    threads: ThreadPoolExecutor,
    load_photo: LoadPhoto,
    keep_photo: KeepPhoto,
) -> list[_Photo]:
    def prepare(job: tuple[Product, int, str | bytes]) -> _Photo | BadRow:
        product, number, photo = job
        try:
            data = load_photo(photo)
        except PhotoError as error:
            return BadRow(f"product {product.id}, photo {number + 1}", str(error))
        hashes = fingerprint(data)
        inline = isinstance(photo, bytes) or photo.startswith("data:")
        source = keep_photo(data, hashes) if inline else str(photo)
        return _Photo(product, number, source, data, hashes)

    photos = []
    jobs = [(product, n, photo) for product in products for n, photo in enumerate(product.photos)]
    for found in threads.map(prepare, jobs):
        if isinstance(found, BadRow):
            report.photos["unreadable"] += 1
            report.refuse(found)
        else:
            photos.append(found)
    return photos


def _same(known: dict[str, Point], photos: Sequence[_Photo], version: str) -> bool:
    """Whether the index has exactly these photos, at the same places, and this text, made by this version."""
    return known.keys() == {photo.id for photo in photos} and all(
        known[photo.id].payload["content"] == photo.hashes.content
        and known[photo.id].payload["photo"] == photo.source
        and known[photo.id].payload["text_key"] == text_key(photo.product)
        and known[photo.id].payload["version"] == version
        for photo in photos
    )


def _find_twins(
    photos: Sequence[_Photo], before: dict[str, dict[str, Point]], index: Index, version: str, radius: int
) -> None:
    """Find for each photo the group of its duplicates, and a duplicate whose embedding it can share.

    A photo that is near the photos of several groups makes them one group.
    """
    keys = sorted({band for photo in photos for band in bands(photo.hashes.perceptual, radius)})
    contents = sorted({photo.hashes.content for photo in photos})
    known: dict[str, Point] = {}
    for where in ({"content": contents}, {"bands": keys}):
        if any(where.values()):
            known.update({point.id: point for point in index.points(where)})
    known.update({point.id: point for points in before.values() for point in points.values()})
    by_key: dict[str, list[_Photo | Point]] = {}
    into: dict[str, str] = {}  # groups that have become part of another one

    def remember(one: _Photo | Point) -> None:
        hashes = _hashes(one)
        for key in (hashes.content, *bands(hashes.perceptual, radius)):
            by_key.setdefault(key, []).append(one)

    def group_of(one: _Photo | Point) -> str:
        group = one.group if isinstance(one, _Photo) else str(one.payload["duplicate"])
        while group in into:
            group = into[group]
        return group

    for point in known.values():
        remember(point)
    for photo in photos:
        near = list(by_key.get(photo.hashes.content, ()))
        if not near:
            keyed = (one for band in bands(photo.hashes.perceptual, radius) for one in by_key.get(band, ()))
            candidates = {id(one): one for one in keyed}.values()
            near = [one for one in candidates if is_near(_hashes(one), photo.hashes, radius)]
        groups = sorted({group_of(one) for one in near}) or [photo.hashes.content]
        into.update(dict.fromkeys(groups[1:], groups[0]))
        photo.group = groups[0]
        photo.twin = next((one for one in near if _shares(one, photo, version)), None)
        remember(photo)
    for photo in photos:
        photo.group = group_of(photo)
    twins = {one.twin.id for one in photos if isinstance(one.twin, Point)}
    embedded = {point.id: point for point in index.get(sorted(twins), vectors=(IMAGE,))} if twins else {}
    for photo in photos:
        if isinstance(photo.twin, Point):
            photo.twin = embedded[photo.twin.id]
    if into:
        found = index.points({"duplicate": sorted(into)})
        index.amend([([point.id], {"duplicate": group_of(point)}) for point in found])


def _hashes(one: _Photo | Point) -> Fingerprint:
    if isinstance(one, _Photo):
        return one.hashes
    width, height = one.payload["size"]
    return Fingerprint(one.payload["content"], one.payload["perceptual"], one.payload["colours"], (width, height))


def _shares(one: _Photo | Point, photo: _Photo, version: str) -> bool:
    """Whether a photo can use the embedding of another: the detector looked for the same product type."""
    if isinstance(one, _Photo):
        return one.product.product_type == photo.product.product_type
    return bool(one.payload["product_type"] == photo.product.product_type and one.payload["version"] == version)


def _guess(photos: Sequence[_Photo], guesser: Guesser) -> None:
    """Guess the attributes of products from all of their photos."""
    of_product: dict[str, list[_Photo]] = {}
    for photo in photos:
        of_product.setdefault(photo.product.id, []).append(photo)
    for mine in of_product.values():
        vectors = np.stack([photo.image for photo in mine if photo.image is not None])
        found = guesser.guess(mine[0].product.product_type, vectors)
        for photo in mine:
            photo.payload |= found


def _require(version: str, found: str, *, exactly: bool) -> None:
    if version != found if exactly else not comparable(version, found):
        raise WrongVersion(
            f"the server embeds with {found}, but the collection was made by {version}; "
            "run reindex, or serve the models that made the collection"
        )


def _embed_images(photos: Sequence[_Photo], client: Client, report: Report, version: str) -> None:
    new = [photo for photo in photos if photo.twin is None]
    if new:
        answers = client.embed_images([photo.data for photo in new], [photo.product.product_type for photo in new])
        for n, photo in enumerate(new):
            status = Status(int(answers.status[n]))
            report.statuses[status.name.lower()] += 1
            if status > Status.WHOLE_IMAGE:
                report.photos["unreadable"] += 1
                what = "not an image" if status == Status.NOT_AN_IMAGE else "too large"
                report.refuse(
                    BadRow(f"product {photo.product.id}, photo {photo.number + 1}", f"{photo.source or 'it'} is {what}")
                )
                continue
            _require(version, answers.version[n], exactly=True)
            report.photos["embedded"] += 1
            photo.image = answers.embedding[n]
            photo.payload = {
                "box": [round(float(x), 2) for x in answers.box_xyxy[n]],
                "score": round(float(answers.score[n]), 4),
                "status": int(status),
            }
    for photo in photos:
        if photo.twin is not None:
            twin = photo.twin
            photo.image = twin.image if isinstance(twin, _Photo) else twin.vectors[IMAGE]
            photo.payload = {key: twin.payload[key] for key in ("box", "score", "status") if key in twin.payload}
            if "box" in photo.payload:
                photo.payload["box"] = _scaled(photo.payload["box"], _hashes(twin).size, photo.hashes.size)
            report.photos["shared" if photo.image is not None else "unreadable"] += 1


def _scaled(box: Sequence[float], size: tuple[int, int], to: tuple[int, int]) -> list[float]:
    """A box x0 y0 x1 y1 in pixels of a photo, for a copy of the photo in another size."""
    if size == to or not all(size):
        return list(box)
    return [round(x * to[n % 2] / size[n % 2], 2) for n, x in enumerate(box)]


def _texts(
    photos: Sequence[_Photo], before: dict[str, dict[str, Point]], client: Client, version: str
) -> dict[str, tuple[str, Vector]]:
    """The text of each product and its embedding, taken from the index where nothing of it has changed."""
    found: dict[str, tuple[str, Vector]] = {}
    new: dict[str, Product] = {}
    for photo in photos:
        product = photo.product
        for point in before.get(product.id, {}).values():
            if point.payload["text_key"] == text_key(product) and point.payload["version"] == version:
                found[product.id] = (point.payload["text"], point.vectors[TEXT])
        if product.id not in found:
            new[product.id] = product
    if new:
        answers = client.enrich([p.model_dump(exclude={"photos", "id"}) | p.attributes for p in new.values()])
        for n, product_id in enumerate(new):
            _require(version, answers.version[n], exactly=False)
            found[product_id] = (str(answers.text[n]), answers.embedding[n])
    return found


def _point(photo: _Photo, text: tuple[str, Vector], version: str, radius: int) -> Point:
    product = photo.product
    assert photo.image is not None
    words = " ".join(
        [product.title, product.description, product.product_type, text[0]]
        + [" ".join(value) if isinstance(value, list) else str(value) for value in product.attributes.values()]
    )
    return Point(
        photo.id,
        {IMAGE: np.asarray(photo.image), TEXT: np.asarray(text[1])},
        words,
        {
            **photo.payload,
            "product": product.id,
            "product_type": product.product_type,
            "title": product.title,
            "description": product.description,
            "attributes": product.attributes,
            "text": text[0],
            "text_key": text_key(product),
            "photo": photo.source,
            "number": photo.number,
            "size": list(photo.hashes.size),
            "content": photo.hashes.content,
            "perceptual": photo.hashes.perceptual,
            "colours": photo.hashes.colours,
            "bands": bands(photo.hashes.perceptual, radius),
            "duplicate": photo.group,
            "version": version,
        },
    )
