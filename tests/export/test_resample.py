"""The graph's pixels against PIL, open_clip's transform and ultralytics' letterbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor

from export.examples import canvases, picture
from export.images import Crop, Preprocess, Preprocessing, letterbox, snap_outwards
from export.quiet import quiet_ultralytics
from export.reference import crop_outwards
from serving.repository.specs import Status

SIDE = 256
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

WH = (230, 250)
BOXES = {
    "whole": (0, 0, 230, 250),
    "a pixel": (17, 20, 18, 21),
    "one column": (50, 0, 51, 250),
    "one row": (0, 60, 230, 61),
    "corner": (210, 230, 230, 250),
    "shrunk": (3, 2, 229, 249),
    "enlarged": (40, 40, 70, 75),
    "odd": (11, 7, 146, 120),
    "tall": (60, 1, 140, 250),
    "very tall": (101, 0, 113, 249),
    "wide": (2, 30, 228, 110),
    "very wide": (0, 17, 230, 28),
    "as large as the input": (5, 8, 69, 72),
    "as wide as the input": (5, 8, 69, 248),
    "as high as the input": (5, 8, 225, 72),
}


class RowsFirst(Image.Image):
    """Resizes rows, then columns, as PIL did for every shape before version 13."""

    @classmethod
    def of(cls, image: Image.Image) -> RowsFirst:
        same = cls()
        vars(same).update(vars(image))
        return same

    def resize(self, size: Any, resample: Any = None, box: Any = None, reducing_gap: Any = None) -> Image.Image:
        return super().resize((size[0], self.height), resample).resize(size, resample)


def grey(preprocessing: Preprocessing, image: Image.Image, boxes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The graph's grey levels of each box, with a canvas that shouts beyond the image."""
    canvas, _, _ = canvases([image], SIDE)
    canvas[0, image.height :] = 255
    canvas[0, :, image.width :] = 255
    repeated = torch.from_numpy(canvas).expand(len(boxes), -1, -1, -1)
    pixels: Tensor = Preprocess(preprocessing)(repeated, torch.tensor(boxes, dtype=torch.float32))
    return (pixels * 255).numpy()


