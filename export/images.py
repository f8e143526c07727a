"""The modules of ``fit``, ``crop`` and ``detect``, which work on pixels.

Their ``forward`` has the inputs and outputs of ``serving.repository.specs``, in that order.
Shapes: B images, S canvas side, R side of the encoder's input, D side of the detector's input, A anchors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from export.resample import Kernel, axis_weights, resample, resample_opencv
from serving.repository.specs import Status

LETTERBOX_GREY = 114.0


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an encoder's images: the fields of open_clip's ``PreprocessCfg``, for a square input."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int | tuple[int, int, int] = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def pixel_numbers(canvas: Tensor) -> Tensor:
    """0 … S-1, derived from the canvas so that one graph serves every S."""
    return torch.arange(canvas.shape[1], dtype=torch.float32, device=canvas.device)  # (S,)


def whole_image(size: Tensor) -> Tensor:
    """The box of the whole image on the canvas; one pixel if nothing was decoded. (B, 4) → (B, 4)"""
    height, width = size[:, 0:1].float().clamp(min=1.0), size[:, 1:2].float().clamp(min=1.0)
    zero = torch.zeros_like(width)
    return torch.cat([zero, zero, width, height], dim=1)


def snap_outwards(box_xyxy: Tensor, size: Tensor) -> Tensor:
    """Round to whole pixels: floor of x0 y0, ceiling of x1 y1, inside the image, at least one pixel. (B, 4) → (B, 4)

    This is *the* definition of what is cropped. ``BOX`` reports the rounded box, so that
    ``image.crop((floor x0, floor y0, ceil x1, ceil y1))`` of the same image is the same crop.
    """
    limit = whole_image(size)[:, 2:4]  # (B, 2): width, height
    low = torch.minimum(box_xyxy[:, 0:2].floor().clamp(min=0.0), limit - 1.0)
    high = torch.maximum(torch.minimum(box_xyxy[:, 2:4].ceil(), limit), low + 1.0)
    return torch.cat([low, high], dim=1)


class Preprocess(nn.Module):
    """open_clip's evaluation transform of the crop of a box: resize, centre crop or pad, scale, normalise.

    ``resized_length`` and the rounding of the offsets follow torchvision (``shortest``) and open_clip's
    ``ResizeKeepRatio`` and ``CenterCropOrPad`` (``longest``).
    """

    mean: Tensor
    std: Tensor
    fill: Tensor

    def __init__(self, config: Preprocessing):
        super().__init__()
        self.config = config
        self.kernel: Kernel = config.interpolation
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        fill = torch.as_tensor(config.fill_color, dtype=torch.float32).view(1, -1, 1, 1)
        self.register_buffer("fill", fill, persistent=False)  # (1, 1 or 3, 1, 1)

    def resized_lengths(self, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
        """Width and height after the resize, in whole pixels. (B, 1), (B, 1) → (B, 1), (B, 1)"""
        side = float(self.config.size)
        if self.config.resize_mode == "squash":
            return torch.full_like(width, side), torch.full_like(height, side)
        if self.config.resize_mode == "shortest":
            short = torch.minimum(width, height)
            return (side * width / short).floor(), (side * height / short).floor()
        longest = torch.maximum(width, height)
        return (side * width / longest).round().clamp(min=1.0), (side * height / longest).round().clamp(min=1.0)

    def offset(self, resized: Tensor) -> Tensor:
        """The start of the window of R pixels in the resized image; negative if it is padded. (B, 1) → (B, 1)"""
        spare = resized - float(self.config.size)
        if self.config.resize_mode == "longest":
            return torch.where(spare < 0.0, -(-spare / 2.0).floor(), (spare / 2.0).round())
        return (spare / 2.0).round()

    def forward(self, canvas: Tensor, box_xyxy: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 and whole-pixel boxes (B, 4) → (B, 3, R, R)"""
        side = self.config.size
        numbers = pixel_numbers(canvas)
        start_x, start_y = box_xyxy[:, 0:1], box_xyxy[:, 1:2]  # (B, 1)
        width, height = box_xyxy[:, 2:3] - start_x, box_xyxy[:, 3:4] - start_y
        resized_w, resized_h = self.resized_lengths(width, height)
        wx = axis_weights(start_x, width, resized_w, self.offset(resized_w), side, numbers, self.kernel)  # (B, R, S)
        wy = axis_weights(start_y, height, resized_h, self.offset(resized_h), side, numbers, self.kernel)  # (B, R, S)
        pixels = resample(canvas, wy, wx)  # (B, 3, R, R)
        if self.config.resize_mode == "longest" and self.config.fill_color:
            covered = (wy.sum(2) > 0.5)[:, None, :, None] & (wx.sum(2) > 0.5)[:, None, None, :]  # (B, 1, R, R)
            pixels = torch.where(covered, pixels, self.fill.expand_as(pixels))
        return (pixels / 255.0 - self.mean) / self.std


