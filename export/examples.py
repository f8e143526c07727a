"""Example inputs for tracing and for the gate. They are drawn, and the same on every machine."""

from __future__ import annotations

import numpy as np
from PIL import Image

ROWS = 8
"""Seven pictures and one image that could not be decoded."""
SIZES_WH = [(400, 533), (348, 348), (640, 480), (90, 61), (31, 500), (640, 37), (1, 1)]
"""Width and height of the pictures: upright, square, wide, small, thin, flat, a single pixel."""

BOXES = [
    (37.25, 80.5, 301.75, 460.0),
    (0.0, 0.0, 348.0, 348.0),
    (310.5, 200.2, 630.9, 410.4),
    (88.0, 10.0, 400.0, 60.0),  # beyond the edge
    (10.0, 490.5, 10.2, 490.75),  # less than a pixel
    (5.0, 5.0, 1.0, 1.0),  # inverted
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.0, 0.0),
]
"""A detector's box for each row, in canvas pixels."""
SCORES = [0.9, 0.7, 0.5, 0.9, 0.8, 0.6, 0.0, 0.9]

TEXTS = [
    "a photo of a red mug",
    "",
    "Women's T-Shirt, 100% cotton (navy/white) - 2-pack!",
    "café crème brûlée &amp; naïve Größe №5",
    "红色马克杯 🍎🧀 👩‍👩‍👧",
    "striped wool jumper " * 60,
    "  \t Lamp\u00a0with “fringes”\n",
    "don't we'll I'm it's 1234567890 x2 ½ ΣΟΦΟΣ İstanbul",
    "\ufb01ne \uff26\uff55\uff4c\uff4c width \x07\x1b[31mred\x1b[0m <b>bold</b> &lt;i&gt; &eacute; &#39;",
    "!!! ... --- ___ *** €5.99 £3 $2",
]


def picture(number: int, width: int, height: int) -> Image.Image:
    """Gradients, hard edges and noise, which show errors of resampling."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / random.uniform(3, 60) + y / random.uniform(3, 60) + phase) for phase in (0.0, 2.0, 4.0)]
    image = 127.5 + 100.0 * np.stack(waves, axis=-1) + random.normal(0.0, 12.0, (height, width, 3))
    for _ in range(12):
        left, top = random.integers(0, width), random.integers(0, height)
        block = (slice(top, top + max(1, height // 5)), slice(left, left + max(1, width // 6)))
        image[block] = random.integers(0, 256, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def pictures() -> list[Image.Image]:
    return [picture(number, *wh) for number, wh in enumerate(SIZES_WH)]


def canvases(images: list[Image.Image], side: int) -> tuple[np.ndarray, np.ndarray, list[Image.Image]]:
    """The outputs of ``decode``: canvases (B, S, S, 3) and sizes (B, 4); and the images as they lie on the canvas."""
    canvas = np.zeros((len(images), side, side, 3), np.uint8)
    size = np.zeros((len(images), 4), np.int32)
    placed = []
    for row, image in enumerate(images):
        shrunk = image
        if max(image.size) > side:
            scale = side / max(image.size)
            wh = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            shrunk = image.resize(wh, Image.Resampling.BICUBIC, reducing_gap=None)
        canvas[row, : shrunk.height, : shrunk.width] = np.asarray(shrunk)
        size[row] = shrunk.height, shrunk.width, image.height, image.width
        placed.append(shrunk)
    return canvas, size, placed
