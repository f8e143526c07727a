"""Grounding DINO against transformers' own model, and prompts of different lengths in one batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.grounding_dino import modeling_grounding_dino as upstream
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from export.deformable import GatherSampling
from export.examples import SIZES_WH, canvases, pictures
from export.grounding_dino import EncodeDinoPrompt, GroundingDino
from export.images import Detect
from tests.export.dino import LONGEST, SIDE, make_model

CLS, SEP, STOP = 101, 102, 1012
PROMPTS = [[1040, 1041], [1050], [], [1037, 1038, 1039, 1050, 1051, 1052, 1060], [1060, 1041, 1044]]


def tokens_of(words: list[int], length: int = LONGEST) -> list[int]:
    framed = [CLS, *words, STOP, SEP]
    return framed + [0] * (length - len(framed))


@pytest.fixture(scope="module")
def original() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def ours(original: Any) -> GroundingDino:
    return GroundingDino(copy.deepcopy(original), SIDE).eval()


@pytest.fixture(scope="module")
def prompts(ours: GroundingDino) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        prompt, mask = EncodeDinoPrompt(ours.model)(torch.tensor([tokens_of(words) for words in PROMPTS]))
    return prompt, mask


@pytest.fixture(scope="module")
def photos() -> tuple[torch.Tensor, torch.Tensor]:
    canvas, size, _ = canvases(pictures()[: len(PROMPTS)], 256)
    return torch.from_numpy(canvas), torch.from_numpy(size)


def test_gather_sampling_is_grid_sample() -> None:
    """Also at the edges and far outside, for two and more levels of uneven shape."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 7), (3, 4), (1, 2)]
    places = sum(high * wide for high, wide in shapes)
    value = torch.randn(3, places, 4, 8, generator=generator)
    locations = torch.randn(3, 11, 4, 3, 4, 2, generator=generator) * 0.8 + 0.5
    locations[0, 0], locations[0, 1], locations[0, 2], locations[0, 3] = 0.0, 1.0, 1e9, -1e9
    weights = torch.rand(3, 11, 4, 3, 4, generator=generator)
    inputs = value, torch.tensor(shapes), shapes, torch.tensor([0, 35, 47]), locations, weights, 64
    wanted = upstream.MultiScaleDeformableAttention()(*inputs)
    assert torch.allclose(GatherSampling()(*inputs), wanted, atol=1e-5)


def test_prompts_are_transformers_own(original: Any, prompts: tuple[torch.Tensor, torch.Tensor]) -> None:
    """``PROMPT`` and ``PROMPT_MASK`` against the text features that the model makes on its way."""
    captured: list[torch.Tensor] = []
    hook = original.model.text_projection.register_forward_hook(lambda module, given, made: captured.append(made))
    with torch.no_grad():
        for words in filter(None, PROMPTS):
            tokens = torch.tensor([tokens_of(words, len(words) + 3)])
            original(pixel_values=torch.zeros(1, 3, SIDE, SIDE), input_ids=tokens)
    hook.remove()
    prompt, mask = prompts
    asked = [row for row, words in enumerate(PROMPTS) if words]
    for row, made in zip(asked, captured, strict=True):
        length = made.shape[1]
        assert mask[row].tolist() == [1] * length + [0] * (LONGEST - length)
        assert torch.allclose(prompt[row, :length], made[0], atol=1e-5)
        assert not prompt[row, length:].any()
    assert not mask[PROMPTS.index([])].any()


def test_pixels_are_the_processors(ours: GroundingDino, photos: tuple[torch.Tensor, torch.Tensor]) -> None:
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": SIDE, "longest_edge": SIDE})
    boxed = ours.place(*photos)
    _, _, placed = canvases(pictures()[: len(PROMPTS)], 256)
    for row, image in enumerate(placed):
        made = processor(images=image.convert("RGB"), return_tensors="pt", do_normalize=False, do_rescale=False)
        pixels = made["pixel_values"][0].float()
        high, wide = pixels.shape[1:]
        assert (boxed.resized_h[row].item(), boxed.resized_w[row].item()) == (high, wide)
        # Newer versions of PIL swap the passes for thin images, and round in between.
        difference = (boxed.image[row, :, :high, :wide] * 255 - pixels).abs()
        assert difference.max() <= 1.01, SIZES_WH[row]
        assert difference.mean() < 0.25
        assert not boxed.image[row, :, high:].any()
        assert not boxed.image[row, :, :, wide:].any()


