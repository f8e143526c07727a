"""Augmentation of whole batches: geometry by one sampling grid an image, then light and colour."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """(count,) numbers from the range."""
    return torch.rand(count, device=device) * (high - low) + low


def resample(images: Tensor, centre: Tensor, extent: Tensor, side: int, fill: float) -> Tensor:
    """Look at each image through a window and scale it to ``side`` pixels.

    ``images``: float (B, 3, H, W); ``centre``, ``extent``: (B, 2), x and y in units of the image's half side from its
    middle, a negative extent mirrors; outside of the image is ``fill``.
    """
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = extent.unbind(1)
    theta[:, :, 2] = centre
    grid = functional.affine_grid(theta, [len(images), 3, side, side], align_corners=False)  # (B, side, side, 2)
    return functional.grid_sample(images - fill, grid, align_corners=False) + fill


def relight(images: Tensor) -> Tensor:
    """Vary brightness, contrast, tint and noise of images (B, 3, H, W) in 0 to 1."""
    b, device = len(images), images.device
    gain = uniform(b, 0.75, 1.25, device)[:, None] * (1 + 0.06 * torch.randn(b, 3, device=device))
    offset = uniform(b, -0.06, 0.06, device)[:, None]
    noise = uniform(b, 0, 0.03, device)[:, None, None, None] * torch.randn_like(images[:, :1])
    return (images * gain[..., None, None] + offset[..., None, None] + noise).clamp(0, 1)
