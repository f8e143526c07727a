"""The requests of a load test. They resemble a shop's traffic; each one is a function of the seed and its number.

    python -m benchmarks.traffic      draw photos of the synthetic catalogue into build/bench/photos

Product types follow a Zipf law: the second type is requested half as often as the first, the third a third as often.
Some photos of each type are hot and are requested again and again. Most requests have one item, some have many. Drawn
photos have the sizes of a shop's photos, from thumbnails of 320 pixels to uploads of 1890 pixels.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from benchmarks.photos import draw_each, find_photos
from training.catalogue.items import TRAINED_TYPES, Item, draw_item

PIPELINES = ("product_image", "whole_image", "ground", "product_text", "enriched_text")
CLIENTS = ("vlclip", "tritonclient")
MIX = "product_image=70,product_text=20,whole_image=4,ground=4,enriched_text=2"
BATCHES = "1=85,2=6,4=5,8=3,16=1"
CLIENT_MIX = "vlclip=80,tritonclient=20"
HOT_PART, HOT_REQUESTS = 0.1, 0.3
"""The hot part of the photos, and the part of the requests that only choose among hot photos."""
ENLARGED = {1.0: 50, 1.8: 30, 3.0: 15, 4.5: 5}
"""The factors by which the catalogue's drawings, of 300 to 420 pixels, are enlarged, and how often."""
ROOT = Path(__file__).parent.parent
DRAWN_FOLDER = ROOT / "build/bench/photos"
MOST_PHOTOS = 2000
"""The most photos that are kept in memory."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A request before it is sent."""

    client: str
    pipeline: str
    texts: tuple[str, ...]
    """The product type, text or JSON metadata of each item. Empty for ``whole_image``."""
    images: tuple[bytes, ...]
    """The encoded photo of each item, which may be b"" for ``enriched_text``. Empty for ``product_text``."""

    @property
    def items(self) -> int:
        return max(len(self.texts), len(self.images))


