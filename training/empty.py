"""Photos without any product: empty backgrounds, textures, unknown shapes and shuffled patches of other photos."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from training.catalogue.backgrounds import paint_background
from training.data import PHOTO_SIDE

_SIDE = PHOTO_SIDE
_Painter = Callable[[np.random.Generator], np.ndarray]


def draw_empty(rng: np.random.Generator, count: int, photos: np.ndarray) -> np.ndarray:
    """``count`` pictures, uint8 (count, 320, 320, 3), RGB, in which no product can be recognised.

    ``photos``: uint8 (N, 320, 320, 3). A quarter of the pictures are these photos with their patches shuffled.
    """
    painters: tuple[_Painter, ...] = (_background, _texture, _shapes, lambda rng: _shuffled(rng, photos))
    pictures = [painters[index % len(painters)](rng) for index in range(count)]
    return np.stack([_camera(rng, picture) for picture in pictures])


def _background(rng: np.random.Generator) -> np.ndarray:
    return paint_background(rng, _SIDE, _SIDE).astype(np.float32)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Smooth or rough noise between random colours, as of fur, foliage, clouds or stone."""
    colours = rng.uniform(0, 255, (3, 3)).astype(np.float32)
    first, second = _field(rng), _field(rng)
    mixed = colours[0] + first[..., None] * (colours[1] - colours[0])
    painted: np.ndarray = mixed + second[..., None] * rng.uniform(0, 0.8) * (colours[2] - mixed)
    return painted


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Rounded, jagged and straight shapes that are no product, with textures and shadows, on any ground."""
    picture = _background(rng) if rng.random() < 0.5 else _texture(rng)
    for _ in range(int(rng.integers(2, 14))):
        corners = int(rng.integers(3, 24))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = rng.uniform(8, 110) * rng.uniform(rng.uniform(0.3, 1), 1, corners)
        stretch = rng.uniform(0.25, 1, 2)
        points = np.stack([np.cos(angle) * radius * stretch[0], np.sin(angle) * radius * stretch[1]], 1)
        points += rng.uniform(0, _SIDE, 2)
        mask: np.ndarray = np.zeros((_SIDE, _SIDE), np.float32)
        if rng.random() < 0.2:
            cv2.polylines(mask, [points.astype(np.int32)], False, 1.0, int(rng.integers(1, 12)))
        else:
            cv2.fillPoly(mask, [points.astype(np.int32)], 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 8)) if rng.random() < 0.7 else mask
        if rng.random() < 0.5:
            mask = (mask > 0.5).astype(np.float32)
        shade = np.roll(cv2.blur(mask, (15, 15)), (6, 4), (0, 1))[..., None]
        fill = _texture(rng) if rng.random() < 0.4 else rng.uniform(0, 255, 3).astype(np.float32)
        light = 1 + rng.uniform(0, 0.5) * (_field(rng)[..., None] - 0.5)
        picture = picture * (1 - 0.35 * shade)
        picture = picture * (1 - mask[..., None]) + fill * light * mask[..., None]
    return picture


def _shuffled(rng: np.random.Generator, photos: np.ndarray) -> np.ndarray:
    """A photo whose patches of 16 to 40 pixels change places: its colours and textures without its products."""
    side = int(rng.choice((16, 20, 32, 40)))
    count = _SIDE // side
    photo = photos[int(rng.integers(len(photos)))]
    patches = photo.reshape(count, side, count, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    patches = patches[rng.permutation(len(patches))].reshape(count, count, side, side, 3)
    whole: np.ndarray = patches.swapaxes(1, 2).reshape(_SIDE, _SIDE, 3).astype(np.float32)
    return whole


def _field(rng: np.random.Generator) -> np.ndarray:
    """Noise of several scales, float32 (320, 320), from 0 to 1."""
    rough = rng.uniform(0.35, 0.95)
    field = np.zeros((_SIDE, _SIDE), np.float32)
    for octave in range(1, 8):
        cells = rng.standard_normal((2**octave, max(round(2**octave * rng.uniform(0.3, 1)), 2)), np.float32)
        field += np.float32(rough**octave) * cv2.resize(cells, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    spread = field.max() - field.min()
    scaled: np.ndarray = (field - field.min()) / spread
    return scaled


def _camera(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Exposure, blur, sensor noise and JPEG artefacts."""
    picture = picture * np.float32(rng.uniform(0.7, 1.15))
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 2.5))
    picture = picture + rng.standard_normal(picture.shape[:2], np.float32)[..., None] * np.float32(rng.uniform(0, 12))
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 95))])
    seen = cv2.imdecode(file, cv2.IMREAD_COLOR)
    if seen is None:
        raise RuntimeError("OpenCV could not read the JPEG that it wrote")
    return seen
