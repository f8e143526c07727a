"""The crops that the agent gets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.enrich.photo import crop, show


def opened(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)


def canvas() -> np.ndarray:
    """Red where the product is, x 20 to 40 and y 10 to 30, else blue; 60 by 50 pixels of 64 by 64 are the photo's."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:50, :60] = (0, 0, 255)
    pixels[10:30, 20:40] = (255, 0, 0)
    return pixels


@pytest.mark.parametrize(
    ("size", "box", "hw"),
    [
        pytest.param((50, 60, 50, 60), (20, 10, 40, 30), (20, 20), id="as large as the original"),
        pytest.param((50, 60, 500, 600), (200, 100, 400, 300), (20, 20), id="shrunk"),
        pytest.param((50, 60, 50, 60), (20.4, 10.2, 39.5, 29.1), (20, 20), id="between pixels"),
        pytest.param((50, 60, 50, 60), (30, 20, 30, 20), (1, 1), id="no area"),
    ],
)
def test_crops_the_product(size: tuple[int, ...], box: tuple[float, ...], hw: tuple[int, int]) -> None:
    shown = opened(crop(canvas(), np.array(size, np.int32), np.array(box, np.float32)))
    assert shown.shape == (*hw, 3)
    assert np.abs(shown - (255, 0, 0)).max() < 60


@pytest.mark.parametrize("box", [(-9, -9, 90, 90), (0, 0, 60, 50)])
def test_a_crop_stays_inside_the_photo(box: tuple[float, ...]) -> None:
    assert opened(crop(canvas(), np.array((50, 60, 50, 60), np.int32), np.array(box, np.float32))).shape == (50, 60, 3)


def test_asks_only_about_rows_with_images() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(model: str, outputs: list[str], **inputs: np.ndarray) -> dict[str, np.ndarray]:
        asked.append((model, {name: values.ravel().tolist() for name, values in inputs.items()}))
        all_outputs = {
            "CANVAS": np.stack([canvas()] * 2),
            "SIZE": np.array([[50, 60, 50, 60], [0, 0, 0, 0]], np.int32),
            "DECODED": np.array([[0], [2]], np.int32),
            "BOX": np.array([[20, 10, 40, 30], [0, 0, 0, 0]], np.float32),
        }
        return {name: all_outputs[name] for name in outputs}

    shown = show(ask, [b"", b"photo", b"broken", b""], ["a", "mug", "größe", "d"])
    assert [bool(one) for one in shown] == [False, True, False, False]
    assert opened(shown[1]).shape == (20, 20, 3)
    files = [b"photo", b"broken"]
    assert asked == [
        ("decode", {"IMAGE": files}),
        ("ground", {"IMAGE": files, "PRODUCT_TYPE": [b"mug", "größe".encode()]}),
    ]
    asked.clear()
    assert show(ask, [b"", b""], ["a", "b"]) == [b"", b""]
    assert not asked