def parse_shares(text: str, names: Sequence[str] | None = None) -> dict[str, float]:
    """Parse ``"mug=70,lamp=30"``. Raises ValueError for a name that is not in ``names``."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f'expected NAME=SHARE,NAME=SHARE, got "{part}" in "{text}"') from None
        if names and name not in names:
            raise ValueError(f'unknown name "{name}": expected some of {", ".join(names)}')
    if min(shares.values()) < 0 or not sum(shares.values()):
        raise ValueError(f'expected shares of at least 0, and one above 0, got "{text}"')
    return shares


parse_mix = partial(parse_shares, names=PIPELINES)
parse_clients = partial(parse_shares, names=CLIENTS)


def parse_batches(text: str) -> dict[int, float]:
    """Parse ``"1=85,8=15"``: the items of a request, and how often. Raises ValueError."""
    shares = parse_shares(text)
    if not all(size.isdigit() and int(size) > 0 for size in shares):
        raise ValueError(f'expected ITEMS=SHARE,ITEMS=SHARE, got "{text}"')
    return {int(size): share for size, share in shares.items()}


class Traffic:
    """Makes requests from their numbers. ``photos`` is a folder; the name of a subfolder is its photos' product type.

    Photos at the top of the folder get product types of the catalogue, unless ``photos.csv`` has their type. Texts
    always come from the catalogue.
    """

    def __init__(self, photos: Path, seed: int = 0, mix: str = MIX, batches: str = BATCHES, clients: str = CLIENT_MIX):
        self._seed = seed
        self._pipelines = parse_mix(mix)
        self._batches = parse_batches(batches)
        self._clients = parse_clients(clients)
        by_type = read_photos(photos)
        order = random.Random(seed)
        anywhere = by_type.pop("", [])
        types = sorted(by_type) + (sorted(set(TRAINED_TYPES) - by_type.keys()) if anywhere else [])
        order.shuffle(types)
        self._types = zipf(types)
        self._photos = {name: by_type.get(name, anywhere) for name in types}
        for files in (*by_type.values(), anywhere):
            order.shuffle(files)  # the first ones are hot
        catalogue = list(TRAINED_TYPES)
        order.shuffle(catalogue)
        self._products = zipf(catalogue)

    def ask(self, number: int) -> Ask:
        """The request with this number. It depends only on the seed, the photos and the number."""
        rng = random.Random(f"{self._seed}/{number}")
        pipeline = draw(rng, self._pipelines)
        count, client = draw(rng, self._batches), draw(rng, self._clients)
        if pipeline == "product_text":
            return Ask(client, pipeline, tuple(self._product(rng).caption for _ in range(count)), ())
        if pipeline == "enriched_text":
            products = [self._product(rng) for _ in range(count)]
            texts = tuple(
                json.dumps({"product_type": item.product_type, "title": item.title, "description": item.description})
                for item in products
            )
            return Ask(
                client, pipeline, texts, tuple(self._photo(rng)[1] if rng.random() < 0.5 else b"" for _ in texts)
            )
        types, images = zip(*(self._photo(rng) for _ in range(count)), strict=True)
        return Ask(client, pipeline, () if pipeline == "whole_image" else types, images)

    def _photo(self, rng: random.Random) -> tuple[str, bytes]:
        product_type = draw(rng, self._types)
        files = self._photos[product_type]
        among = max(1, round(HOT_PART * len(files))) if rng.random() < HOT_REQUESTS else len(files)
        return product_type, files[rng.randrange(among)]

    def _product(self, rng: random.Random) -> Item:
        return draw_item(np.random.default_rng(rng.randrange(2**32)), (draw(rng, self._products),))


def draw(rng: random.Random, shares: Mapping[T, float]) -> T:
    """Draw a value in proportion to its share."""
    return rng.choices(list(shares), list(shares.values()))[0]


def zipf(names: Sequence[str]) -> dict[str, float]:
    """Shares of names that are given in the order of their rank."""
    return {name: 1 / rank for rank, name in enumerate(names, start=1)}


def read_photos(folder: Path) -> dict[str, list[bytes]]:
    """Photos by product type: that of ``photos.csv``, else the name of their subfolder, else "".

    If there are more than MOST_PHOTOS, it reads an even selection. Raises SystemExit if there is no photo.
    """
    by_type: dict[str, list[bytes]] = {}
    photos = find_photos(folder, otherwise="")
    for photo in photos[:: -(-len(photos) // MOST_PHOTOS)]:
        by_type.setdefault(photo.product_type, []).append(photo.path.read_bytes())
    return by_type


def require_folder(text: str) -> None:
    """Raises ValueError if the text is not a folder."""
    if text and not Path(text).is_dir():
        raise ValueError(f"no such folder: {text}")


def drawn_photos() -> Path:
    """DRAWN_FOLDER. If it is missing, another process draws it, because gevent does not support process pools."""
    if not DRAWN_FOLDER.is_dir():
        subprocess.run([sys.executable, "-m", "benchmarks.traffic"], cwd=ROOT, check=True)
    return DRAWN_FOLDER


def draw_photos(folder: Path, types: Sequence[str] = TRAINED_TYPES, each: int = 2, seed: int = 5) -> None:
    """Write ``each`` scenes of every product type as FOLDER/TYPE/NUMBER.jpg. The folder appears when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    items = [draw_item(rng, (name,)) for _ in range(each) for name in types]
    with tempfile.TemporaryDirectory(prefix=".photos-", dir=folder.parent) as drawn:
        drawing = Path(drawn) / "photos"
        for number, photo in enumerate(draw_each(items, seed)):
            file = drawing / photo.items[0].product_type / f"{number:04d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_enlarge(photo.jpeg, draw(chance, ENLARGED)))
        try:
            drawing.rename(folder)
        except OSError:
            if not folder.is_dir():  # if it is, another process was faster
                raise


def _enlarge(file: bytes, factor: float) -> bytes:
    """A JPEG with ``factor`` times the width and height."""
    if factor == 1:
        return file
    pixels = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR))
    pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


if __name__ == "__main__":
    draw_photos(DRAWN_FOLDER)
