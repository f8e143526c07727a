"""Photos of items: packshots on white, and scenes in which the item stands among others, with true boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.catalogue.art import render
from training.catalogue.backgrounds import paint_background
from training.catalogue.items import TRAINED_TYPES, Item, draw_item

_SIZES = ((360, 360), (400, 320), (320, 400), (420, 300), (320, 320))


@dataclass(frozen=True)
class Photo:
    """An encoded photo and what is in it.

    ``jpeg``: the file; ``items``: the products, the one it was taken of first; ``boxes_xyxy``: float32 [N, 4],
    what can be seen of each, in pixels; ``size_wh``: width and height in pixels.
    """

    jpeg: bytes
    items: tuple[Item, ...]
    boxes_xyxy: np.ndarray
    size_wh: tuple[int, int]


def packshot(item: Item, rng: np.random.Generator, side: int = 320) -> Photo:
    """The item alone on white, upright, lit from the upper left."""
    canvas = np.full((side, side, 3), 252, np.float32)
    sprite = _sprite(item, int(side * rng.uniform(0.82, 0.94)), 0)
    h, w = sprite.shape[:2]
    owner = np.zeros((side, side), np.int8)
    _paste(canvas, owner, 1, sprite, (side - w) // 2, (side - h) // 2, shadow=0.3)
    return Photo(_jpeg(canvas, 92), (item,), _boxes(owner, 1), (side, side))


def scene(
    rng: np.random.Generator,
    types: tuple[str, ...] = TRAINED_TYPES,
    *,
    target: Item | None = None,
    others: int | None = None,
    training: bool = False,
) -> Photo:
    """A photo of ``target`` (by default a random item of ``types``) among 3 to 5 products of other types.

    ``training`` keeps held-out combinations of attributes out of it.
    """
    target = target or draw_item(rng, types, training=training)
    items = [target]
    while len(items) < 1 + (others or int(rng.integers(3, 6))):
        item = draw_item(rng, training=training)
        if all(item.product_type != other.product_type for other in items):
            items.append(item)
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


def _arrange(canvas: np.ndarray, owner: np.ndarray, items: list[Item], rng: np.random.Generator) -> list[float]:
    """Put every item somewhere, in random depth order; returns the part of each that remains visible, 0 to 1."""
    height, width = owner.shape
    columns = 3 if width >= height and len(items) > 4 else 2
    rows = -(-len(items) // columns)
    cells = rng.permutation(rows * columns)[: len(items)]
    whole = np.zeros(len(items))
    for index in rng.permutation(len(items)):
        cell_w, cell_h = width / columns, height / rows
        side = min(cell_w, cell_h) * rng.uniform(0.62, 1.22)
        turn = rng.normal(0, 14) if rng.random() < 0.85 else rng.uniform(-60, 60)
        sprite = _sprite(items[index], int(side), float(turn), flip=bool(rng.random() < 0.5))
        h, w = sprite.shape[:2]
        cx = (cells[index] % columns + 0.5 + rng.uniform(-0.24, 0.24)) * cell_w
        cy = (cells[index] // columns + 0.5 + rng.uniform(-0.24, 0.24)) * cell_h
        x, y = int(cx - w / 2), int(cy - h / 2)
        whole[index] = (sprite[..., 3] > 0.5).sum()
        _paste(canvas, owner, int(index) + 1, sprite, x, y, shadow=float(rng.uniform(0.25, 0.5)))
    seen = np.bincount(owner.ravel(), minlength=len(items) + 1)[1:]
    return list(seen / np.maximum(whole, 1))


def _sprite(item: Item, side: int, turn: float, flip: bool = False) -> np.ndarray:
    """The drawing cut to what is painted: RGBA float32, colours 0 to 255, alpha 0 to 1."""
    image = render(item.art().svg(turn), int(side * 1.5)).astype(np.float32)
    image[..., 3] /= 255
    ys, xs = np.nonzero(image[..., 3] > 0.02)
    image = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return image[:, ::-1] if flip else image


def _paste(canvas: np.ndarray, owner: np.ndarray, number: int, sprite: np.ndarray, x: int, y: int, shadow: float) -> None:
    """Lay a sprite and its shadow over the canvas, in place, and note whose pixels they are now."""
    height, width = owner.shape
    margin = max(sprite.shape[:2]) // 8
    alpha = cv2.copyMakeBorder(sprite[..., 3], margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    cast = cv2.blur(cv2.blur(alpha, (margin, margin)), (margin, margin))
    for layer, left, top, opacity in (
        (cast, x - margin + margin // 3, y - margin + margin // 2, shadow),
        (sprite[..., 3], x, y, 1.0),
    ):
        h, w = layer.shape
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, width), min(top + h, height)
        if x0 >= x1 or y0 >= y1:
            continue
        a = layer[y0 - top : y1 - top, x0 - left : x1 - left, None] * opacity
        paint = sprite[y0 - y : y1 - y, x0 - x : x1 - x, :3] if layer.shape == sprite.shape[:2] else 0.0
        region = canvas[y0:y1, x0:x1]
        region += a * (paint - region)
        if layer.shape == sprite.shape[:2]:
            owner[y0:y1, x0:x1][a[..., 0] > 0.5] = number


def _light(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, the colour and direction of the light, lens blur and sensor noise."""
    height, width = canvas.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, width)[None] * np.cos(angle) + np.linspace(-1, 1, height)[:, None] * np.sin(angle)
    gain = rng.uniform(0.78, 1.12) * (1 + rng.uniform(0, 0.22) * ramp)
    canvas = canvas * gain[..., None].astype(np.float32) * rng.uniform(0.93, 1.05, 3).astype(np.float32)
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.1))
    noise = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, 6))
    return canvas + noise


def _boxes(owner: np.ndarray, count: int) -> np.ndarray:
    """The box around each product's visible pixels: float32 [count, 4], x0 y0 x1 y1."""
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
