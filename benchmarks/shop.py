"""A shop to try: index a catalogue, and serve its gateway and page until Ctrl-C.

    python -m benchmarks.shop                                     600 drawn products in 1,000 scenes
    python -m benchmarks.shop --catalogue products.jsonl          your own: see `python -m search --help`

The server of the models runs as well, unless `--url` names one. The index is kept, so that the next start is fast.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from benchmarks.photos import draw_each
from benchmarks.target import parser_of, served
from search import __main__ as search
from training.catalogue.items import Item, draw_item

SEED, PRODUCTS, SCENES = 2027, 600, 1000
FOLDER = Path("build/shop")


def draw(folder: Path, products: int, scenes: int) -> Path:
    """Draw a catalogue as photos and products.jsonl, unless it is there already. Returns the path of the catalogue."""
    import numpy as np

    catalogue = folder / "products.jsonl"
    if catalogue.exists():
        return catalogue
    rng = np.random.default_rng(SEED)
    items = [draw_item(rng) for _ in range(products)]
    shown = [*range(products), *(int(n) for n in rng.integers(products, size=scenes - products))]
    print(f"Drawing {products} products in {scenes} scenes, which takes a minute …", file=sys.stderr)
    photos: dict[int, list[str]] = {}
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for number, (product, photo) in enumerate(zip(shown, draw_each([items[n] for n in shown], SEED), strict=True)):
        name = f"photos/{number:05d}.jpg"
        (folder / name).write_bytes(photo.jpeg)
        photos.setdefault(product, []).append(name)
    rows = [row(f"p{n:05d}", item, photos[n], rng.uniform(3, 90)) for n, item in enumerate(items)]
    scratch = catalogue.with_suffix(".tmp")
    scratch.write_text("".join(json.dumps(one) + "\n" for one in rows))
    scratch.replace(catalogue)
    return catalogue


def row(name: str, item: Item, photos: list[str], price: float) -> dict[str, object]:
    """A product of the catalogue, as a shop would describe it."""
    return {
        "id": name, "product_type": item.product_type, "title": item.title, "description": item.description,
        "photos": photos, "colour": item.colour, "pattern": item.pattern, "material": item.material,
        "price": round(price, 2),
    }  # fmt: skip


def index_of(catalogue: Path) -> Path:
    """The folder of a catalogue's index. Two catalogues of the same name have two."""
    place = hashlib.sha256(str(catalogue.resolve()).encode()).hexdigest()[:8]
    return Path("build") / f"shop-{catalogue.stem}-{place}"


def main() -> int:
    """Index the catalogue and serve it."""
    parser = parser_of("shop", __doc__, figures=False)
    parser.add_argument("--catalogue", type=Path, help="your products (default: a drawn catalogue)")
    parser.add_argument(
        "--index",
        help="folder or URL of the index (default: a folder of build for each catalogue)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the gateway (%(default)s)")
    parser.add_argument("--port", default="8080", help="port of the gateway (%(default)s)")
    args = parser.parse_args()
    catalogue = args.catalogue or draw(FOLDER, PRODUCTS, SCENES)
    index = args.index or str(index_of(catalogue) if args.catalogue else FOLDER / "index")
    with served(args.url) as url:
        places = ["--index", index, "--url", url]
        code = search.main(["index", str(catalogue), *places])
        if code not in (0, 3):
            return code
        return search.main(["serve", *places, "--host", args.host, "--port", args.port])


if __name__ == "__main__":
    sys.exit(main())
