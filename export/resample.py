"""Resize any box, a different one for each image of a batch, like PIL and like OpenCV.

PIL's resize is two matrix products, ``resized = Wy · canvas · Wxᵀ``, with weights W computed from the box by
elementwise arithmetic. There is no loop over images and no shape that depends on the data, so every runtime takes it.

Three things follow PIL exactly, so that the served pixels are those that the models were trained on:

- The filters, and their widening by the downscale factor, which is PIL's antialiasing.
- Taps are clipped at the box: pixels around a crop do not influence it.
- Values are rounded to whole grey levels after each pass, rows first. Since version 13, PIL begins with the columns if
  ``height - new height > 2 (width - new width)``, to save time: single pixels of tall images then differ by some grey
  levels, and a tenth of one on average. Models were trained before that, and both orders in one graph would make
  ``crop`` 1.5 times as slow.

Shapes: B images, S canvas side, R output side.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Literal["bilinear", "bicubic"]

CUBIC_A = -0.5  # PIL's and Keys' coefficient; OpenCV and torch use -0.75


def bilinear(x: Tensor) -> Tensor:
    """PIL's triangle filter, which is zero at distances of 1 and more."""
    return (1.0 - x.abs()).clamp(min=0.0)


def bicubic(x: Tensor) -> Tensor:
    """PIL's cubic filter, which is zero at distances of 2 and more."""
    x = x.abs().clamp(max=2.0)
    near = ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC_A
    return near.where(x < 1.0, far)


def axis_weights(
    start: Tensor, length: Tensor, resized: Tensor, shift: Tensor, out: int, side: Tensor, kernel: Kernel
) -> Tensor:
    """The weights of one axis: row j gives output pixel j from the canvas pixels ``[start, start + length)``.

    The interval is resized to ``resized`` pixels, of which ``out`` are returned, beginning with number ``shift``. Rows
    outside of the resized interval (padding) are zero.

    Args:
        start, length, resized, shift: (B, 1), whole numbers as floats; length and resized at least 1.
        out: number of output pixels, R.
        side: (S,), 0 … S-1: the numbers of the canvas pixels.

    Returns:
        (B, R, S)
    """
    wanted = torch.arange(out, dtype=start.dtype, device=start.device) + shift  # (B, R)
    source = side - start  # (B, S), counted from the box's edge: exact in floats
    inside = (source >= 0.0) & (source < length)  # (B, S)
    scale = length / resized  # (B, 1)
    center = (wanted + 0.5) * scale  # (B, R)
    filtered = bicubic if kernel == "bicubic" else bilinear
    widening = scale.clamp(min=1.0)  # (B, 1)
    weights = filtered((source[:, None, :] + 0.5 - center[:, :, None]) / widening[:, :, None])  # (B, R, S)
    weights = weights * inside[:, None, :].to(weights.dtype)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
    present = (wanted >= 0.0) & (wanted < resized)  # (B, R)
    return weights * present[:, :, None].to(weights.dtype)


TIE = 2.0**-13


def grey_levels(pixels: Tensor) -> Tensor:
    """Round to whole grey levels, halves upwards, like PIL between its passes.

    Exact halves are common (the mean of two neighbours), and runtimes that sum in another order get a value on either
    side. Adding a ten-thousandth of a grey level makes all of them round in the same direction.
    """
    return (pixels + (0.5 + TIE)).floor().clamp(0.0, 255.0)