def upstream_row(original: Any, ours: GroundingDino, photos: Any, row: int) -> Any:
    """transformers' own forward for one image and its prompt, unpadded, on the pixels of ``place``."""
    boxed = ours.place(photos[0][row : row + 1], photos[1][row : row + 1])
    inside = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    inside[:, : int(boxed.resized_h), : int(boxed.resized_w)] = 1
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tokens = torch.tensor([tokens_of(PROMPTS[row], len(PROMPTS[row]) + 3)])
    with torch.no_grad():
        pixels = (boxed.image - mean) / std * inside[:, None]
        return original(pixel_values=pixels, input_ids=tokens, pixel_mask=inside)


def test_a_batch_of_mixed_prompts_equals_transformers_one_by_one(
    original: Any,
    ours: GroundingDino,
    photos: tuple[torch.Tensor, torch.Tensor],
    prompts: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Raw logits and boxes for the same proposals; and the proposals' own logits, before the choice."""
    prompt, mask = prompts
    with torch.no_grad():
        boxed = ours.place(*photos)
        encoded = ours.encode(boxed, prompt, mask)
    differences = []
    for row, words in enumerate(PROMPTS):
        if not words:
            continue
        wanted = upstream_row(original, ours, photos, row)
        length = len(words) + 3
        foreground = wanted.enc_outputs_class[0].amax(dim=1)
        assert torch.allclose(encoded.foreground[row], foreground, atol=1e-3)
        chosen = torch.topk(foreground, original.config.num_queries).indices[None].expand(len(PROMPTS), -1)
        with torch.no_grad():
            logits, boxes = ours.decode(encoded, chosen)
        differences.append((logits[row, :, :length] - wanted.logits[0, :, :length]).abs().max().item())
        assert torch.isneginf(logits[row, :, length:]).all()
        assert torch.allclose(boxes[row], wanted.pred_boxes[0], atol=1e-4)
        assert wanted.logits[0, :, :length].std() > 0.1  # the random model says something
    assert max(differences) < 1e-3, differences


def test_detects_what_the_processor_reports(
    original: Any,
    ours: GroundingDino,
    photos: tuple[torch.Tensor, torch.Tensor],
    prompts: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """The best box against ``post_process_grounded_object_detection``'s arithmetic, in pixels of the canvas."""
    with torch.no_grad():
        box, score = Detect(ours)(*photos, *prompts)
    for row, words in enumerate(PROMPTS):
        high, wide = photos[1][row, :2].tolist()
        if not words:
            assert score[row].item() == 0.0
            assert box[row].tolist() == [0.0, 0.0, wide, high]
            continue
        wanted = upstream_row(original, ours, photos, row)
        scores = wanted.logits[0].sigmoid().amax(dim=1)
        cx, cy, w, h = wanted.pred_boxes[0, scores.argmax()].tolist()
        corners = np.array([(cx - w / 2) * wide, (cy - h / 2) * high, (cx + w / 2) * wide, (cy + h / 2) * high])
        assert score[row].item() == pytest.approx(scores.max().item(), abs=1e-3)
        assert np.abs(box[row].numpy() - corners.clip(0, [wide, high, wide, high])).max() < 0.2


def test_empty_prompts_and_missing_images_stay_finite(
    ours: GroundingDino, photos: tuple[torch.Tensor, torch.Tensor], prompts: tuple[torch.Tensor, torch.Tensor]
) -> None:
    size = photos[1].clone()
    size[0] = 0
    with torch.no_grad():
        boxed = ours.place(photos[0], size)
        encoded = ours.encode(boxed, prompts[0], prompts[1])
        _, boxes = ours.decode(encoded, ours.propose(encoded))
    assert torch.isfinite(encoded.memory).all()
    assert torch.isfinite(boxes).all()
