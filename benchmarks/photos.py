"""Photos for the benchmarks: scenes drawn from the synthetic catalogue, or the files of a folder."""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
    # A process that is forked beside threads, can wait for ever for a lock that one of them held.
    clean = multiprocessing.get_context("forkserver")
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, clean, initializer=cv2.setNumThreads, initargs=(1,)) as workers:
        return [photo for photos in workers.map(_draw_block, blocks, seeds) for photo in photos]


def _draw_block(items: Sequence[Item], seed: int) -> list[Photo]:
    rng = np.random.default_rng(seed)
    others = [*items, *(draw_item(rng) for _ in range(BLOCK - len(items)))]
    return [scene(rng, item, others) for item in items]


PATHS, TYPES = ("path", "file"), ("type", "product_type")
"""Names of the columns of a table of photos, the usual one first."""


class OwnPhoto(NamedTuple):
    """A user's photo. ``label`` is a text that says more than the product type, such as "red mug", if one is known."""

    path: Path
    product_type: str
    label: str = ""


def find_photos(source: Path, product_type: str = "", otherwise: str = "product") -> list[OwnPhoto]:
    """The photos of a CSV table, or of a folder at any depth.

    A table has the columns ``path``, relative to it, and ``type``, and may have ``label``; in a folder it is called
    ``photos.csv``. A photo has the type of the table, else ``product_type``, else the name of its subfolder, else
    ``otherwise``. Raises SystemExit if there is no photo, or if the table is wrong.
    """
    table = source / "photos.csv" if source.is_dir() else source
    if table.is_file():
        photos = read_table(table)
    elif source.is_dir():
        photos = [OwnPhoto(path, "") for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES]
    else:
        raise SystemExit(f"there is no folder or table {source}")
    if not photos:
        raise SystemExit(f"no photos in {source}: expected files ending in {', '.join(SUFFIXES)}")

    def type_of(photo: OwnPhoto) -> str:
        is_inside = photo.path.is_relative_to(table.parent)
        *folders, _ = photo.path.relative_to(table.parent).parts if is_inside else (photo.path.name,)
        return photo.product_type or product_type or "".join(folders[:1]) or otherwise

    return [photo._replace(product_type=type_of(photo)) for photo in photos]


def read_table(table: Path) -> list[OwnPhoto]:
    """The photos of a CSV table, with the types that it names. Raises SystemExit."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (ValueError, csv.Error) as error:
        raise SystemExit(f"{table} is not a CSV table in UTF-8: {error}") from None
    path, kind = (next((name for name in names if name in columns), None) for names in (PATHS, TYPES))
    if path is None or kind is None:
        raise SystemExit(f"{table} must have the columns path and type (and may have label), got {', '.join(columns)}")
    photos = [
        OwnPhoto(table.parent / row[path], (row[kind] or "").strip(), (row.get("label") or "").strip()) for row in rows
    ]
    for photo in photos:
        if not photo.path.is_file():
            raise SystemExit(f"{table} names {photo.path}, which is not a file")
    return photos


def add_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add ``--photos`` and ``--type``, which choose a folder of photos; without ``required`` scenes can be drawn."""
    otherwise = "" if required else " (default: scenes of the synthetic catalogue)"
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="PATH",
        required=required,
        help="folder of photos, with a subfolder for each product type, or CSV table with the columns path and type"
        + otherwise,
    )
    parser.add_argument("--type", default="", help="product type of all photos that have none in a table")


def load_samples(folder: Path | None, product_type: str, count: int, seed: int) -> list[Sample]:
    """Read the photos of ``folder``; if it is None, draw ``count`` scenes."""
    if folder is None:
        return [(photo.jpeg, photo.items[0].product_type) for photo in draw_scenes(count, seed)]
    return [(photo.path.read_bytes(), photo.product_type) for photo in find_photos(folder, product_type)]
