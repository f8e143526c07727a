"""Grounding DINO of ``transformers`` behind the contract of ``detect``, with BERT as ``encode_prompt``.

It differs from transformers' own forward in four ways, none of which changes the results:

- The text is an input that is already encoded (``PROMPT``), so that a prompt can be encoded once.
- The attention masks and position ids of the text are computed from ``PROMPT_MASK`` by elementwise arithmetic.
  transformers' ``generate_masks_with_special_tokens_and_transfer_map`` needs the token ids.
- Deformable attention samples with ``Gather``: see ``export.deformable``.
- Only the last decoder layer's boxes and logits are computed.

A prompt is one phrase: ``[CLS] words . [SEP]``, padded to a fixed length.

Shapes: B images, L tokens of a prompt, C width of the model, D side of the input, N places on all feature maps,
K queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.deformable import DeformableAttention
from export.errors import UnsupportedModel
from export.images import Letterboxed, best_box, pixel_numbers, whole_image
from export.resample import axis_weights, resample
from serving.repository.specs import TensorSpec

# ImageNet's statistics, as in transformers' image processor.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

FRAME = 3
"""Number of tokens of a prompt that are not words: ``[CLS]``, the full stop and ``[SEP]``."""

PROBES = (
    TensorSpec("FOREGROUND", "FP32", ("N",)),
    TensorSpec("CHOSEN", "INT64", ("K",)),
    TensorSpec("LOGITS", "FP32", ("K", "L")),
    TensorSpec("BOXES", "FP32", ("K", 4)),
)
"""The outputs of ``DetectWithProbes`` in addition to those of ``detect``."""


def phrase_masks(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The attention mask and the position ids of prompts with one phrase each.

    The words and their full stop attend to each other and are numbered from 0. ``[CLS]``, ``[SEP]`` and padding attend
    to themselves only and have the position 0. Follows ``generate_masks_with_special_tokens_and_transfer_map``.

    Args:
        mask: (B, L), 1 for the tokens from ``[CLS]`` to ``[SEP]``, which come first; then 0.

    Returns:
        (B, L, L) boolean, (B, L) int64
    """
    numbers = torch.arange(mask.shape[1], device=mask.device)[None]  # (1, L)
    phrase = (numbers >= 1) & (numbers <= mask.sum(dim=1, keepdim=True) - 2)  # (B, L)
    itself = numbers[:, :, None] == numbers[:, None, :]  # (1, L, L)
    attend = (phrase[:, :, None] & phrase[:, None, :]) | itself
    return attend, torch.where(phrase, numbers - 1, torch.zeros_like(numbers))


