"""A resize of any box, different for each image of a batch, as two matrix products.

``resized = Wy · canvas · Wxᵀ``, with the weights W built from the box by elementwise arithmetic. No loop over
images, no shape that depends on the data: every runtime takes it.

Three things follow PIL and OpenCV to the letter, so that the served pixels are those the models were trained on:

- the filters, and their widening by the downscale factor (PIL's antialiasing; OpenCV's bilinear has none);
- the clipping of taps at the box: a crop that is resized sees nothing of what lies around it;
- the rounding to whole grey levels after each pass.

Shapes: B images, S canvas side, R output side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Literal["bilinear", "bicubic", "opencv_bilinear"]

CUBIC_A = -0.5  # PIL's and Keys' coefficient; OpenCV and torch use -0.75


def bilinear(x: Tensor) -> Tensor:
    """The triangle filter of PIL, zero from a distance of 1 on."""
    return (1.0 - x.abs()).clamp(min=0.0)


def bicubic(x: Tensor) -> Tensor:
    """The cubic filter of PIL, zero from a distance of 2 on."""
    x = x.abs().clamp(max=2.0)
    near = ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC_A
    return near.where(x < 1.0, far)


def axis_weights(
    start: Tensor, length: Tensor, resized: Tensor, shift: Tensor, out: int, side: Tensor, kernel: Kernel
) -> Tensor:
    """The weights of one axis: row j makes output pixel j out of the canvas pixels ``[start, start + length)``.

    The interval is resized to ``resized`` pixels, of which ``out`` are wanted, from number ``shift`` on. Rows that
    fall outside the resized interval (padding) are zero.

    Args:
        start, length, resized, shift: (B, 1), whole numbers as floats; length and resized at least 1.
        out: number of output pixels, R.
        side: (S,), 0 … S-1: the numbers of the canvas pixels.
        kernel: ``opencv_bilinear`` interpolates between neighbours without antialiasing and repeats the edge.

    Returns:
        (B, R, S)
    """
    import torch

    wanted = torch.arange(out, dtype=start.dtype, device=start.device) + shift  # (B, R)
    source = side - start  # (B, S), counted from the box's edge: exact in floats
    inside = (source >= 0.0) & (source < length)  # (B, S)
    scale = length / resized  # (B, 1)
    center = (wanted + 0.5) * scale  # (B, R)
    if kernel == "opencv_bilinear":
        center = torch.minimum((center - 0.5).clamp(min=0.0), length - 1.0)
        weights = bilinear(source[:, None, :] - center[:, :, None])  # (B, R, S)
    else:
        filtered = bicubic if kernel == "bicubic" else bilinear
        widening = scale.clamp(min=1.0)  # (B, 1)
        weights = filtered((source[:, None, :] + 0.5 - center[:, :, None]) / widening[:, :, None])  # (B, R, S)
    weights = weights * inside[:, None, :].to(weights.dtype)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
    present = (wanted >= 0.0) & (wanted < resized)  # (B, R)
    return weights * present[:, :, None].to(weights.dtype)


TIE = 2.0**-13


def grey_levels(pixels: Tensor) -> Tensor:
    """To whole grey levels, halves upwards, as PIL does between its passes.

    Exact halves are common (the mean of two neighbours), and a runtime that sums in another order lands on either
    side of them. A ten-thousandth of a grey level lets all of them round the same way.
    """
    return (pixels + (0.5 + TIE)).floor().clamp(0.0, 255.0)


def resample(canvas: Tensor, wy: Tensor, wx: Tensor, *, round_between: bool = True) -> Tensor:
    """Applies the weights of both axes, horizontally first as PIL does.

    Args:
        canvas: (B, S, S, 3), uint8.
        wy: (B, Ry, S).
        wx: (B, Rx, S).
        round_between: round after the horizontal pass too (PIL does, OpenCV does not).

    Returns:
        (B, 3, Ry, Rx), grey levels 0 … 255 as floats
    """
    # To floats before anything else: TensorRT takes uint8 as an input, but only to cast it.
    planes = canvas.to(wx.dtype).permute(0, 3, 1, 2)  # (B, 3, S, S)
    rows = planes @ wx.transpose(1, 2)[:, None]  # (B, 3, S, Rx)
    if round_between:
        rows = grey_levels(rows)
    return grey_levels(wy[:, None] @ rows)  # (B, 3, Ry, Rx)
