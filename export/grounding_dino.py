"""Grounding DINO of ``transformers`` behind the contract of ``detect``, with BERT as ``encode_prompt``.

Differences from transformers' own forward, none of which changes what is computed:

- the text comes in encoded (``PROMPT``), so that prompts can be encoded once;
- the attention masks and position ids of the text follow from ``PROMPT_MASK`` by elementwise arithmetic, in place of
  ``generate_masks_with_special_tokens_and_transfer_map``, which needs the token ids;
- deformable attention samples by ``Gather`` in place of ``GridSample``, which TensorRT miscompiles;
- only the last decoder layer's boxes and logits are made.

A prompt is one phrase: ``[CLS] words . [SEP]``, padded to the length of the longest that is allowed.

Shapes: B images, L tokens of a prompt, C width of the model, D side of the input, N places on all feature maps,
K queries, H heads, P sampling points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import SourceError, UnsupportedModel, UsageError, first_line
from export.images import Letterboxed, best_box, pixel_numbers, whole_image
from export.quiet import quiet_exporters
from export.resample import axis_weights, resample
from export.sources import GROUNDING_DINO, GROUNDING_DINO_SIDE, DetectorSource, LoadedDetector
from serving.repository.specs import TensorSpec

# Of transformers' image processor: ImageNet's statistics.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

FRAME = 3
"""Tokens of a prompt that are no words: ``[CLS]``, the full stop and ``[SEP]``."""


PROBES = (
    TensorSpec("FOREGROUND", "FP32", ("N",)),
    TensorSpec("CHOSEN", "INT64", ("K",)),
    TensorSpec("LOGITS", "FP32", ("K", "L")),
    TensorSpec("BOXES", "FP32", ("K", 4)),
)
"""What ``DetectWithProbes`` gives beside the outputs of ``detect``."""


def load_grounding_dino(source: DetectorSource, side: int | None = None) -> LoadedDetector:
    """The FP32 model in evaluation mode with its tokenizer, from the hub, a folder, or with random weights.

    Raises:
        SourceError: weights that are missing, damaged or of another architecture.
        UsageError: a side that the strides do not divide.
    """
    import transformers

    from export.phrases import character_tokenizer

    chosen = side or GROUNDING_DINO_SIDE
    if chosen % 32:
        raise UsageError(f"the detector's side must be a multiple of 32, came {chosen}")
    if source.random:
        torch.manual_seed(0)
        model = transformers.GroundingDinoForObjectDetection(configuration(source.name))
        enliven(model)
        return LoadedDetector(model.eval(), chosen, character_tokenizer())
    where = str(source.file or GROUNDING_DINO[source.name])
    try:
        with quiet_exporters():
            config = transformers.AutoConfig.from_pretrained(where)
            if config.model_type != "grounding-dino":
                raise SourceError(f"{where} holds a {config.model_type}, not a Grounding DINO")
            loaded: Any = transformers.GroundingDinoForObjectDetection.from_pretrained(
                where, output_loading_info=True, dtype=torch.float32
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    except SourceError:
        raise
    except Exception as error:
        hint = "" if source.file else " (or give a folder made by save_pretrained with --detector-weights FOLDER)"
        raise SourceError(f"the detector cannot be loaded from {where}{hint}: {first_line(error)}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise SourceError(f"the weights in {where} lack {sorted(report['missing_keys'])[0]}")
    return LoadedDetector(model.eval(), chosen, tokenizer)


def configuration(name: str) -> Any:
    """The architecture of a published model, as its ``config.json`` has it."""
    from transformers import GroundingDinoConfig

    if name == "grounding-dino-tiny":
        return GroundingDinoConfig()
    swin = {
        "model_type": "swin",
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
        "image_size": 384,
        "out_indices": [2, 3, 4],
    }
    return GroundingDinoConfig(backbone_config=swin)


@torch.no_grad()
def enliven(model: Any) -> None:
    """Changes new random weights so that every part of the model has a say in its answer.

    transformers starts sampling offsets, attention weights and boxes at zero and the fusion of image and text near
    it, and logits grow with the root of the width until every score is 1: a comparison would see little of the graph.
    """
    spread = model.config.d_model**-0.5
    for name, parameter in model.named_parameters():
        if "encoder_output_bbox_embed.layers.0" in name:  # sees what enc_output_norm, below, makes small
            parameter.add_(torch.randn_like(parameter))
        elif "bbox_embed" in name:  # every layer of the decoder moves its boxes with the same weights: not far
            parameter.add_(torch.randn_like(parameter) * spread / 2)
        elif "sampling_offsets" in name or "attention_weights" in name:
            parameter.add_(torch.randn_like(parameter) * spread)
        elif name.endswith(("vision_param", "text_param")):
            parameter.fill_(0.5)
        elif name.endswith(("enc_output_norm.weight", "decoder.layer_norm.weight")):
            parameter.mul_(spread)


def phrase_masks(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Who may look at whom among the tokens of one phrase each, and where each token stands.

    The words and their full stop see each other and are counted from 0; ``[CLS]``, ``[SEP]`` and padding see
    themselves alone and stand at 0. Follows ``generate_masks_with_special_tokens_and_transfer_map``.

    Args:
        mask: (B, L), 1 for the tokens from ``[CLS]`` to ``[SEP]``, which lead; then 0.

    Returns:
        (B, L, L) boolean, (B, L) int64
    """
    numbers = torch.arange(mask.shape[1], device=mask.device)[None]  # (1, L)
    phrase = (numbers >= 1) & (numbers <= mask.sum(dim=1, keepdim=True) - 2)  # (B, L)
    itself = numbers[:, :, None] == numbers[:, None, :]  # (1, L, L)
    attend = (phrase[:, :, None] & phrase[:, None, :]) | itself
    return attend, torch.where(phrase, numbers - 1, torch.zeros_like(numbers))


