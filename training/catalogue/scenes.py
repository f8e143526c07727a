"""Photos of items with true boxes: packshots on white, and scenes of several items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from training.catalogue.art import render
from training.catalogue.backgrounds import paint_background
from training.catalogue.items import Item

_SIZES = ((360, 360), (400, 320), (320, 400), (420, 300), (320, 320))
_MASTER = 288  # side in pixels of the rendered drawing (300 units), which is scaled down for each photo


@dataclass(frozen=True)
class Photo:
    """An encoded photo and its products.

    ``jpeg``: the file; ``items``: the products, with the subject of the photo first; ``boxes_xyxy``: float32 [N, 4],
    the box around the visible part of each product, in pixels; ``size_wh``: width and height in pixels.
    """

    jpeg: bytes
    items: tuple[Item, ...]
    boxes_xyxy: np.ndarray
    size_wh: tuple[int, int]


def packshot(item: Item, rng: np.random.Generator, side: int = 320) -> Photo:
    """A photo of the item alone: upright, on white, lit from the upper left."""
    canvas = np.full((side, side, 3), 252, np.float32)
    sprite = _sprite(item, side * rng.uniform(0.82, 0.94) / (_MASTER * 200 / 300))
    h, w = sprite.shape[:2]
    owner = np.zeros((side, side), np.int8)
    _paste(canvas, owner, 1, sprite, (side - w) // 2, (side - h) // 2, shadow=0.3)
    return Photo(_jpeg(canvas, 92), (item,), _boxes(owner, 1), (side, side))


def scene(rng: np.random.Generator, target: Item, pool: Sequence[Item]) -> Photo:
    """A photo of ``target`` among 3 to 5 products of other types from ``pool``. Raises ValueError if it has too few."""
    items = [target]
    for _ in range(int(rng.integers(3, 6))):
        taken = {item.product_type for item in items}
        items.append(_draw(rng, [item for item in pool if item.product_type not in taken]))
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    ground = paint_background(rng, width, height).astype(np.float32)
    while True:
        canvas, owner = ground.copy(), np.zeros((height, width), np.int8)
        visible = _arrange(canvas, owner, items, rng)
        if visible[0] > 0.6 and min(visible) > 0.35:
            break
    return Photo(
        _jpeg(_light(canvas, rng), int(rng.integers(55, 95))), tuple(items), _boxes(owner, len(items)), (width, height)
    )


def _draw(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    if not items:
        raise ValueError("the pool has too few product types for a scene: it needs at least 6")
    return items[int(rng.integers(len(items)))]


def _arrange(canvas: np.ndarray, owner: np.ndarray, items: list[Item], rng: np.random.Generator) -> list[float]:
    """Place the items in random depth order. Returns the visible fraction of each item, 0 to 1."""
    height, width = owner.shape
    columns = 3 if width >= height and len(items) > 4 else 2
    rows = -(-len(items) // columns)
    cells = rng.permutation(rows * columns)[: len(items)]
    whole = np.zeros(len(items))
    for index in rng.permutation(len(items)):
        cell_w, cell_h = width / columns, height / rows
        scale = min(cell_w, cell_h) * rng.uniform(0.62, 1.22) / (_MASTER * 200 / 300)
        turn = rng.normal(0, 14) if rng.random() < 0.85 else rng.uniform(-60, 60)
        sprite = _sprite(items[index], scale, float(turn), flip=bool(rng.random() < 0.5))
        h, w = sprite.shape[:2]
        cx = (cells[index] % columns + 0.5 + rng.uniform(-0.24, 0.24)) * cell_w
        cy = (cells[index] // columns + 0.5 + rng.uniform(-0.24, 0.24)) * cell_h
        x, y = int(cx - w / 2), int(cy - h / 2)
        whole[index] = (sprite[..., 3] > 0.5).sum()
        _paste(canvas, owner, int(index) + 1, sprite, x, y, shadow=float(rng.uniform(0.25, 0.5)))
    seen = np.bincount(owner.ravel(), minlength=len(items) + 1)[1:]
    return list(seen / np.maximum(whole, 1))


@lru_cache(maxsize=8192)
def _master(item: Item) -> np.ndarray:
    """The upright drawing, cropped to its visible pixels: RGBA uint8."""
    image = render(item.art().svg(), _MASTER, _MASTER)
    ys, xs = np.nonzero(image[..., 3] > 4)
    return image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].copy()


def _sprite(item: Item, scale: float, turn: float = 0, flip: bool = False) -> np.ndarray:
    """The drawing, scaled, rotated by ``turn`` degrees and mirrored: RGBA float32, premultiplied, alpha 0 to 1."""
    image: np.ndarray = _master(item).astype(np.float32)
    image[..., 3] /= 255
    image[..., :3] *= image[..., 3:]
    h, w = (max(round(n * scale), 4) for n in image.shape[:2])
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    if flip:
        image = image[:, ::-1]
    if turn:
        matrix = cv2.getRotationMatrix2D((w / 2 - 0.5, h / 2 - 0.5), turn, 1)
        cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
        turned_w, turned_h = int(h * sine + w * cosine) + 2, int(h * cosine + w * sine) + 2
        matrix[:, 2] += (turned_w - w) / 2, (turned_h - h) / 2
        image = cv2.warpAffine(image, matrix, (turned_w, turned_h), flags=cv2.INTER_LINEAR)
    return image


def _paste(
    canvas: np.ndarray, owner: np.ndarray, number: int, sprite: np.ndarray, x: int, y: int, shadow: float
) -> None:
    """Draw a sprite and its shadow onto the canvas in place, and mark the sprite's pixels in ``owner``."""
    reach = max(sprite.shape[:2]) // 8
    alpha = cv2.copyMakeBorder(sprite[..., 3], reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    cast = cv2.blur(cv2.blur(alpha, (reach, reach)), (reach, reach))
    target, source = _overlap(canvas, cast, x - reach + reach // 3, y - reach + reach // 2)
    canvas[target] *= 1 - shadow * cast[source][..., None]
    target, source = _overlap(canvas, sprite, x, y)
    colour, alpha = sprite[source][..., :3], sprite[source][..., 3:]
    canvas[target] = canvas[target] * (1 - alpha) + colour
    owner[target][alpha[..., 0] > 0.5] = number


def _overlap(canvas: np.ndarray, layer: np.ndarray, x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The overlap of the canvas and a layer whose corner is at x, y: slices of the canvas and of the layer."""
    height, width = canvas.shape[:2]
    h, w = layer.shape[:2]
    x0, y0 = min(max(x, 0), width), min(max(y, 0), height)
    x1, y1 = max(min(x + w, width), x0), max(min(y + h, height), y0)
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def _light(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the effects of a camera: exposure, colour and direction of the light, lens blur and sensor noise."""
    height, width = canvas.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, width)[None] * np.cos(angle) + np.linspace(-1, 1, height)[:, None] * np.sin(angle)
    gain = (rng.uniform(0.78, 1.12) * (1 + rng.uniform(0, 0.22) * ramp)).astype(np.float32)
    canvas = canvas * gain[..., None] * rng.uniform(0.93, 1.05, 3).astype(np.float32)
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.1))
    noise = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, 6))
    return canvas + noise


def _boxes(owner: np.ndarray, count: int) -> np.ndarray:
    """The boxes around the products' visible pixels: float32 [count, 4], x0 y0 x1 y1."""
    boxes = np.zeros((count, 4), np.float32)
    for index in range(count):
        ys, xs = np.nonzero(owner == index + 1)
        boxes[index] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return boxes


def _jpeg(canvas: np.ndarray, quality: int) -> bytes:
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    ok, file = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return file.tobytes()
