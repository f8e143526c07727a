"""Multi-scale deformable attention for ONNX and TensorRT, as in Grounding DINO of ``transformers``.

Shapes: B images, C width of the model, N places on all feature maps, Q queries, H heads, P sampling points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GatherSampling(nn.Module):
    """Deformable attention's weighted bilinear sampling without ``GridSample``. It replaces transformers' own.

    The symptom: TensorRT 10.14 and 11.1 give wrong numbers for ``GridSample`` in deformable attention, even in FP32
    (TensorRT issue 4813). Everyone who builds a plan is affected. The replacement is safe because it computes the sum
    of ``grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)``: four neighbours of each point, with
    weight zero for those outside of the map.
    """

    def forward(
        self,
        value: Tensor,  # (B, N, H, C/H)
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        sampling_locations: Tensor,  # (B, Q, H, levels, P, 2), x y of 0 … 1
        attention_weights: Tensor,  # (B, Q, H, levels, P)
        im2col_step: int,
    ) -> Tensor:
        batch, places, heads, width = value.shape
        table = value.reshape(-1, width)  # (B·N·H, C/H)
        row = torch.arange(batch, device=value.device).view(-1, 1, 1, 1) * places  # (B, 1, 1, 1)
        head = torch.arange(heads, device=value.device).view(1, 1, -1, 1)  # (1, 1, H, 1)
        dx = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=value.dtype, device=value.device)
        dy = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=value.dtype, device=value.device)
        start = 0
        total = torch.zeros(1, dtype=value.dtype, device=value.device)
        for level, (high, wide) in enumerate(value_spatial_shapes_list):
            # Points far outside count like those one pixel outside, so integers cannot overflow.
            x = (sampling_locations[:, :, :, level, :, 0:1] * wide - 0.5).clamp(-2.0, wide + 1.0)  # (B, Q, H, P, 1)
            y = (sampling_locations[:, :, :, level, :, 1:2] * high - 0.5).clamp(-2.0, high + 1.0)
            column, line = x.floor() + dx, y.floor() + dy  # (B, Q, H, P, 4): the neighbours
            near_column, near_line = column.clamp(0.0, wide - 1.0), line.clamp(0.0, high - 1.0)
            inside = (column == near_column) & (line == near_line)
            share = (1.0 - (x - column).abs()) * (1.0 - (y - line).abs()) * inside.to(value.dtype)
            weights = (share * attention_weights[:, :, :, level, :, None]).flatten(3)  # (B, Q, H, 4P)
            place = (near_line * wide + near_column).long().flatten(3)  # whole numbers below 2²⁴: exact
            neighbours = functional.embedding((row + start + place) * heads + head, table)  # (B, Q, H, 4P, C/H)
            total = total + (weights[:, :, :, None] @ neighbours)[:, :, :, 0]  # (B, Q, H, C/H)
            start += high * wide
        return total.flatten(2)  # (B, Q, C)


class DeformableAttention(nn.Module):
    """transformers' ``GroundingDinoMultiscaleDeformableAttention`` with ``GatherSampling``.

    The original also compares shapes with a tensor while it is traced, for which ONNX has no operator.
    """

    def __init__(self, original: Any):
        super().__init__()
        self.original = original
        self.sample = GatherSampling()

    def forward(
        self,
        hidden_states: Tensor,  # (B, Q, C)
        attention_mask: Tensor,  # (B, N), true for what is not padding
        encoder_hidden_states: Tensor,  # (B, N, C)
        position_embeddings: Tensor,  # (B, Q, C)
        reference_points: Tensor,  # (B, Q, levels, 2 or 4): centre, or centre and extent
        spatial_shapes: Tensor,  # (levels, 2)
        spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        of = self.original
        queries = hidden_states + position_embeddings
        split = (*queries.shape[:2], of.n_heads, of.n_levels, of.n_points)
        value = of.value_proj(encoder_hidden_states).masked_fill(~attention_mask[:, :, None], 0.0)
        value = value.view(*value.shape[:2], of.n_heads, -1)  # (B, N, H, C/H)
        offsets = of.sampling_offsets(queries).view(*split, 2)  # (B, Q, H, levels, P, 2)
        weights = of.attention_weights(queries).view(*split[:3], -1).softmax(dim=-1).view(split)
        center = reference_points[:, :, None, :, None, 0:2]
        if reference_points.shape[-1] == 2:
            locations = center + offsets / spatial_shapes.flip(1)[None, None, None, :, None].float()
        else:
            locations = center + offsets / of.n_points * reference_points[:, :, None, :, None, 2:4] * 0.5
        sampled = self.sample(value, spatial_shapes, spatial_shapes_list, level_start_index, locations, weights, 0)
        return of.output_proj(sampled), None
