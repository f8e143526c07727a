"""The leaves that encode: ``encode_image``, ``encode_text`` and ``encode_prompt``, unit length inside.

Shapes: B rows, R side of the input, T tokens, D width of an embedding, C width of a prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from export.specs import Status


def unit_length(x: Tensor) -> Tensor:
    """Safe at zero. (B, D) → (B, D)"""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


class EncodeImage(nn.Module):
    """``encode_image``: an open_clip image tower; rows without an image are zero."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, status: Tensor) -> Tensor:
        embedding = unit_length(self.model.encode_image(pixels))  # (B, D)
        return torch.where(status < int(Status.NOT_AN_IMAGE), embedding, torch.zeros_like(embedding))


class EncodeText(nn.Module):
    """``encode_text``: an open_clip text tower."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return unit_length(self.model.encode_text(tokens))  # (B, D)


class EncodePrompt(nn.Module):
    """``encode_prompt`` for YOLO-World: one unit vector per prompt, as ultralytics' CLIP wrapper makes it."""

    def __init__(self, model: Any, end_token: int):
        super().__init__()
        self.model = model
        self.end_token = end_token

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        prompt = unit_length(self.model.encode_text(tokens))  # (B, C)
        # Nothing stands between start and end: an empty prompt.
        mask = (tokens[:, 1:2] != self.end_token).to(torch.int32)  # (B, 1)
        return prompt[:, None, :], mask  # (B, 1, C), (B, 1)
