"""Photos for the benchmarks: scenes drawn from the synthetic catalogue, or the files of a folder."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from training.catalogue.items import TRAINED_TYPES, draw_item
from training.catalogue.scenes import Photo, scene

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
Sample = tuple[bytes, str]
"""An encoded photo, and the product type to look for in it."""
Block = tuple[int, int, Sequence[str]]
"""The arguments of ``draw_scenes``: count, seed, product types."""


def draw_scenes(count: int, seed: int, types: Sequence[str] = TRAINED_TYPES) -> list[Photo]:
    """Draw ``count`` scenes. Each shows a new item of one of the types among other items, of the trained types."""
    rng = np.random.default_rng([seed, len(types)])
    items = [draw_item(rng, tuple(types)) for _ in range(count)]
    others = [draw_item(rng) for _ in range(max(count, 40))]
    return [scene(rng, item, others) for item in items]


def draw_blocks(blocks: Sequence[Block]) -> list[Photo]:
    """Draw blocks of scenes on all cores. Each block has its own seed and its own other items."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=cv2.setNumThreads, initargs=(1,)) as workers:
        return [photo for photos in workers.map(_draw_block, blocks) for photo in photos]


def _draw_block(block: Block) -> list[Photo]:
    return draw_scenes(*block)


def find_photos(folder: Path, product_type: str) -> list[tuple[Path, str]]:
    """The photos of a folder, at any depth, each with its product type.

    If the folder has a ``photos.csv`` with the columns ``file`` and ``product_type``, it lists the photos. Otherwise
    every photo has the given product type. Raises SystemExit if there is no photo.
    """
    if (folder / "photos.csv").is_file():
        with (folder / "photos.csv").open(newline="", encoding="utf-8") as table:
            photos = [(folder / row["file"], row["product_type"]) for row in csv.DictReader(table)]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        photos = [(path, product_type) for path in paths]
    if not photos:
        raise SystemExit(f"no photos in {folder}: expected files ending in {', '.join(SUFFIXES)}")
    return photos


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--photos`` and ``--type``, which choose a folder of photos instead of drawn scenes."""
    parser.add_argument("--photos", type=Path, help="folder of photos (default: scenes of the synthetic catalogue)")
    parser.add_argument(
        "--type", default="product", help="product type of the photos, if there is no photos.csv (%(default)s)"
    )


def load_samples(folder: Path | None, product_type: str, count: int, seed: int) -> list[Sample]:
    """Read the photos of ``folder``; if it is None, draw ``count`` scenes."""
    if folder is None:
        return [(photo.jpeg, photo.items[0].product_type) for photo in draw_scenes(count, seed)]
    return [(path.read_bytes(), shown) for path, shown in find_photos(folder, product_type)]
