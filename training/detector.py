"""Train the mini detector: YOLO-World at nano scale, prompted with one product type at run time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from training.augment import relight, resample, uniform
from training.catalogue.art import COLOURS
from training.catalogue.items import TRAINED_TYPES, Item
from training.data import PHOTO_SIDE, Dataset
from training.empty import draw_empty
from training.texts import draw_attributes, draw_name, draw_unknown

PROMPTS = 3
"""Prompts for each photo in a step. The backbone does not see the prompt, so it runs once for all of them."""

_EMPTY_PHOTOS, _EMPTY_SHARE = 400, 1 / 12
"""Pictures without a product that are drawn before training, and their share of every batch."""

_UNKNOWN_NAMES = 64
"""Unknown words among the names that a region could have."""

_NECK = 10  # index of the first layer of YOLO-World that sees the prompt


def encode_prompts(prompts: Sequence[str], encoder: Any, tokenizer: Any) -> Tensor:
    """Unit-length embeddings (N, 512) of prompts, from the mini encoder's text tower."""
    device = next(encoder.parameters()).device
    with torch.no_grad():
        encoded: Tensor = encoder.encode_text(tokenizer(list(prompts)).to(device), normalize=True)
        return encoded


def train(
    path: Path,
    data: Dataset,
    encoder: Any,
    tokenizer: Any,
    *,
    steps: int,
    batch: int,
    device: torch.device,
    cycle: int = 0,
) -> None:
    """Train with three losses, and write an ultralytics checkpoint in FP16.

    Ultralytics' detection loss prompts for one thing at a time, as the served model does. Half of the prompts name
    something that is not in the photo. The hard part is to tell which product a region shows, so the second loss
    classifies the centre of every product among all names and some unknown words. The third loss makes the best score
    of a photo the probability that the thing is there.

    ``cycle``: 0 starts from random weights. Later cycles start from the checkpoint, with other photos, in full size at
    once, at half the learning rate.
    """
    from ultralytics.nn.tasks import WorldModel
    from ultralytics.utils.loss import v8DetectionLoss

    rng = np.random.default_rng(cycle)
    torch.manual_seed(cycle)
    make_model: Any = WorldModel
    model = make_model("yolov8n-worldv2.yaml", nc=1, verbose=False)
    if cycle:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=False)["model"].float().state_dict())
    model.to(device)
    model.args = SimpleNamespace(box=7.5, cls=1.0, dfl=1.5)
    loss_of = v8DetectionLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02, betas=(0.9, 0.99))
    peak = 1e-3 if cycle else 2e-3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.06)
    number_of = {kind: number for number, kind in enumerate(TRAINED_TYPES)}
    near = _near_names(encoder, tokenizer)
    average = copy.deepcopy(model).eval()
    rows_of = _rows_by_photo(data)
    empty, empties = draw_empty(rng, _EMPTY_PHOTOS, data.photos), round(batch * _EMPTY_SHARE)
    model.train()
    progress = trange(steps, desc="detector", unit="step", smoothing=0.02)
    for step in progress:
        side = PHOTO_SIDE if cycle or step >= 0.65 * steps else PHOTO_SIDE * 7 // 10 // 32 * 32
        photos = np.sort(rng.choice(len(data.photos), batch - empties, replace=False))
        pictures = np.concatenate([data.photos[photos], empty[rng.choice(len(empty), empties, replace=False)]])
        images, window = _augment(torch.from_numpy(pictures).to(device), side)
        called = {kind: draw_name(kind, rng) for kind in TRAINED_TYPES}
        prompts: list[str] = []
        targets: list[list[float]] = []
        regions: list[list[float]] = []
        for rows, view in zip([*(rows_of[photo] for photo in photos), *[[]] * empties], window.cpu(), strict=True):
            boxes = {row: _visible_box(torch.from_numpy(data.boxes_xyxy[row]), view) for row in rows}
            visible = {row: box.tolist() for row, box in boxes.items() if box is not None}
            for row, box in visible.items():
                number = number_of[data.items[row].product_type]
                regions.append([len(prompts) + int(rng.integers(PROMPTS)), number, *box[:2]])
            asked = {row: data.items[row] for row in visible}
            for answer, text in _draw_prompts(asked, {data.items[row].product_type for row in rows}, called, near, rng):
                if answer is not None:
                    targets.append([len(prompts), 0, *visible[answer]])
                prompts.append(text)
        unknown = [draw_unknown(rng) for _ in range(_UNKNOWN_NAMES)]
        texts = encode_prompts([*prompts, *called.values(), *unknown], encoder, tokenizer)
        labels = torch.tensor(targets, dtype=torch.float32, device=device).view(-1, 6)
        with torch.autocast(device.type, torch.bfloat16):
            found, words = _forward(model, images, texts[: len(prompts), None])
        losses, _ = loss_of(found, {"batch_idx": labels[:, 0], "cls": labels[:, 1], "bboxes": labels[:, 2:]})
        named = _name_regions(words, torch.tensor(regions, device=device).view(-1, 4), texts[len(prompts) :])
        there = torch.zeros(len(prompts), device=device).index_fill(0, labels[:, 0].long(), 1.0)
        seen = functional.binary_cross_entropy_with_logits(found["scores"].amax((1, 2)), there)
        loss: Any = losses.sum() / len(prompts) + named + seen
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        _follow(average, model, decay=min(0.998, (1 + step) / (10 + step)))
        progress.set_postfix(
            loss=f"{loss.item():.2f}", named=f"{named.item():.2f}", seen=f"{seen.item():.2f}", side=side
        )
        if step % 500 == 499:
            _save(average, path)
    _save(average, path)


