"""``detect`` against ultralytics' own predictor, with a different prompt for each image.

The predictor makes its square by itself (``rect=False``), suppresses overlaps and keeps the best box. Its
``set_classes`` would fetch a text tower, so it gets our prompt by the attribute that ``set_classes`` writes.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.judge import box_iou
from export.encoder_sources import resolve_encoder
from export.encoders import EncodePrompt
from export.errors import SourceError
from export.examples import canvases, picture
from export.graph import export_graph
from export.images import Detect, YoloWorld, best_box
from export.load_detector import load_detector, trained_side
from export.load_encoder import load_encoder
from export.quiet import quiet_ultralytics
from export.reference import open_image
from export.sources import MINI, resolve_detector
from serving.repository.specs import LEAVES, ModelSpec, TensorSpec
from tests.export.conftest import write_detector
from training.catalogue.items import draw_item
from training.catalogue.scenes import scene

SIZES_WH = [(200, 256), (256, 256), (256, 120), (90, 61)]
WIDTH = 512


class DetectAndTell(torch.nn.Module):
    """``Detect``, with every box and score of the detector behind its outputs."""

    def __init__(self, detector: YoloWorld):
        super().__init__()
        self.detector = detector

    def forward(self, canvas: Tensor, size: Tensor, prompt: Tensor, prompt_mask: Tensor) -> tuple[Tensor, ...]:
        boxed = self.detector.place(canvas, size)
        boxes, scores = self.detector(boxed, prompt, prompt_mask)
        return *best_box(boxes, scores, boxed, size, prompt_mask), boxes, scores


@dataclass(frozen=True)
class Found:
    box_xyxy: np.ndarray  # (4,)
    score: float
    boxes_xyxy: np.ndarray  # (A, 4) in pixels of the detector's square
    scores: np.ndarray  # (A,)


class Exported:
    """Our graph of a checkpoint of ultralytics, run as it is served."""

    def __init__(self, file: Path, canvas: int):
        loaded = load_detector(resolve_detector(str(file)))
        self.canvas, self.side = canvas, loaded.side
        anchors = sum((loaded.side // stride) ** 2 for stride in (8, 16, 32))
        told = (TensorSpec("BOXES", "FP32", (anchors, 4)), TensorSpec("SCORES", "FP32", (anchors,)))
        spec = ModelSpec(LEAVES["detect"].inputs, LEAVES["detect"].outputs + told)
        pixels, size, _ = canvases([picture(1, 90, 61), picture(2, 200, 180)], canvas)
        inputs = [torch.from_numpy(pixels), torch.from_numpy(size), torch.randn(2, 1, WIDTH), torch.ones(2, 1).int()]
        module = DetectAndTell(YoloWorld(loaded.model, loaded.side))
        graph = export_graph(module, inputs, spec).SerializeToString()
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def find(self, image: Image.Image, prompt: Tensor) -> Found:
        """``image`` is not larger than the canvas."""
        canvas, size, _ = canvases([image], self.canvas)
        mask = np.ones((1, 1), np.int32)
        inputs = {"CANVAS": canvas, "SIZE": size, "PROMPT": prompt.numpy()[None], "PROMPT_MASK": mask}
        box, score, boxes, scores = self.session.run(None, inputs)
        return Found(box[0], float(score[0, 0]), boxes[0], scores[0])


class Upstream:
    """The same checkpoint in the hands of its makers."""

    def __init__(self, file: Path, side: int):
        quiet_ultralytics()
        from ultralytics.models import YOLOWorld

        yolo: Any = YOLOWorld(str(file))
        yolo.model.model[-1].nc = 1
        yolo.model.names = {0: "thing"}
        self.yolo = yolo
        self.options = {"imgsz": side, "conf": 1e-6, "rect": False, "max_det": 1, "verbose": False, "device": "cpu"}

    def find(self, image: Image.Image, prompt: Tensor) -> Found:
        self.yolo.predictor = None
        self.yolo.model.txt_feats = prompt[None]
        bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        best = self.yolo.predict(bgr, **self.options)[0].boxes
        predictor = self.yolo.predictor
        raw = predictor.inference(predictor.preprocess([bgr]))[0][0].numpy()  # (5, A)
        center, extent = raw[0:2].T, raw[2:4].T
        boxes = np.concatenate([center - extent / 2, center + extent / 2], axis=1)
        return Found(best.xyxy[0].numpy(), best.conf[0].item(), boxes, raw[4])


def require_equal(ours: Found, theirs: Found) -> None:
    assert ours.score == pytest.approx(theirs.score, abs=5e-4)
    assert np.abs(ours.box_xyxy - theirs.box_xyxy).max() < 0.3
    for name in ("boxes_xyxy", "scores"):
        wanted = getattr(theirs, name)
        assert np.linalg.norm(getattr(ours, name) - wanted) < 1e-3 * np.linalg.norm(wanted), name


@pytest.fixture(scope="module")
def prompts() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(len(SIZES_WH), 1, WIDTH, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def mini() -> tuple[Exported, Upstream]:
    """The trained detector."""
    file = MINI / "detector.pt"
    return Exported(file, 640), Upstream(file, 320)


def encode(texts: list[str]) -> Tensor:
    """Prompts of the mini encoder. → (N, 1, C)"""
    encoder = load_encoder(resolve_encoder("mini"))
    with torch.no_grad():
        prompt: Tensor
        prompt, _ = EncodePrompt(encoder.model, encoder.empty_text)(encoder.tokenizer(texts))
    return prompt


def test_drawn_pictures_equal_the_upstream_predictor(mini: tuple[Exported, Upstream]) -> None:
    """Scenes in which the product is found, and odd shapes."""
    ours, theirs = mini
    rng = np.random.default_rng(0)
    pool = [draw_item(rng) for _ in range(60)]
    photos = [scene(rng, pool[number], pool) for number in range(8)]
    images = [Image.open(io.BytesIO(photo.jpeg)) for photo in photos]
    prompts = encode([photo.items[0].product_type for photo in photos])
    grounded = 0
    for photo, image, prompt in zip(photos, images, prompts, strict=True):
        found, wanted = ours.find(image, prompt), theirs.find(image, prompt)
        require_equal(found, wanted)
        assert box_iou(found.box_xyxy[None], wanted.box_xyxy[None])[0] > 0.999
        grounded += box_iou(found.box_xyxy[None], photo.boxes_xyxy[0][None])[0] > 0.5
    assert grounded > len(photos) // 2
    for number, wh in enumerate([*SIZES_WH, (640, 480), (640, 37), (31, 500)]):
        drawn = picture(number, *wh)
        require_equal(ours.find(drawn, prompts[number]), theirs.find(drawn, prompts[number]))


@pytest.mark.skipif("VLCLIP_PHOTOS" not in os.environ, reason="VLCLIP_PHOTOS names no folder with a photos.csv")
def test_real_photos_equal_the_upstream_predictor(mini: tuple[Exported, Upstream]) -> None:
    ours, theirs = mini
    folder = Path(os.environ["VLCLIP_PHOTOS"])
    with (folder / "photos.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))[::8]
    for row, prompt in zip(rows, encode([row["product_type"] for row in rows]), strict=True):
        image = open_image((folder / row["file"]).read_bytes())
        (placed,) = canvases([image], ours.canvas)[2]
        found, wanted = ours.find(placed, prompt), theirs.find(placed, prompt)
        require_equal(found, wanted)
        assert box_iou(found.box_xyxy[None], wanted.box_xyxy[None])[0] > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["s", "m", "l", "x"])
def test_true_sizes_equal_the_upstream_predictor(tmp_path: Path, prompts: Tensor, scale: str) -> None:
    """With random weights, which enlarge any difference: for sizes whose squares are equal to the last pixel."""
    file = write_detector(tmp_path / "detector.pt", scale=scale, side=640)
    ours, theirs = Exported(file, 640), Upstream(file, 640)
    for number, wh in enumerate([(480, 640), (320, 200), (200, 256)]):
        image = picture(number, *wh)
        found = ours.find(image, prompts[number])
        require_equal(found, theirs.find(image, prompts[number]))
        assert found.scores.std() > 1e-3


def test_empty_prompt_and_missing_image(detector_file: Path, prompts: Tensor) -> None:
    loaded = load_detector(resolve_detector(str(detector_file)))
    assert loaded.side == 320
    detect = Detect(YoloWorld(loaded.model, loaded.side)).eval()
    canvas, size, _ = canvases([picture(1, 200, 256)] * 2, 256)
    size[1] = 0
    mask = torch.tensor([[0], [1]], dtype=torch.int32)
    with torch.no_grad():
        boxes, scores = detect(torch.from_numpy(canvas), torch.from_numpy(size), prompts[:2], mask)
    assert scores[0].item() == 0.0
    assert boxes[0].tolist() == [0.0, 0.0, 200.0, 256.0]
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize(
    ("imgsz", "side"),
    [(320, 320), (300, 320), ([320, 256], 320), (None, 640), ([], 640)],
    ids=["one number", "no multiple of the stride", "two numbers", "unknown", "empty"],
)
def test_the_side_is_that_of_the_training(imgsz: object, side: int) -> None:
    assert trained_side(imgsz) == side


def test_a_checkpoint_of_another_scale_is_refused(detector_file: Path) -> None:
    with pytest.raises(SourceError, match="holds a YOLO-World N, not S: --detector yolo-world-n"):
        load_detector(resolve_detector("yolo-world-s", str(detector_file)))
