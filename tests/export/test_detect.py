"""``detect`` against ultralytics' own predictor, with a different prompt for each image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.examples import canvases, picture
from export.images import Detect, YoloWorld
from export.quiet import quiet_ultralytics
from export.sources import load_detector, resolve_detector

SIZES_WH = [(200, 256), (256, 256), (256, 120), (90, 61)]
WIDTH = 512


@pytest.fixture(scope="module")
def prompts() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(len(SIZES_WH), 1, WIDTH, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def detect(detector_file: Path) -> Detect:
    loaded = load_detector(resolve_detector(str(detector_file)))
    assert loaded.side == 320
    return Detect(YoloWorld(loaded.model, loaded.side)).eval()


def test_equals_the_upstream_predictor(detector_file, detect, prompts):
    quiet_ultralytics()
    from ultralytics import YOLOWorld

    images = [picture(number, *wh) for number, wh in enumerate(SIZES_WH)]
    canvas, size, _ = canvases(images, 256)
    mask = torch.ones(len(images), 1, dtype=torch.int32)
    with torch.no_grad():
        boxes, scores = detect(torch.from_numpy(canvas), torch.from_numpy(size), prompts, mask)

    upstream = YOLOWorld(str(detector_file))
    for row, image in enumerate(images):
        upstream.predictor = None
        upstream.model.txt_feats = prompts[row : row + 1]
        upstream.model.model[-1].nc = 1
        upstream.model.names = {0: "thing"}
        bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        found = upstream.predict(bgr, imgsz=320, conf=1e-4, rect=False, max_det=1, verbose=False, device="cpu")[0].boxes
        # OpenCV's letterbox counts in fixed point: grey levels differ by one, scores by a thousandth.
        assert scores[row].item() == pytest.approx(found.conf[0].item(), abs=5e-3)
        assert iou(boxes[row].numpy(), found.xyxy[0].numpy()) > 0.97


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_each_image_has_its_own_prompt(detect, prompts):
    canvas, size, _ = canvases([picture(1, 200, 256)], 256)
    inputs = torch.from_numpy(canvas), torch.from_numpy(size)
    repeated = [x.expand(len(prompts), *x.shape[1:]) for x in inputs]
    with torch.no_grad():
        boxes, scores = detect(*repeated, prompts, torch.ones(len(prompts), 1, dtype=torch.int32))
        for row in range(len(prompts)):
            box, score = detect(*inputs, prompts[row : row + 1], torch.ones(1, 1, dtype=torch.int32))
            assert torch.allclose(score[0], scores[row], atol=1e-6)
            assert torch.allclose(box[0], boxes[row], atol=1e-2)
    assert scores.unique().numel() == len(prompts)


def test_empty_prompt_and_missing_image(detect, prompts):
    canvas, size, _ = canvases([picture(1, 200, 256)] * 2, 256)
    size[1] = 0
    mask = torch.tensor([[0], [1]], dtype=torch.int32)
    with torch.no_grad():
        boxes, scores = detect(torch.from_numpy(canvas), torch.from_numpy(size), prompts[:2], mask)
    assert scores[0].item() == 0.0
    assert boxes[0].tolist() == [0.0, 0.0, 200.0, 256.0]
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(scores).all()


def test_the_canvas_may_have_any_side(detect, prompts):
    image = picture(2, 200, 180)
    found = []
    for side in (200, 256, 320):
        canvas, size, _ = canvases([image], side)
        with torch.no_grad():
            found.append(detect(torch.from_numpy(canvas), torch.from_numpy(size), prompts[:1], torch.ones(1, 1).int()))
    assert all(torch.allclose(box, found[0][0], atol=1e-2) for box, _ in found)