def _save(model: Any, path: Path) -> None:
    """Write a checkpoint for ``ultralytics.YOLOWorld(path)``: the pickled module, without the training state."""
    model = copy.deepcopy(model).cpu().half()
    model.args = {"imgsz": PHOTO_SIDE, "task": "detect", "model": "yolov8n-worldv2.yaml"}
    model.names = {0: "product"}
    model.txt_feats = torch.zeros(1, 1, 512)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "train_args": model.args, "epoch": -1}, path)


def _forward(model: Any, images: Tensor, text: Tensor) -> tuple[dict[str, Any], list[Tensor]]:
    """``WorldModel.predict`` for images (B, 3, S, S) and PROMPTS texts for each image, (B * PROMPTS, 1, 512).

    Returns the input of the detection loss, and for each level the embeddings of its cells, (B * PROMPTS, 512, height,
    width), in the space of the texts.
    """
    from ultralytics.nn.modules import C2fAttn

    x: Any = images
    kept: list[Any] = []
    for layer in model.model[:-1]:
        if layer.i == _NECK:
            x = x.repeat_interleave(PROMPTS, 0)
            kept = [y if y is None else y.repeat_interleave(PROMPTS, 0) for y in kept]
        if layer.f != -1:
            x = kept[layer.f] if isinstance(layer.f, int) else [x if j == -1 else kept[j] for j in layer.f]
        x = layer(x, text) if isinstance(layer, C2fAttn) else layer(x)
        kept.append(x if layer.i in model.save else None)
    head = model.model[-1]
    levels = [kept[j] for j in head.f]
    words, boxes, scores = [], [], []
    for level, to_box, to_words, compare in zip(levels, head.cv2, head.cv3, head.cv4, strict=True):
        words.append(compare.norm(to_words(level)))
        score = torch.einsum("bchw,bkc->bkhw", words[-1], functional.normalize(text, dim=-1))
        scores.append((score * compare.logit_scale.exp() + compare.bias).flatten(2))
        boxes.append(to_box(level).flatten(2))
    return {"boxes": torch.cat(boxes, 2).float(), "scores": torch.cat(scores, 2).float(), "feats": levels}, words


def _name_regions(words: list[Tensor], regions: Tensor, vocabulary: Tensor) -> Tensor:
    """The cross entropy of the regions' names among all names.

    ``words``: (N, 512, H, W) for each level; ``regions``: (K, 4), with the row in ``words``, the number of the name,
    and the x and y of the centre as fractions of the picture; ``vocabulary``: (names, 512).
    """
    row, number = regions[:, 0].long(), regions[:, 1].long()
    said = []
    for level in words:
        height, width = level.shape[2:]
        x, y = (regions[:, 2] * width).long(), (regions[:, 3] * height).long()
        said.append(level[row, :, y.clamp(0, height - 1), x.clamp(0, width - 1)].float() @ vocabulary.T)
    return functional.cross_entropy(torch.cat(said), number.repeat(len(words)))


