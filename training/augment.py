"""Augmentation of whole batches: geometry with one sampling grid per image, then light and colour."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """Numbers (count,) drawn uniformly from the range."""
    return torch.rand(count, device=device) * (high - low) + low


def resample(images: Tensor, centre: Tensor, extent: Tensor, side: int, fill: float) -> Tensor:
    """Crop each image to a window and scale the window to ``side`` pixels: float (B, 3, side, side).

    ``images``: float (B, 3, H, W); ``centre`` and ``extent`` of the windows: (B, 2), x and y, measured from the middle
    of the image in units of its half side. A negative extent mirrors. Pixels outside the image are ``fill``.
    """
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = extent.unbind(1)
    theta[:, :, 2] = centre
    grid = functional.affine_grid(theta, [len(images), 3, side, side], align_corners=False)  # (B, side, side, 2)
    return functional.grid_sample(images - fill, grid, align_corners=False) + fill


def relight(images: Tensor) -> Tensor:
    """Vary the brightness, contrast, tint and noise of images (B, 3, H, W) with values of 0 to 1."""
    b, device = len(images), images.device
    gain = uniform(b, 0.75, 1.25, device)[:, None] * (1 + 0.06 * torch.randn(b, 3, device=device))
    offset = uniform(b, -0.06, 0.06, device)[:, None]
    noise = uniform(b, 0, 0.03, device)[:, None, None, None] * torch.randn_like(images[:, :1])
    return (images * gain[..., None, None] + offset[..., None, None] + noise).clamp(0, 1)
