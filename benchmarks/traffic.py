"""What is asked: requests that look like a shop's traffic, every one a function of the seed and its number.

    python -m benchmarks.traffic --out build/bench/photos      draw photos of the synthetic catalogue

Product types follow a Zipf law: the second is asked for half as often as the first, the third a third as often. Of a
type's photos some are hot and asked for again and again. Most requests are of one item, some of many. Drawn photos
have the sizes that shops have, from thumbnails of 320 to uploads of 1890 pixels.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

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
"""This part of the photos gets that part of the requests, besides its share of the rest."""
ENLARGED = {1.0: 50, 1.8: 30, 3.0: 15, 4.5: 5}
"""By how much the catalogue's drawings, of 300 to 420 pixels, are enlarged, and how often."""
ROOT = Path(__file__).parent.parent
DRAWN_FOLDER = ROOT / "build/bench/photos"
MOST_PHOTOS = 2000
"""That are held in memory."""


@dataclass(frozen=True)
class Ask:
    """A request that is to be sent."""

    client: str
    pipeline: str
    texts: tuple[str, ...]
    """Of each item: its product type, its text, or its metadata as JSON; empty for ``whole_image``."""
    images: tuple[bytes, ...]
    """Of each item: its file, which may be empty for ``enriched_text``; none for ``product_text``."""

    @property
    def items(self) -> int:
        return max(len(self.texts), len(self.images))


def parse_shares(text: str, names: Sequence[str] | None = None) -> dict[str, float]:
    """``"mug=70,lamp=30"``. Raises ValueError, in a sentence, for names that are not among ``names``."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f'expected NAME=SHARE,NAME=SHARE, got "{part}" in "{text}"') from None
        if names and name not in names:
            raise ValueError(f'no "{name}": expected some of {", ".join(names)}')
    if min(shares.values()) < 0 or not sum(shares.values()):
        raise ValueError(f'expected shares of 0 and more, and one above 0, got "{text}"')
    return shares


def parse_batches(text: str) -> dict[int, float]:
    """``"1=85,8=15"``: items of a request, and how often. Raises ValueError."""
    shares = parse_shares(text)
    if not all(size.isdigit() and int(size) > 0 for size in shares):
        raise ValueError(f'expected ITEMS=SHARE,ITEMS=SHARE, got "{text}"')
    return {int(size): share for size, share in shares.items()}


class Traffic:
    """Requests by their number. ``photos`` is a folder; a photo in a subfolder is asked for as what that is named.

    Photos at its top are asked for as types of the catalogue, unless ``photos.csv`` says what they show. Texts are
    always of the catalogue.
    """

    def __init__(self, photos: Path, seed: int = 0, mix: str = MIX, batches: str = BATCHES, clients: str = CLIENT_MIX):
        self._seed = seed
        self._pipelines = _Chances(parse_shares(mix, PIPELINES))
        self._batches = _Chances(parse_batches(batches))
        self._clients = _Chances(parse_shares(clients, CLIENTS))
        by_type = read_photos(photos)
        order = random.Random(seed)
        anywhere = by_type.pop("", [])
        types = sorted(by_type) + (sorted(set(TRAINED_TYPES) - by_type.keys()) if anywhere else [])
        order.shuffle(types)
        self._types = _Chances(zipf(types))
        self._photos = {name: by_type.get(name, anywhere) for name in types}
        for files in (*by_type.values(), anywhere):
            order.shuffle(files)  # the first ones are hot
        catalogue = list(TRAINED_TYPES)
        order.shuffle(catalogue)
        self._products = _Chances(zipf(catalogue))

    def ask(self, number: int) -> Ask:
        """The same for the same seed, photos and number, whatever else was asked for."""
        rng = random.Random(f"{self._seed}/{number}")
        pipeline = self._pipelines.draw(rng)
        count, client = self._batches.draw(rng), self._clients.draw(rng)
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
        product_type = self._types.draw(rng)
        files = self._photos[product_type]
        among = max(1, round(HOT_PART * len(files))) if rng.random() < HOT_REQUESTS else len(files)
        return product_type, files[rng.randrange(among)]

    def _product(self, rng: random.Random) -> Item:
        return draw_item(np.random.default_rng(rng.randrange(2**32)), (self._products.draw(rng),))


class _Chances:
    """Values drawn in proportion to their shares."""

    def __init__(self, shares: Mapping) -> None:
        self._values, self._sums = list(shares), list(accumulate(shares.values()))

    def draw(self, rng: random.Random):  # type: ignore[no-untyped-def]
        return rng.choices(self._values, cum_weights=self._sums)[0]


def zipf(names: Sequence[str]) -> dict[str, float]:
    """Shares of names in the order of their rank."""
    return {name: 1 / rank for rank, name in enumerate(names, start=1)}


def read_photos(folder: Path) -> dict[str, list[bytes]]:
    """Files by what ``photos.csv`` says they show, else by the name of their subfolder, "" for those at the top.

    Of very many, some from everywhere. Raises SystemExit where there is none.
    """
    found: dict[str, list[bytes]] = {}
    photos = find_photos(folder, "")
    for path, product_type in photos[:: -(-len(photos) // MOST_PHOTOS)]:
        shown = product_type or ("" if path.parent == folder else path.parent.name)
        found.setdefault(shown, []).append(path.read_bytes())
    return found


def require_folder(text: str) -> None:
    """Raises ValueError for what is no folder."""
    if text and not Path(text).is_dir():
        raise ValueError(f"no such folder: {text}")


def drawn_photos(folder: Path = DRAWN_FOLDER) -> Path:
    """A folder of drawn photos, drawn unless it is there: in a process of its own, for callers in gevent."""
    if not folder.is_dir():
        command = [sys.executable, "-m", "benchmarks.traffic", "--out", str(folder.resolve())]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def draw_photos(folder: Path, types: Sequence[str] = TRAINED_TYPES, each: int = 2, seed: int = 5) -> None:
    """Write ``each`` scenes of every product type as FOLDER/TYPE/NUMBER.jpg. The folder appears when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun = Path(tempfile.mkdtemp(prefix=".photos-", dir=folder.parent))
    try:
        rng, chance = np.random.default_rng(seed), random.Random(seed)
        items = [draw_item(rng, (name,)) for _ in range(each) for name in types]
        for number, photo in enumerate(draw_each(items, seed)):
            factor = chance.choices(list(ENLARGED), list(ENLARGED.values()))[0]
            kind = begun / photo.items[0].product_type
            kind.mkdir(exist_ok=True)
            (kind / f"{number:05d}.jpg").write_bytes(_enlarge(photo.jpeg, factor))
        begun.chmod(0o755)
        begun.rename(folder)
    except OSError:
        if not folder.is_dir():  # drawn by another process in the meantime
            raise
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _enlarge(file: bytes, factor: float) -> bytes:
    if factor == 1:
        return file
    pixels = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR))
    pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traffic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DRAWN_FOLDER, help="folder to write (%(default)s)")
    parser.add_argument("--each", type=int, default=2, help="photos of every product type (%(default)s)")
    args = parser.parse_args()
    draw_photos(args.out, each=args.each)


if __name__ == "__main__":
    main()
