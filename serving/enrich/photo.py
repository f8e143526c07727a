"""Crops for the agent: it sees the grounded product of a photo, as the image encoder does, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Ask = Callable[..., dict[str, np.ndarray]]
"""Returns outputs of another model of the server: ``ask("ground", ["BOX"], IMAGE=…, PRODUCT_TYPE=…)``."""

QUALITY = 90


def show(ask: Ask, images: Sequence[bytes], product_types: Sequence[str]) -> list[bytes]:
    """The grounded crop of each image as a JPEG. It is empty if there is no image or ``decode`` cannot decode it.

    If nothing of the type is found, the crop is the whole image, as in all pipelines.
    """
    shown = [b""] * len(images)
    rows = [row for row, image in enumerate(images) if image]
    if not rows:
        return shown
    files = column([images[row] for row in rows])
    types = column([product_types[row].encode() for row in rows])
    decoded = ask("decode", ["CANVAS", "SIZE", "DECODED"], IMAGE=files)
    found = ask("ground", ["BOX"], IMAGE=files, PRODUCT_TYPE=types)
    for at, row in enumerate(rows):
        if not decoded["DECODED"][at, 0]:
            shown[row] = crop(decoded["CANVAS"][at], decoded["SIZE"][at], found["BOX"][at])
    return shown


def crop(canvas_rgb: np.ndarray, size: np.ndarray, box_xyxy: np.ndarray) -> bytes:
    """Crop a box from a canvas (S, S, 3), in whole pixels and at least one, and encode it as a JPEG.

    ``box_xyxy`` is in pixels of the original photo. ``size``: height and width on the canvas, then of the original.
    """
    height, width = size[:2]
    x0, y0, x1, y1 = box_xyxy * (np.tile(size[1::-1], 2) / np.tile(size[:1:-1], 2))
    left, top = min(int(max(x0, 0)), width - 1), min(int(max(y0, 0)), height - 1)
    right, bottom = max(int(np.ceil(min(x1, width))), left + 1), max(int(np.ceil(min(y1, height))), top + 1)
    bgr = canvas_rgb[top:bottom, left:right, ::-1]
    _, file = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return file.tobytes()


def column(values: Sequence[bytes]) -> np.ndarray:
    """The values as a tensor BYTES [N, 1]."""
    return np.array(values, object)[:, None]