def _rows_by_photo(data: Dataset) -> list[np.ndarray]:
    order = np.argsort(data.photo_of, kind="stable")
    return np.split(order, np.searchsorted(data.photo_of[order], np.arange(1, len(data.photos))))


def _near_names(encoder: Any, tokenizer: Any, count: int = 8) -> dict[str, list[str]]:
    """The product types whose names are most like that of each trained type, for the encoder."""
    names = encode_prompts(TRAINED_TYPES, encoder, tokenizer)
    order = (names @ names.T).fill_diagonal_(-1).topk(count).indices.tolist()
    return {kind: [TRAINED_TYPES[n] for n in nearest] for kind, nearest in zip(TRAINED_TYPES, order, strict=True)}


def _draw_prompts(
    visible: dict[int, Item],
    present: set[str],
    called: dict[str, str],
    near: dict[str, list[str]],
    rng: np.random.Generator,
) -> list[tuple[int | None, str]]:
    """PROMPTS prompts for a photo, each with the key of its product in ``visible``, or None if it is not there.

    ``present``: every product type in the photo, also those too hidden to ask for; ``called``: what a shopper calls
    each product type; ``near``: the product types whose names are most like that of each one. Half of the prompts are
    for something visible. Of the others, four in five are for other product types, of which every second one is near
    to a type in the photo, and the rest are unknown words and attributes without a noun.
    """
    left = [int(row) for row in rng.permutation(list(visible))]
    asked: list[tuple[int | None, str]] = []
    while len(asked) < PROMPTS:
        choice = rng.random()
        if choice < 0.5 and left:
            row = left.pop()
            asked.append((row, _prompt(called[visible[row].product_type], visible[row].colour, rng)))
        elif choice < 0.9:
            confusable = near[str(rng.choice(sorted(present)))] if present and rng.random() < 0.5 else TRAINED_TYPES
            absent = [kind for kind in confusable if kind not in present]
            colours = tuple(COLOURS)
            asked.append(
                (None, _prompt(called[absent[rng.integers(len(absent))]], colours[rng.integers(len(colours))], rng))
            )
        else:
            asked.append((None, draw_unknown(rng) if choice < 0.96 else draw_attributes(rng)))
    return asked


def _prompt(name: str, colour: str, rng: np.random.Generator) -> str:
    """A name as a prompt: in one case of ten with the colour."""
    return f"{colour} {name}" if rng.random() < 0.1 else name


def _augment(photos: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Zoom, shift, mirror and relight photos, uint8 (B, S, S, 3).

    Returns floats (B, 3, side, side) and the windows (B, 4) that ``resample`` took from the photos: centre and extent.
    """
    b, device = len(photos), photos.device
    extent = uniform(b, 0.7, 1.35, device)[:, None] * uniform(2 * b, 0.92, 1.08, device).view(b, 2)
    room = (1 - extent).abs()
    centre = (torch.rand(b, 2, device=device) * 2 - 1) * room
    extent[:, 0] *= torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    images = resample(photos.permute(0, 3, 1, 2).float() / 255, centre, extent, side, fill=114 / 255)
    return relight(images), torch.cat([centre, extent], 1)


def _visible_box(box_xyxy: Tensor, window: Tensor) -> Tensor | None:
    """A box seen through a window: centre and size as fractions of the picture, or None if under 40 % is visible."""
    centre, extent = window[:2], window[2:]
    corners = (box_xyxy.view(2, 2) / PHOTO_SIDE * 2 - 1 - centre) / extent  # (2, 2) in -1 to 1
    low, high = corners.min(0).values, corners.max(0).values
    whole = (high - low).prod()
    low, high = low.clamp(-1, 1), high.clamp(-1, 1)
    if (high - low).prod() < 0.4 * whole:
        return None
    return torch.cat([(low + high) / 4 + 0.5, (high - low) / 2])


def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights (exponential moving average) towards the model's."""
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
