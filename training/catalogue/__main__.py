"""Draw two overview pictures of the catalogue: a packshot of every product type, and some scenes with their boxes.

python -m training.catalogue --out build/catalogue --seed 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from training.catalogue.art import COLOURS, PATTERNS, decode
from training.catalogue.items import Item, draw_item
from training.catalogue.products import REGISTRY
from training.catalogue.scenes import packshot, scene


def types_sheet(seed: int, side: int = 120, columns: int = 12) -> np.ndarray:
    """A packshot of every type: RGB uint8 [rows * side, columns * side, 3]."""
    rng = np.random.default_rng(seed)
    shots = []
    for index, (name, kind) in enumerate(sorted(REGISTRY.items())):
        colour, pattern = list(COLOURS)[index % len(COLOURS)], PATTERNS[(index // 3) % len(PATTERNS)]
        item = Item(name, colour, pattern, kind.materials[0], "everyone", int(rng.integers(2**31)))
        shots.append(decode(packshot(item, rng, side).jpeg))
    return _grid(shots, columns, side, side)


def scenes_sheet(seed: int, count: int = 20, columns: int = 5) -> np.ndarray:
    """Scenes with a pink box around the subject and white boxes around the other items: RGB uint8."""
    rng = np.random.default_rng(seed)
    pool = [draw_item(rng) for _ in range(60)]
    tiles = []
    for target in pool[:count]:
        photo = scene(rng, target, pool)
        pixels = decode(photo.jpeg)
        for index, (x0, y0, x1, y1) in enumerate(photo.boxes_xyxy.astype(int).tolist()):
            cv2.rectangle(pixels, (x0, y0), (x1 - 1, y1 - 1), (255, 45, 111) if index == 0 else (255, 255, 255), 2)
        tiles.append(pixels)
    return _grid(tiles, columns, 400, 420)


def _grid(tiles: list[np.ndarray], columns: int, height: int, width: int) -> np.ndarray:
    sheet = np.full((-(-len(tiles) // columns) * height, columns * width, 3), 252, np.uint8)
    for index, tile in enumerate(tiles):
        h, w = tile.shape[:2]
        y, x = index // columns * height + (height - h) // 2, index % columns * width + (width - w) // 2
        sheet[y : y + h, x : x + w] = tile
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.catalogue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/catalogue"), help="folder for types.jpg and scenes.jpg (%(default)s)")
    add("--seed", type=int, default=7, help="seed of the random items (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, sheet in (("types", types_sheet(args.seed)), ("scenes", scenes_sheet(args.seed))):
        path = args.out / f"{name}.jpg"
        cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        print(path)


if __name__ == "__main__":
    main()