class EncodeDinoPrompt(nn.Module):
    """``encode_prompt``: BERT and a projection to the detector's width. An empty prompt gives zeros."""

    def __init__(self, model: Any):
        super().__init__()
        self.bert = model.model.text_backbone
        self.projection = model.model.text_projection
        self.padding = int(self.bert.config.pad_token_id or 0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        present = (tokens != self.padding).to(torch.int32)  # (B, T)
        attend, positions = phrase_masks(present)
        kinds = torch.zeros_like(tokens)
        hidden = self.bert(tokens, attend[:, None], kinds, positions, return_dict=True).last_hidden_state
        asked = (present.sum(dim=1, keepdim=True) > FRAME).to(torch.int32)  # (B, 1)
        mask = present * asked
        return self.projection(hidden) * mask[:, :, None].float(), mask  # (B, L, C), (B, L)


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for an image and its prompt, with every place on the feature maps as a proposal."""

    memory: Tensor  # (B, N, C)
    text: Tensor  # (B, L, C)
    present: Tensor  # (B, L), boolean
    valid: Tensor  # (B, N), boolean: false for padding
    ratios: Tensor  # (B, levels, 2), the share of a map that the image covers
    coordinates: Tensor  # (B, N, 4), before the sigmoid
    foreground: Tensor  # (B, N), the best logit of any token


class GroundingDino(nn.Module):
    """The detector with one prompt per image. It changes ``model``, a ``GroundingDinoForObjectDetection``.

    Raises:
        UnsupportedModel: the configuration is not that of a published model.
    """

    def __init__(self, model: Any, side: int):
        super().__init__()
        if not (model.config.two_stage and model.config.embedding_init_target):
            raise UnsupportedModel("a Grounding DINO without learned queries and two stages cannot be exported")
        self.model = model.float().eval()
        self.side = side
        self.prompt_width = int(model.config.d_model)
        for layer in self.model.model.encoder.layers:
            layer.deformable_layer.self_attn = DeformableAttention(layer.deformable_layer.self_attn)
        for layer in self.model.model.decoder.layers:
            layer.encoder_attn = DeformableAttention(layer.encoder_attn)

    def place(self, canvas: Tensor, size: Tensor) -> Letterboxed:
        """Resize the longer side to D with PIL's bilinear filter, and pad with zeros, like transformers' processor.

        The published processor allows 1333 pixels for the longer side and 800 for the shorter. Here both are D.
        """
        extent = whole_image(size)
        width, height = extent[:, 2:3], extent[:, 3:4]  # (B, 1)
        longest = torch.maximum(width, height)
        new_w = (width * self.side / longest).round().clamp(min=1.0)
        new_h = (height * self.side / longest).round().clamp(min=1.0)
        zero, numbers = torch.zeros_like(width), pixel_numbers(canvas)
        wx = axis_weights(zero, width, new_w, zero, self.side, numbers, "bilinear")  # (B, D, S)
        wy = axis_weights(zero, height, new_h, zero, self.side, numbers, "bilinear")  # (B, D, S)
        image = resample(canvas, wy, wx) / 255.0  # (B, 3, D, D)
        return Letterboxed(image, zero, zero, new_w / width, new_h / height, new_w, new_h)

    def encode(self, boxed: Letterboxed, prompt: Tensor, mask: Tensor) -> Encoded:
        """Backbone, neck and encoder. (B, 3, D, D), (B, L, C), (B, L)"""
        core = self.model.model
        numbers = torch.arange(self.side, dtype=torch.float32, device=prompt.device)[None]  # (1, D)
        inside = (numbers < boxed.resized_h)[:, :, None] & (numbers < boxed.resized_w)[:, None, :]  # (B, D, D)
        mean, std = (torch.tensor(x, device=prompt.device).view(1, 3, 1, 1) for x in (MEAN, STD))
        pixels = (boxed.image - mean) / std * inside[:, None].float()

        features, positions = core.backbone(pixels, inside)
        maps = [core.input_proj_vision[level](feature) for level, (feature, _) in enumerate(features)]
        masks = [covered for _, covered in features]
        for level in range(len(maps), self.model.config.num_feature_levels):
            source = features[-1][0] if level == len(features) else maps[-1]
            maps.append(core.input_proj_vision[level](source))
            masks.append(functional.interpolate(inside[None].float(), size=maps[-1].shape[-2:]).to(torch.bool)[0])
            positions.append(core.backbone.position_embedding(maps[-1], masks[-1]))

        # An empty prompt keeps its [CLS], because a softmax over nothing is NaN. Its result is not used.
        present = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)  # (B, L)
        attend, order = phrase_masks(present)
        valid = torch.cat([covered.flatten(1) for covered in masks], dim=1)  # (B, N)
        ratios = torch.stack([core.get_valid_ratio(covered) for covered in masks], dim=1)  # (B, levels, 2)
        level_positions = [
            where.flatten(2).transpose(1, 2) + core.level_embed[level] for level, where in enumerate(positions)
        ]
        encoded = core.encoder(
            vision_features=torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1),  # (B, N, C)
            vision_attention_mask=~valid,
            vision_position_embedding=torch.cat(level_positions, dim=1),
            **self.geometry,
            valid_ratios=ratios,
            text_features=prompt,
            text_attention_mask=present == 0,
            text_self_attention_masks=~attend,
            text_position_ids=order,
            return_dict=True,
        )
        memory, text = encoded.last_hidden_state_vision, encoded.last_hidden_state_text
        objects, proposals = core.generate_encoder_output_proposals(memory, ~valid, self.map_shapes)
        return Encoded(
            memory=memory,
            text=text,
            present=present > 0,
            valid=valid,
            ratios=ratios,
            coordinates=core.encoder_output_bbox_embed(objects) + proposals,
            foreground=word_logits(objects, text, present > 0).amax(dim=2),
        )

    @property
    def map_shapes(self) -> list[tuple[int, int]]:
        """Height and width of each feature map: strides of 8, 16, 32, then halved by convolutions of stride 2."""
        config = self.model.config
        sides = [self.side // stride for stride in (8, 16, 32)]
        while len(sides) < config.num_feature_levels:
            sides.append((sides[-1] + 1) // 2)
        return [(side, side) for side in sides]

    @property
    def geometry(self) -> dict[str, Any]:
        shapes = self.map_shapes
        starts = [sum(high * wide for high, wide in shapes[:level]) for level in range(len(shapes))]
        return {
            "spatial_shapes": torch.tensor(shapes),
            "spatial_shapes_list": shapes,
            "level_start_index": torch.tensor(starts),
        }

    def propose(self, encoded: Encoded) -> Tensor:
        """The places with the highest logits. → (B, K)"""
        return torch.topk(encoded.foreground, self.model.config.num_queries, dim=1).indices

    def decode(self, encoded: Encoded, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) places → logits for each token (B, K, L), boxes as centre and extent in 0 … 1 (B, K, 4)"""
        core = self.model.model
        start = encoded.coordinates.gather(1, chosen[:, :, None].expand(-1, -1, 4)).sigmoid()  # (B, K, 4)
        queries = core.query_position_embeddings.weight[None].expand(chosen.shape[0], -1, -1)  # (B, K, C)
        decoded = core.decoder(
            inputs_embeds=queries,
            vision_encoder_hidden_states=encoded.memory,
            vision_encoder_attention_mask=encoded.valid,
            text_encoder_hidden_states=encoded.text,
            text_encoder_attention_mask=~encoded.present,
            reference_points=start,
            **self.geometry,
            valid_ratios=encoded.ratios,
            return_dict=True,
        )
        hidden = decoded.intermediate_hidden_states[:, -1]  # (B, K, C)
        reference = decoded.intermediate_reference_points[:, -2]  # (B, K, 4): transformers has two layers or more
        boxes = (self.model.bbox_embed[-1](hidden) + torch.special.logit(reference, eps=1e-5)).sigmoid()
        return word_logits(hidden, encoded.text, encoded.present), boxes

    def rate(self, boxed: Letterboxed, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Like transformers' processor: the best token's score. → boxes in input pixels (B, K, 4), scores (B, K)"""
        scale = torch.cat([boxed.resized_w, boxed.resized_h], dim=1)[:, None]  # (B, 1, 2)
        center, extent = boxes[:, :, 0:2] * scale, boxes[:, :, 2:4] * scale
        return torch.cat([center - extent / 2.0, center + extent / 2.0], dim=2), logits.amax(dim=2).sigmoid()

    def forward(self, boxed: Letterboxed, prompt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encode(boxed, prompt, mask)
        return self.rate(boxed, *self.decode(encoded, self.propose(encoded)))


def word_logits(hidden: Tensor, text: Tensor, present: Tensor) -> Tensor:
    """Logits of each token. (B, K, C), (B, L, C), (B, L) → (B, K, L), minus infinity for padding"""
    return (hidden @ text.transpose(1, 2)).masked_fill(~present[:, None], float("-inf"))


class DetectWithProbes(nn.Module):
    """``detect`` with intermediate results as outputs, which the gate needs.

    The proposals are the best of thousands of nearly equal places. The last bit of a logit decides which of two is
    chosen, and queries influence each other. So the boxes of two runtimes can be compared only for the same proposals.
    """

    def __init__(self, detector: GroundingDino):
        super().__init__()
        self.detector = detector

    def forward(self, canvas: Tensor, size: Tensor, prompt: Tensor, prompt_mask: Tensor) -> tuple[Tensor, ...]:
        boxed = self.detector.place(canvas, size)
        encoded = self.detector.encode(boxed, prompt, prompt_mask)
        chosen = self.detector.propose(encoded)
        logits, boxes = self.detector.decode(encoded, chosen)
        box, score = best_box(*self.detector.rate(boxed, logits, boxes), boxed, size, prompt_mask)
        return box, score, encoded.foreground, chosen, logits, boxes
