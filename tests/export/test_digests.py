"""A version changes with what the answers depend on, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from export.build import load_prompt_encoder, make_request
from export.digests import digests_of
from export.encoder_sources import resolve_encoder
from export.encoders import EncodePrompt
from export.install import SHIPPED
from export.leaves import PromptEncoder
from export.load_detector import LoadedDetector, load_detector
from export.load_encoder import Encoder, load_encoder
from export.sources import MINI
from serving.repository.manifest import Manifest
from serving.repository.versions import PARTS


@dataclass
class Loaded:
    """What an export reads."""

    encoder: Encoder
    detector: LoadedDetector
    prompts: PromptEncoder
    threshold: float
    tokenizers: dict[str, str]

    def digests(self) -> dict[str, str]:
        return digests_of(self.encoder, self.detector, self.prompts, self.threshold, self.tokenizers)


def load() -> Loaded:
    request = make_request("mini", "mini", threshold=0.2)
    detector, encoder = load_detector(request.detector), load_encoder(request.encoder)
    # In the export they share the text tower. Here a change of one must not show in the other.
    prompts = load_prompt_encoder(request, detector, deepcopy(encoder))
    return Loaded(encoder, detector, prompts, 0.2, {"tokenize": "aa", "tokenize_prompt": "aa"})


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load()


def nudge(module: nn.Module) -> None:
    """Change the last weight by as little as FP32 can."""
    with torch.no_grad():
        weight = list(module.parameters())[-1].view(-1)
        weight[-1] = torch.nextafter(weight[-1], torch.tensor(torch.inf))


def change_activation(loaded: Loaded) -> None:
    loaded.encoder.model.transformer.resblocks[0].mlp.gelu = open_clip.transformer.QuickGELU()


def set_preprocessing(loaded: Loaded, **values: Any) -> None:
    loaded.encoder = replace(loaded.encoder, preprocessing=replace(loaded.encoder.preprocessing, **values))


def set_prompts(loaded: Loaded, change: Callable[[Any], None]) -> None:
    assert isinstance(loaded.prompts.module, EncodePrompt)
    change(loaded.prompts.module.model)


CHANGES: dict[str, tuple[str | None, Callable[[Loaded], object]]] = {
    "nothing": (None, lambda loaded: None),
    "the image tower": ("encoder", lambda loaded: nudge(loaded.encoder.model.visual)),
    "the text tower": ("encoder", lambda loaded: nudge(loaded.encoder.model.ln_final)),
    "the activation": ("encoder", change_activation),
    "the heads": ("encoder", lambda loaded: loaded.encoder.architecture["vision_cfg"].update(head_width=8)),
    "the normalization": ("preprocessing", lambda loaded: set_preprocessing(loaded, mean=(0.4, 0.5, 0.5))),
    "the resizing": ("preprocessing", lambda loaded: set_preprocessing(loaded, interpolation="bilinear")),
    "the tokenizer": ("tokenizer", lambda loaded: loaded.tokenizers.update(tokenize="bb")),
    "the detector": ("detector", lambda loaded: nudge(loaded.detector.model)),
    "its statistics": ("detector", lambda loaded: next(loaded.detector.model.buffers()).add_(1)),
    "its input": ("detector", lambda loaded: setattr(loaded, "detector", replace(loaded.detector, side=640))),
    "the threshold": ("detector", lambda loaded: setattr(loaded, "threshold", 0.3)),
    "the prompt encoder": ("prompts", lambda loaded: set_prompts(loaded, lambda model: nudge(model.ln_final))),
    "its image tower": (None, lambda loaded: set_prompts(loaded, lambda model: nudge(model.visual))),
    "its tokenizer": ("prompts", lambda loaded: loaded.tokenizers.update(tokenize_prompt="bb")),
}


@pytest.mark.parametrize(("part", "change"), CHANGES.values(), ids=CHANGES)
def test_a_change_shows_in_one_digest(loaded: Loaded, part: str | None, change: Callable[[Loaded], object]) -> None:
    before, changed = loaded.digests(), deepcopy(loaded)
    change(changed)
    after = changed.digests()
    assert {name for name in PARTS if before[name] != after[name]} == ({part} if part else set())
    assert all(0 < int(digest, 16) < 2**31 and len(digest) == 8 for digest in after.values())


def test_the_same_weights_in_another_file_and_dtype_have_the_same_digests(loaded: Loaded, tmp_path: Path) -> None:
    tensors = load_file(MINI / "encoder" / "open_clip_model.safetensors")
    for file in (MINI / "encoder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file({name: value.double() for name, value in tensors.items()}, tmp_path / "open_clip_model.safetensors")
    encoder = load_encoder(resolve_encoder(str(tmp_path)))
    assert replace(loaded, encoder=encoder).digests() == loaded.digests()


def test_the_shipped_graphs_have_the_digests_of_the_shipped_weights(loaded: Loaded) -> None:
    manifest = Manifest.read(SHIPPED / "manifest.json")
    assert manifest is not None
    digests = replace(
        loaded,
        threshold=manifest.request.settings.threshold,
        tokenizers={name: manifest.leaves[name].sha256 for name in loaded.tokenizers},
    ).digests()
    assert manifest.digests == digests