class Fit(nn.Module):
    """``fit``: the preprocessed whole image."""

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.preprocess = Preprocess(preprocessing)

    def forward(self, canvas: Tensor, size: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.preprocess(canvas, whole_image(size))
        status = torch.where(decoded > 0, decoded, torch.full_like(decoded, int(Status.WHOLE_IMAGE)))
        return pixels, status  # (B, 3, R, R), (B, 1)


class Crop(nn.Module):
    """``crop``: the preprocessed box, or the whole image if its score is below the threshold."""

    def __init__(self, preprocessing: Preprocessing, threshold: float):
        super().__init__()
        self.preprocess = Preprocess(preprocessing)
        self.threshold = threshold

    def forward(
        self, canvas: Tensor, size: Tensor, decoded: Tensor, canvas_box: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        trusted = score >= self.threshold  # (B, 1); false for a NaN
        box = torch.where(trusted, snap_outwards(canvas_box, size), whole_image(size))  # (B, 4)
        pixels = self.preprocess(canvas, box)

        canvas_wh = whole_image(size)[:, 2:4]  # (B, 2)
        original_wh = torch.cat([size[:, 3:4], size[:, 2:3]], dim=1).float()
        # Multiply first: the result is exactly the box if the image was not shrunk.
        original_box = box * torch.cat([original_wh, original_wh], 1) / torch.cat([canvas_wh, canvas_wh], 1)
        original_box = original_box * (decoded == 0).float()
        chosen = torch.where(
            trusted, torch.full_like(decoded, int(Status.GROUNDED)), torch.full_like(decoded, int(Status.WHOLE_IMAGE))
        )
        status = torch.where(decoded > 0, decoded, chosen)
        return pixels, original_box, status  # (B, 3, R, R), (B, 4), (B, 1)


class Detector(Protocol):
    """The part of a detector that ``Detect`` uses: all boxes with their scores for the prompt of each image."""

    side: int
    prompt_width: int

    def place(self, canvas: Tensor, size: Tensor) -> Letterboxed:
        """The image in the detector's square. (B, S, S, 3), (B, 4)"""
        ...

    def __call__(self, boxed: Letterboxed, prompt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, C), (B, L) → boxes x0 y0 x1 y1 in input pixels (B, A, 4), scores (B, A)"""
        ...


class YoloWorld(nn.Module):
    """ultralytics' YOLO-World with the prompt of each image as an input (L = 1).

    The head computes its anchors again whenever the shape of its input changes, and keeps them as plain attributes. A
    trace with a free batch would keep its own tensors there. The input is always a square of one size, so the anchors
    are computed once, here, and become constants of the graph.
    """

    anchors: Tensor
    strides: Tensor

    def __init__(self, model: Any, side: int):
        super().__init__()
        self.model = model.float().eval()
        self.side = side
        head = self.model.model[-1]
        head.export, head.format, head.nc = True, "onnx", 1
        with torch.no_grad():
            width = head.cv3[0][-1].out_channels  # C
            self.model(torch.zeros(1, 3, side, side), txt_feats=torch.zeros(1, 1, width))
        self.prompt_width = width
        self.register_buffer("anchors", head.anchors[None].clone(), persistent=False)  # (1, 2, A)
        self.register_buffer("strides", head.strides.clone(), persistent=False)  # (1, A)
        self.distances = head.dfl
        head.dfl = nn.Identity()  # boxes are decoded here, in FP32 even if the rest is FP16
        head._get_decode_boxes = self._decode_boxes

    def _decode_boxes(self, raw: dict[str, Tensor]) -> Tensor:
        head = self.model.model[-1]
        distances = self.distances(raw["boxes"].float())  # (B, 4, A)
        boxes: Tensor = head.decode_bboxes(distances, self.anchors) * self.strides  # (B, 4, A)
        return boxes

    def place(self, canvas: Tensor, size: Tensor) -> Letterboxed:
        return letterbox(canvas, size, self.side)

    def forward(self, boxed: Letterboxed, prompt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(boxed.image, txt_feats=prompt)  # (B, 5, A): centre, width and height, score
        center, extent = found[:, 0:2], found[:, 2:4]
        boxes = torch.cat([center - extent / 2.0, center + extent / 2.0], dim=1).transpose(1, 2)
        return boxes, found[:, 4]  # (B, A, 4), (B, A)


@dataclass(frozen=True)
class Letterboxed:
    """An image in the detector's square, with its scale and offsets, (B, 1) each."""

    image: Tensor  # (B, 3, D, D), 0 … 1
    pad_x: Tensor
    pad_y: Tensor
    gain_x: Tensor
    gain_y: Tensor
    resized_w: Tensor
    resized_h: Tensor


def letterbox(canvas: Tensor, size: Tensor, side: int) -> Letterboxed:
    """ultralytics' ``LetterBox``: resize with OpenCV's bilinear filter to fit the square, centred on grey."""
    wh = whole_image(size)[:, 2:4]  # (B, 2)
    new_wh = (wh * side / wh.amax(dim=1, keepdim=True)).round().clamp(min=1.0)
    pad = ((side - new_wh) / 2.0 - 0.1).round()
    image = resample_opencv(canvas, wh, new_wh, -pad, side)  # (B, 3, D, D)
    steps = torch.arange(side, dtype=wh.dtype, device=wh.device)
    inside = (steps >= pad[:, :, None]) & (steps < (pad + new_wh)[:, :, None])  # (B, 2, D)
    covered = inside[:, None, 1, :, None] & inside[:, None, 0, None, :]  # (B, 1, D, D)
    image = torch.where(covered, image, torch.full_like(image, LETTERBOX_GREY))
    (pad_x, pad_y), (new_w, new_h) = torch.split(pad, 1, dim=1), torch.split(new_wh, 1, dim=1)
    gain_x, gain_y = torch.split(new_wh / wh, 1, dim=1)
    return Letterboxed(image / 255.0, pad_x, pad_y, gain_x, gain_y, new_w, new_h)


def to_canvas(boxes: Tensor, boxed: Letterboxed, size: Tensor) -> Tensor:
    """Boxes in the letterbox as canvas pixels, clipped to the image. (B, N, 4) → (B, N, 4)"""
    pad = torch.cat([boxed.pad_x, boxed.pad_y, boxed.pad_x, boxed.pad_y], dim=1)  # (B, 4)
    gain = torch.cat([boxed.gain_x, boxed.gain_y, boxed.gain_x, boxed.gain_y], dim=1)
    corner = whole_image(size)[:, 2:4]
    limit = torch.cat([corner, corner], dim=1)
    return torch.minimum(((boxes - pad[:, None]) / gain[:, None]).clamp(min=0.0), limit[:, None])


def best_box(
    boxes: Tensor, scores: Tensor, boxed: Letterboxed, size: Tensor, prompt_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """``CANVAS_BOX`` and ``SCORE`` of boxes in input pixels. (B, A, 4), (B, A) → (B, 4), (B, 1)"""
    score, best = scores.max(dim=1, keepdim=True)  # (B, 1)
    box = boxes.gather(1, best[:, :, None].expand(-1, -1, 4))  # (B, 1, 4)
    box = to_canvas(box, boxed, size)[:, 0]  # (B, 4)
    asked = prompt_mask.amax(dim=1, keepdim=True) > 0  # (B, 1)
    return torch.where(asked, box, whole_image(size)), torch.where(asked, score, torch.zeros_like(score))


class Detect(nn.Module):
    """``detect``: the box with the highest score for the prompt; the whole image for an empty prompt."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, canvas: Tensor, size: Tensor, prompt: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        boxed = self.detector.place(canvas, size)
        boxes, scores = self.detector(boxed, prompt, prompt_mask)  # (B, A, 4), (B, A)
        return best_box(boxes, scores, boxed, size, prompt_mask)
