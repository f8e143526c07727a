"""The leaves that encode: ``encode_image``, ``encode_text`` and ``encode_prompt``, unit length inside.

Shapes: B rows, R side of the input, T tokens, D width of an embedding, C width of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import UnsupportedModel
from serving.repository.specs import Status

LARGEST_GRAPH = 2 * 1024**3
"""Bytes; a protobuf message, hence an ONNX graph in one file, cannot be larger."""
FP32_BYTES = 4


def unit_length(x: Tensor) -> Tensor:
    """In FP32, safe at zero. (B, D) → (B, D)"""
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def image_weights(model: Any) -> list[Tensor]:
    """Of the image tower of an open_clip model."""
    return list(model.visual.parameters())


def text_weights(model: Any) -> list[Tensor]:
    """Of everything but the image tower."""
    return [weight for name, weight in model.named_parameters() if not name.startswith("visual.")]


def require_one_file(leaf: str, weights: Iterable[Tensor]) -> None:
    """Refuses what cannot be written as one ``model.onnx``, before minutes of tracing."""
    count, most = sum(weight.numel() for weight in weights), LARGEST_GRAPH // FP32_BYTES
    if count >= most:
        raise UnsupportedModel(
            f"{leaf} has {count / 1e6:.0f} million weights, and one ONNX file holds {most / 1e6:.0f} million in FP32: "
            "choose a smaller encoder, ViT-L-14 for example"
        )


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
    """``encode_prompt`` for YOLO-World: one unit vector per prompt, as ultralytics' CLIP wrapper makes it.

    ``empty``: the tokens of the empty text (T,).
    """

    empty: Tensor

    def __init__(self, model: Any, empty: Tensor):
        super().__init__()
        self.model = model
        self.register_buffer("empty", empty[None].clone(), persistent=False)  # (1, T)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        prompt = unit_length(self.model.encode_text(tokens))  # (B, C)
        mask = (tokens != self.empty).any(dim=1, keepdim=True).to(torch.int32)  # (B, 1)
        return prompt[:, None, :], mask  # (B, 1, C), (B, 1)