class GatherSampling(nn.Module):
    """Deformable attention's weighted bilinear sampling, without ``GridSample``; takes the place of transformers' own.

    The symptom: TensorRT 10.14 and 11.1 give wrong numbers for ``GridSample`` in deformable attention, even in FP32
    (TensorRT issue 4813). This is the same sum written out: four neighbours of each point, those beyond the map with
    weight zero, as ``grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)`` has it.
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
        table = value.reshape(-1, width)  # (B·N·H, C/H): one row is read at once
        row = torch.arange(batch, device=value.device).view(-1, 1, 1, 1) * places  # (B, 1, 1, 1)
        head = torch.arange(heads, device=value.device).view(1, 1, -1, 1)  # (1, 1, H, 1)
        dx = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=value.dtype, device=value.device)
        dy = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=value.dtype, device=value.device)
        start = 0
        total = torch.zeros(1, dtype=value.dtype, device=value.device)
        for level, (high, wide) in enumerate(value_spatial_shapes_list):
            # Far outside is as good as one pixel outside: integers cannot overflow.
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

    The original also checks its shapes by a tensor in the middle of the trace, which no ONNX operator can do.
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


class EncodeDinoPrompt(nn.Module):
    """``encode_prompt``: BERT over one phrase each, projected to the detector's width; zero where there is no word."""

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
    """What the encoder made of an image and its prompt, and every place on the feature maps as a proposal."""

    memory: Tensor  # (B, N, C)
    text: Tensor  # (B, L, C)
    present: Tensor  # (B, L), boolean
    valid: Tensor  # (B, N), boolean: not in the padding
    ratios: Tensor  # (B, levels, 2), the share of a map that the image covers
    coordinates: Tensor  # (B, N, 4), before the sigmoid
    foreground: Tensor  # (B, N), the best logit of any token


class GroundingDino(nn.Module):
    """The detector of one prompt per image; ``model`` is a ``GroundingDinoForObjectDetection``, which is changed.

    Raises:
        UnsupportedModel: a configuration that no published model has.
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
        """As transformers' processor does: the longer side to D, PIL's bilinear, at the top left, zeros behind.

        The published processor allows 1333 pixels on the longer side and 800 on the shorter; a square of one size
        has room for D on the longer one.
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

        # An empty prompt keeps its [CLS]: a softmax over nothing is not a number, and its answer is not used.
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
        """The places that look most like what is asked for. → (B, K)"""
        return torch.topk(encoded.foreground, self.model.config.num_queries, dim=1).indices

    def decode(self, encoded: Encoded, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) places → logits for each token (B, K, L), boxes as centre and extent of 0 … 1 (B, K, 4)"""
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
        """As transformers' processor does: the best token counts. → boxes in input pixels (B, K, 4), scores (B, K)"""
        scale = torch.cat([boxed.resized_w, boxed.resized_h], dim=1)[:, None]  # (B, 1, 2)
        center, extent = boxes[:, :, 0:2] * scale, boxes[:, :, 2:4] * scale
        return torch.cat([center - extent / 2.0, center + extent / 2.0], dim=2), logits.amax(dim=2).sigmoid()

    def forward(self, boxed: Letterboxed, prompt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encode(boxed, prompt, mask)
        return self.rate(boxed, *self.decode(encoded, self.propose(encoded)))


def word_logits(hidden: Tensor, text: Tensor, present: Tensor) -> Tensor:
    """(B, K, C), (B, L, C), (B, L) → (B, K, L); minus infinity for padding"""
    return (hidden @ text.transpose(1, 2)).masked_fill(~present[:, None], float("-inf"))


class DetectWithProbes(nn.Module):
    """``detect``, and the numbers on its way by which the gate can judge it.

    The proposals are the best of thousands of nearly equal places. Which of two comes in hangs on the last bit, and
    the queries see each other: boxes of two runtimes can be compared only for the same proposals.
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
