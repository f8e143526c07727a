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

from training.catalogue.items import TRAINED_TYPES, Item, draw_item
from training.catalogue.scenes import Photo, scene

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
Sample = tuple[bytes, str]
"""An encoded photo, and the product type to look for in it."""
BLOCK = 25
"""Scenes that a process draws from the same items: drawing an item for the first time takes as long as half a scene."""


def draw_scenes(count: int, seed: int, types: Sequence[str] = TRAINED_TYPES) -> list[Photo]:
    """Draw ``count`` scenes. Each shows a new item of one of the types among other items, of the trained types."""
    rng = np.random.default_rng([seed, len(types)])
    items = [draw_item(rng, tuple(types)) for _ in range(count)]
    others = [draw_item(rng) for _ in range(max(count, 40))]
    return [scene(rng, item, others) for item in items]


def draw_each(items: Sequence[Item], seed: int) -> list[Photo]:
    """Draw one scene of each item, on all cores. The other items of a scene are near it in ``items``."""
    blocks = [items[start : start + BLOCK] for start in range(0, len(items), BLOCK)]
    seeds = range(seed, seed + len(blocks))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=cv2.setNumThreads, initargs=(1,)) as workers:
        return [photo for photos in workers.map(_draw_block, blocks, seeds) for photo in photos]


def _draw_block(items: Sequence[Item], seed: int) -> list[Photo]:
    rng = np.random.default_rng(seed)
    others = [*items, *(draw_item(rng) for _ in range(BLOCK - len(items)))]
    return [scene(rng, item, others) for item in items]


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


def add_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add ``--photos`` and ``--type``, which choose a folder of photos; without ``required`` scenes can be drawn."""
    otherwise = "" if required else " (default: scenes of the synthetic catalogue)"
    parser.add_argument("--photos", type=Path, metavar="DIR", required=required, help=f"folder of photos{otherwise}")
    parser.add_argument(
        "--type", default="product", help="product type of the photos, if there is no photos.csv (%(default)s)"
    )


def load_samples(folder: Path | None, product_type: str, count: int, seed: int) -> list[Sample]:
    """Read the photos of ``folder``; if it is None, draw ``count`` scenes."""
    if folder is None:
        return [(photo.jpeg, photo.items[0].product_type) for photo in draw_scenes(count, seed)]
    return [(path.read_bytes(), shown) for path, shown in find_photos(folder, product_type)]
