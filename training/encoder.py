"""Train the mini encoder: a small open_clip model, on crops of products and the shop's texts about them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import trange

from training.augment import relight, resample, uniform
from training.catalogue.items import HELD_OUT_TYPES, TRAINED_TYPES, Item
from training.catalogue.products import REGISTRY
from training.data import CROP_MARGIN, Dataset
from training.texts import draw_attributes, draw_name, draw_unknown

CONFIG = Path(__file__).with_name("open_clip_config.json")
UNKNOWN_TEXTS = 96
"""Texts in each step that name no product. A third as many consist of attributes alone."""

IMAGE_SIZE, _MEAN, _STD = 96, 0.5, 0.5  # as in CONFIG
_MERGES = 900
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # how open_clip's tokenizer splits a text


def config(vocab_size: int) -> dict[str, Any]:
    """The model's configuration in open_clip's format."""
    found: dict[str, Any] = json.loads(CONFIG.read_text())
    found["model_cfg"]["text_cfg"]["vocab_size"] = vocab_size
    return found


def load(folder: Path, device: torch.device) -> tuple[torch.nn.Module, open_clip.SimpleTokenizer]:
    """The trained model in evaluation mode, and its tokenizer."""
    model = open_clip.create_model(f"local-dir:{folder}", device=device)
    return model.eval(), _tokenizer(folder)


def train(folder: Path, data: Dataset, *, steps: int, batch: int, device: torch.device, resume: bool = False) -> None:
    """Train with CLIP's loss and write an open_clip ``local-dir:`` folder with weights in FP16.

    A step has two batches: crops with one of their texts, and one crop of every product type with the type's name.
    The second batch teaches the names well enough to prompt a detector. In the first batch a type can occur more than
    once, so the loss would count its bare name as wrong for the other crops of the type.

    Every step also has texts that name no product: each is one more wrong answer for every crop, and it is kept away
    from the names of the product types, as these are kept away from each other. Without this, the encoder maps a word
    that it does not know next to a type, and no detector can tell the two apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(steps)
    if not resume:
        vocab_size = _write_tokenizer(folder / "bpe.txt.gz", data.items)
        (folder / "open_clip_config.json").write_text(json.dumps(config(vocab_size), indent=2) + "\n")
    tokenizer = _tokenizer(folder)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=resume, device=device)
    model.visual.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    peak = 5e-4 if resume else 2e-3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    rows_of: dict[str, list[int]] = {kind: [] for kind in TRAINED_TYPES}
    for row, item in enumerate(data.items):
        rows_of[item.product_type].append(row)
    model.train()
    progress = trange(steps, desc="encoder", unit="step", smoothing=0.05)
    for step in progress:
        rows = np.sort(rng.choice(len(data.items), batch, replace=False))
        texts = [_text(data.items[row], rng) for row in rows]
        one_of_each = np.array([rng.choice(rows_of[kind]) for kind in TRAINED_TYPES])
        names = [draw_name(kind, rng) for kind in TRAINED_TYPES]
        crops = np.concatenate([data.crops[rows], data.crops[one_of_each]])
        pixels = _augment(torch.from_numpy(crops).to(device))
        unknown = [draw_unknown(rng) for _ in range(UNKNOWN_TEXTS)]
        attributes = [draw_attributes(rng) for _ in range(UNKNOWN_TEXTS // 3)]
        tokens = tokenizer([*texts, *names, *unknown, *attributes]).to(device)
        # On a CPU the backward pass of depthwise convolutions is slower in BF16 than in FP32.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            image, text, scale = model(pixels, tokens)
        image, text, scale = image.float(), text.float(), scale.float()
        text, named, negative = text[:batch], text[batch : len(image)], text[len(image) :]
        wrong = negative[:UNKNOWN_TEXTS]
        apart = keep_apart(named, negative)
        loss: Any = contrast(image[:batch], text, wrong, scale)
        loss = loss + 0.5 * contrast(image[batch:], named, wrong, scale) + apart
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", apart=f"{apart.item():.3f}", scale=f"{scale.item():.1f}")
        if step % 500 == 499:
            _save(model, folder)
    _save(model, folder)


def contrast(image: Tensor, text: Tensor, wrong: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss for N images and their N texts, where an image can also be taken for one of the ``wrong`` texts."""
    right = torch.arange(len(image), device=image.device)
    logits = scale * image @ torch.cat([text, wrong]).T
    return (cross_entropy(logits, right) + cross_entropy(logits[:, : len(text)].T, right)) / 2


def keep_apart(names: Tensor, others: Tensor) -> Tensor:
    """How far other texts exceed a cosine of 0.2 to the nearest name, and names a cosine of 0.5 to each other."""
    between = (names @ names.T).fill_diagonal_(-1)
    return (others @ names.T).amax(1).sub(0.2).relu().mean() + 0.5 * between.amax(1).sub(0.5).relu().mean()


def _save(model: torch.nn.Module, folder: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous().cpu() for name, value in state.items()}, folder / "open_clip_model.safetensors")


def _text(item: Item, rng: np.random.Generator) -> str:
    """A random text about an item: its caption, a shopper's query, the shop's title or the shop's description."""
    name = draw_name(item.product_type, rng)
    choice = rng.random()
    if choice < 0.55:
        return item.caption
    if choice < 0.82:
        words = [word for word in (item.colour, item.pattern) if rng.random() < 0.75]
        rng.shuffle(words)
        return " ".join([str(rng.choice(("", "a", "one", "a photo of a", "the"))), *words, name]).strip()
    return item.title if choice < 0.93 else item.description


def _augment(crops: Tensor) -> Tensor:
    """Jitter the boxes of crops, uint8 (B, 144, 144, 3), mirror and relight them: normalised float (B, 3, 96, 96)."""
    b, device = len(crops), crops.device
    box = 1 / (1 + 2 * CROP_MARGIN)  # the box's half side in the crop's units
    low, high = -box - uniform(2 * b, -0.1, 0.16, device), box + uniform(2 * b, -0.1, 0.16, device)
    low, high = low.clamp(min=-1).view(b, 2), high.clamp(max=1).view(b, 2)
    extent = (high - low) / 2
    extent[:, 0] *= torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    images = resample(crops.permute(0, 3, 1, 2).float() / 255, (low + high) / 2, extent, IMAGE_SIZE, fill=0.5)
    return ((relight(images) - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)


def _tokenizer(folder: Path) -> open_clip.SimpleTokenizer:
    return open_clip.get_tokenizer(f"local-dir:{folder}", bpe_path=str(folder / "bpe.txt.gz"))


def _write_tokenizer(path: Path, items: list[Item]) -> int:
    """Learn byte-pair merges from the catalogue's texts and write open_clip's merges file. Returns the vocabulary size.

    The texts include the names of the held-out types: no photo of them is in the training set, but any shop knows them.
    """
    texts = [text for item in items for text in (item.caption, item.title, item.description)]
    texts += [REGISTRY[name].name for name in HELD_OUT_TYPES for _ in range(200)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + _MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator((text.lower() for text in texts), trainer)
    merges = [" ".join(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *merges]).encode(), mtime=0))
    return 2 * len(alphabet) + len(merges) + 2
