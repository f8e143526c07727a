"""The modules of ``encode_image``, ``encode_text`` and ``encode_prompt``, which give unit vectors.

Shapes: B rows, R side of the input, T tokens, D width of an embedding, C width of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from torch import Tensor, nn

from export.errors import UnsupportedModel
from serving.repository.specs import Status

LARGEST_GRAPH = 2 * 1024**3
"""The largest protobuf message, and so the largest ONNX graph in one file, in bytes."""
FP32_BYTES = 4


def unit_length(x: Tensor) -> Tensor:
    """Divide by the length in FP32. Zero stays zero. (B, D) → (B, D)"""
    x = x.float()
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.clamp(min=1e-12)


def image_weights(model: Any) -> list[Tensor]:
    """The weights of an open_clip model's image tower."""
    return list(model.visual.parameters())


def text_weights(model: Any) -> list[Tensor]:
    """The weights of everything but the image tower."""
    return [weight for name, weight in model.named_parameters() if not name.startswith("visual.")]


def require_one_file(leaf: str, weights: Iterable[Tensor]) -> None:
    """Refuse weights that do not fit into one ``model.onnx``, before tracing takes minutes."""
    count, most = sum(weight.numel() for weight in weights), LARGEST_GRAPH // FP32_BYTES
    if count >= most:
        raise UnsupportedModel(
            f"{leaf} has {count / 1e6:.0f} million weights, and one ONNX file holds {most / 1e6:.0f} million in FP32: "
            "choose a smaller encoder, ViT-L-14 for example"
        )


def pool(x: Tensor, text: Tensor, pool_type: str, eos_token_id: int | None = None) -> Tensor:
    """What open_clip's ``text_global_pool`` computes: one token's features for each text. (B, T, W), (B, T) → (B, W)

    The symptom: it finds the token by an ArgMax of integers, for which ONNX Runtime has no CUDA kernel, and takes it by
    GatherND, which cannot be replayed in CUDA graphs (see ``export.resample``). So on a GPU each text waits for the
    CPU. This is safe because FP32 holds token ids exactly, and the same features are taken.
    """
    if pool_type not in ("argmax", "eos"):
        pooled: Tensor = ORIGINAL_POOL(x, text, pool_type, eos_token_id)
        return pooled
    marked = text if pool_type == "argmax" else text.eq(eos_token_id or 0)
    last = marked.float().argmax(dim=1)[:, None, None]  # (B, 1, 1)
    return x.gather(1, last.expand(-1, 1, x.shape[2]))[:, 0]


ORIGINAL_POOL = open_clip.transformer.text_global_pool


@contextmanager
def pooled_on_gpus() -> Iterator[None]:
    """Let open_clip's text towers pool with ``pool``. Both modules know the function by name."""
    with (
        patch.object(open_clip.model, "text_global_pool", pool),
        patch.object(open_clip.transformer, "text_global_pool", pool),
    ):
        yield


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Unit vectors of an open_clip text tower. (B, T) → (B, D)"""
    with pooled_on_gpus():
        return unit_length(model.encode_text(tokens))


class EncodeImage(nn.Module):
    """``encode_image``: an open_clip image tower. Rows without an image are zero."""

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
        return encode_text(self.model, tokens)  # (B, D)


class EncodePrompt(nn.Module):
    """``encode_prompt`` for YOLO-World: one unit vector per prompt, like ultralytics' CLIP wrapper.

    Args:
        empty: the tokens of the empty text (T,)
    """

    empty: Tensor

    def __init__(self, model: Any, empty: Tensor):
        super().__init__()
        self.model = model
        self.register_buffer("empty", empty[None].clone(), persistent=False)  # (1, T)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        prompt = encode_text(self.model, tokens)  # (B, C)
        mask = (tokens != self.empty).any(dim=1, keepdim=True).to(torch.int32)  # (B, 1)
        return prompt[:, None, :], mask  # (B, 1, C), (B, 1)