def planes_of(canvas: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float

    The cast comes first, because a cast is all that TensorRT can do with a uint8 input.
    """
    return canvas.float().permute(0, 3, 1, 2)


def resample(canvas: Tensor, wy: Tensor, wx: Tensor) -> Tensor:
    """Apply the weights of both axes, rows first, and round after each.

    Args:
        canvas: (B, S, S, 3), uint8.
        wy: (B, Ry, S).
        wx: (B, Rx, S).

    Returns:
        (B, 3, Ry, Rx), grey levels 0 … 255 as floats
    """
    rows = grey_levels(planes_of(canvas) @ wx.transpose(1, 2)[:, None])  # (B, 3, S, Rx)
    return grey_levels(wy[:, None] @ rows)  # (B, 3, Ry, Rx)


def neighbours(length: Tensor, resized: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels between which OpenCV's bilinear filter interpolates, and the share of the second.

    Args:
        length, resized: (B, 1), whole numbers as floats, at least 1.
        wanted: (B, R), numbers of output pixels.

    Returns:
        first, second: (B, R), inside the image; share: (B, R), in 2048ths like OpenCV
    """
    place = ((2.0 * wanted + 1.0) * length - resized) / (2.0 * resized)
    below = place.floor()
    first = torch.minimum(below.clamp(min=0.0), length - 1.0)
    second = torch.minimum((below + 1.0).clamp(min=0.0), length - 1.0)
    return first, second, ((place - below) * 2048.0).round()


def resample_opencv(canvas: Tensor, wh: Tensor, new_wh: Tensor, shift_xy: Tensor, out: int) -> Tensor:
    """OpenCV's ``INTER_LINEAR`` of uint8 in its own fixed-point arithmetic, which gives the same grey levels.

    It multiplies rows by whole 2048ths, drops four bits, multiplies columns by 2048ths, drops 16 bits of each of the
    two products, adds, and rounds the remaining quarters. Every number except for the products with columns is exact in
    FP32, so that all runtimes and orders of summation agree.

    Args:
        canvas: (B, S, S, 3), uint8, the image at its top left.
        wh, new_wh: (B, 2), width and height before and after; whole numbers as floats, at least 1.
        shift_xy: (B, 2), the number of the first output pixel; negative if there is padding.
        out: number of output pixels of each axis, R.

    Returns:
        (B, 3, R, R), grey levels 0 … 255 as floats; outside of the resized image the edge is repeated
    """
    batch, side = canvas.shape[0], canvas.shape[1]
    steps = torch.arange(out, dtype=wh.dtype, device=wh.device)
    left, right, share = neighbours(wh[:, 0:1], new_wh[:, 0:1], steps + shift_xy[:, 0:1])  # (B, R)
    left, right, share = left[:, None, :], right[:, None, :], share[:, None, :]  # (B, 1, R)
    pixels = torch.arange(side, dtype=wh.dtype, device=wh.device)[None, :, None]  # (1, S, 1)
    weights = (pixels == left).to(wh.dtype) * (2048.0 - share) + (pixels == right).to(wh.dtype) * share  # (B, S, R)
    rows = (planes_of(canvas) @ (weights / 16.0)[:, None]).floor()  # (B, 3, S, R)

    top, bottom, share = neighbours(wh[:, 1:2], new_wh[:, 1:2], steps + shift_xy[:, 1:2])  # (B, R)
    share = share[:, None, :, None]  # (B, 1, R, 1)
    planes = torch.arange(3, device=wh.device) + 3 * torch.arange(batch, device=wh.device)[:, None]  # (B, 3)
    begin = side * planes[:, :, None]  # (B, 3, 1): the first row of a plane among all rows
    rows = rows.reshape(-1, out)  # (B * 3 * S, R)

    def pick(row: Tensor) -> Tensor:
        """(B, R) → (B, 3, R, R). A SIZE larger than the canvas must not read outside of it.

        ``embedding`` becomes ``Gather``. An index would become ``GatherND``, which reads outside of its input when
        ONNX Runtime replays it in a CUDA graph (fixed in August 2026, pull request 32120).
        """
        return functional.embedding(begin + row.long().clamp(max=side - 1)[:, None], rows)

    upper = (pick(top) * ((2048.0 - share) / 65536.0)).floor()
    lower = (pick(bottom) * (share / 65536.0)).floor()
    return ((upper + lower + 2.0) / 4.0).floor()