def pil_grey(preprocessing: Preprocessing, image: Image.Image, box: tuple[int, ...]) -> np.ndarray:
    transform = image_transform(
        preprocessing.size,
        is_train=False,
        resize_mode=preprocessing.resize_mode,
        interpolation=preprocessing.interpolation,
        fill_color=(preprocessing.fill_color,) * 3,
        **PLAIN,
    )
    pixels: Tensor = transform(RowsFirst.of(crop_outwards(image, box)))
    return (pixels * 255).numpy()


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(("interpolation", "ties"), [("bicubic", 1e-3), ("bilinear", 3e-2)])
@pytest.mark.parametrize("size", [64, 97])
def test_pil_to_the_grey_level(mode: Any, interpolation: Any, ties: float, size: int) -> None:
    """But for exact halves, which PIL's fixed point rounds up or down; the second pass may enlarge the difference."""
    preprocessing = Preprocessing(size, **PLAIN, interpolation=interpolation, resize_mode=mode, fill_color=9)
    image = picture(1, *WH)
    for (name, box), came in zip(BOXES.items(), grey(preprocessing, image, list(BOXES.values())), strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        if mode == "longest" and round(min(width, height) * size / max(width, height)) == 0:
            continue  # open_clip asks PIL for an image without pixels
        difference = np.abs(came - pil_grey(preprocessing, image, box))
        assert difference.max() <= 2.01, name
        assert (difference > 0.01).mean() < ties, name


SNAPPED = {
    "already whole": ((10, 20, 30, 40), (10, 20, 30, 40)),
    "outwards": ((10.2, 20.9, 30.1, 40.0), (10, 20, 31, 40)),
    "beyond the edge": ((-5, -5, 500, 500), (0, 0, 100, 80)),
    "less than a pixel": ((10.4, 20.5, 10.6, 20.7), (10, 20, 11, 21)),
    "inside out": ((50, 60, 40, 30), (50, 60, 51, 61)),
    "outside": ((200, 300, 220, 330), (99, 79, 100, 80)),
    "nothing": ((0, 0, 0, 0), (0, 0, 1, 1)),
}


@pytest.mark.parametrize(("box", "expected"), SNAPPED.values(), ids=SNAPPED)
def test_snap_outwards(box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    size = torch.tensor([[80, 100, 80, 100]], dtype=torch.int32)
    assert snap_outwards(torch.tensor([box], dtype=torch.float32), size)[0].tolist() == list(expected)
    assert crop_outwards(Image.new("RGB", (100, 80)), box).size == (
        expected[2] - expected[0],
        expected[3] - expected[1],
    )


CROPS = {
    "grounded": (0.5, 0, Status.GROUNDED, (20, 40, 62, 82)),
    "at the threshold": (0.25, 0, Status.GROUNDED, (20, 40, 62, 82)),
    "under the threshold": (0.2, 0, Status.WHOLE_IMAGE, (0, 0, 400, 300)),
    "not a number": (float("nan"), 0, Status.WHOLE_IMAGE, (0, 0, 400, 300)),
    "not an image": (0.5, 2, Status.NOT_AN_IMAGE, (0, 0, 0, 0)),
    "too large": (0.1, 3, Status.TOO_LARGE, (0, 0, 0, 0)),
}


@pytest.mark.parametrize(("score", "decoded", "status", "box"), CROPS.values(), ids=CROPS)
def test_crop_statuses_and_boxes(score: float, decoded: int, status: Status, box: tuple[float, ...]) -> None:
    """The image was shrunk to half, so boxes come back twice as large."""
    canvas = torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)
    size = torch.tensor([[150, 200, 300, 400]] if decoded == 0 else [[0, 0, 0, 0]], dtype=torch.int32)
    crop = Crop(Preprocessing(32, **PLAIN), threshold=0.25)
    pixels, came_box, came_status = crop(
        canvas,
        size,
        torch.tensor([[decoded]], dtype=torch.int32),
        torch.tensor([[10.0, 20.0, 31.0, 40.5]]),
        torch.tensor([[score]]),
    )
    assert came_status.tolist() == [[status]]
    assert came_status.dtype == torch.int32
    assert came_box[0].tolist() == list(box)
    assert torch.isfinite(pixels).all()


LETTERBOXED = {"upright": (120, 200), "square": (256, 256), "wide": (250, 90), "thin": (256, 5), "a pixel": (1, 1)}


@pytest.mark.parametrize("wh", LETTERBOXED.values(), ids=LETTERBOXED)
def test_letterbox_is_ultralytics(wh: tuple[int, int]) -> None:
    quiet_ultralytics()
    from ultralytics.data.augment import LetterBox

    image = picture(5, *wh)
    canvas, size, _ = canvases([image], SIDE)
    boxed = letterbox(torch.from_numpy(canvas), torch.from_numpy(size), 160)
    expected = LetterBox((160, 160), auto=False)(image=np.ascontiguousarray(np.asarray(image)))
    difference = np.abs((boxed.image[0] * 255).permute(1, 2, 0).numpy() - np.asarray(expected, np.float32))
    assert difference.max() <= 1.01
    assert (difference > 0.01).mean() < 1e-4


def test_a_size_that_is_not_the_canvas_s_reads_nothing_outside_of_it() -> None:
    canvas = torch.full((2, 64, 64, 3), 7, dtype=torch.uint8)
    size = torch.tensor([[64, 64, 64, 64], [9000, 300, 9000, 300]], dtype=torch.int32)
    seen = torch.unique((letterbox(canvas, size, 32).image * 255).round())
    assert set(seen.tolist()) <= {0.0, 7.0, 114.0}
