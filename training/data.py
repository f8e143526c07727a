"""The training set: catalogue photos as arrays on disk, drawn once and mapped into memory."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from training.catalogue.art import decode
from training.catalogue.items import Item, draw_item
from training.catalogue.scenes import Photo, packshot, scene

PHOTO_SIDE = 320
CROP_SIDE = 144
CROP_MARGIN = 0.12
"""Margin around the box in a stored crop, as a fraction of the box's side. Training jitters the box within it."""

_CHUNK = 250
_PACKSHOTS = 25


@dataclass(frozen=True)
class Dataset:
    """Photos and the products in them.

    ``photos``: uint8 [N, 320, 320, 3], RGB, letterboxed; ``crops``: uint8 [M, 144, 144, 3], RGB, one for each product,
    with ``CROP_MARGIN`` around it, squashed to a square; ``boxes_xyxy``: float32 [M, 4], in pixels of the letterboxed
    photo; ``photo_of``: int [M], the photo of each product; ``items``: the M products.
    """

    photos: np.ndarray
    crops: np.ndarray
    boxes_xyxy: np.ndarray
    photo_of: np.ndarray
    items: list[Item]


def make(folder: Path, *, scenes: int, seed: int) -> Dataset:
    """Load the training set from ``folder``. If it is not there yet, draw it on all processor cores first."""
    name = f"{scenes}-{seed}"
    if not (folder / f"items-{name}.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, name, scenes, seed)
    labels = json.loads((folder / f"items-{name}.json").read_text())
    return Dataset(
        photos=np.load(folder / f"photos-{name}.npy", mmap_mode="r"),
        crops=np.load(folder / f"crops-{name}.npy", mmap_mode="r"),
        boxes_xyxy=np.array([label["box"] for label in labels], np.float32),
        photo_of=np.array([label["photo"] for label in labels]),
        items=[Item(**label["item"]) for label in labels],
    )


def letterbox(image: np.ndarray, side: int) -> tuple[np.ndarray, float, int, int]:
    """Fit an image into a grey square. Returns the square, the scale, the left margin and the top margin."""
    h, w = image.shape[:2]
    scale = side / max(h, w)
    new_w, new_h = round(w * scale), round(h * scale)
    left, top = (side - new_w) // 2, (side - new_h) // 2
    square = np.full((side, side, 3), 114, np.uint8)
    square[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    return square, scale, left, top


def _write(folder: Path, name: str, scenes: int, seed: int) -> None:
    photos: list[np.ndarray] = []
    crops: list[np.ndarray] = []
    labels: list[dict[str, Any]] = []
    chunks = [(seed, index) for index in range(-(-scenes // _CHUNK))]
    with multiprocessing.get_context("spawn").Pool() as workers:
        for chunk in tqdm(workers.imap(_chunk, chunks), total=len(chunks), desc="catalogue", unit=f"x{_CHUNK} photos"):
            for label in chunk[2]:
                label["photo"] += sum(len(stack) for stack in photos)
            photos.append(chunk[0])
            crops.append(chunk[1])
            labels += chunk[2]
    np.save(folder / f"photos-{name}.npy", np.concatenate(photos))
    np.save(folder / f"crops-{name}.npy", np.concatenate(crops))
    (folder / f"items-{name}.json").write_text(json.dumps(labels))


def _chunk(key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """The photos, crops and labels of one chunk. They depend only on the key, not on the machine."""
    cv2.setNumThreads(1)
    photos, crops, labels = [], [], []
    for index, photo in enumerate(_photos(np.random.default_rng(key))):
        image = decode(photo.jpeg)
        square, scale, left, top = letterbox(image, PHOTO_SIDE)
        photos.append(square)
        for item, box in zip(photo.items, photo.boxes_xyxy, strict=True):
            crops.append(_crop(image, box))
            label = (box * scale + np.array([left, top, left, top])).round(2).tolist()
            labels.append({"photo": index, "box": label, "item": asdict(item)})
    return np.stack(photos), np.stack(crops), labels


def _photos(rng: np.random.Generator) -> Iterator[Photo]:
    pool = [draw_item(rng, training=True) for _ in range(_CHUNK)]
    for target in pool:
        yield scene(rng, target, pool)
    for item in pool[:_PACKSHOTS]:
        yield packshot(item, rng)


def _crop(image: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    """The box with its margin: uint8 [144, 144, 3]. Outside the photo, its border is repeated."""
    x0, y0, x1, y1 = box_xyxy
    size = np.array([x1 - x0, y1 - y0]) * (1 + 2 * CROP_MARGIN)
    scale = CROP_SIDE / size
    centre = np.array([x0 + x1, y0 + y1]) / 2
    if scale.max() < 1:
        blur = max(round(1 / scale.max()), 1)
        image = cv2.blur(image, (blur, blur)) if blur > 1 else image
    shift = CROP_SIDE / 2 - scale * centre
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(
        image, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
