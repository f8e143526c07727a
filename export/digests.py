"""The digests that ``VERSION`` consists of: what the answers of an export depend on, and nothing else.

Weights are read from the loaded models, so the same weights have the same digest in any file, and under any name. Not
part of it, because the gate holds the answers equal: the precision, the format, the export code and the libraries.
``serving.decode`` is not part of an export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from export.encoders import EncodePrompt
from export.leaves import PromptEncoder
from export.load_detector import LoadedDetector
from export.load_encoder import Encoder
from serving.repository.specs import CANVASES
from serving.repository.versions import digest

PIXELS = 1
"""Raise it when a change of ``crop`` or ``fit`` gives other pixels for the same canvas."""
NOTES = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Keys of transformers' configurations that do not describe the model."""


def digests_of(
    encoder: Encoder, detector: LoadedDetector, prompts: PromptEncoder, threshold: float, tokenizers: Mapping[str, str]
) -> dict[str, str]:
    """A digest for each of ``serving.repository.versions.PARTS``: eight hexadecimal digits.

    Args:
        tokenizers: SHA-256 of the files of ``tokenize`` and ``tokenize_prompt``.
    """
    image_tower = "model.visual." if isinstance(prompts.module, EncodePrompt) else None
    return {
        "encoder": digest(encoder.architecture, identify(encoder.model)),
        "preprocessing": digest(PIXELS, CANVASES, encoder.preprocessing.to_dict()),
        "tokenizer": digest(tokenizers["tokenize"]),
        "detector": digest(detector.side, threshold, architecture_of(detector.model), identify(detector.model)),
        "prompts": digest(tokenizers["tokenize_prompt"], identify(prompts.module, image_tower)),
    }


def identify(model: nn.Module, without: str | None = None) -> str:
    """SHA-256 of a model's weights in FP32, and of the classes of its modules, which include its activations.

    Args:
        without: a prefix of names that do not count.
    """
    result = hashlib.sha256()
    for name, module in sorted(model.named_modules(), key=lambda item: item[0]):
        if without is None or not f"{name}.".startswith(without):
            result.update(f"{name} {type(module).__name__}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if without is None or not name.startswith(without):
            result.update(f"{name} {list(tensor.shape)}\n".encode())
            array = (tensor.float() if tensor.is_floating_point() else tensor.long()).contiguous().cpu().numpy()
            result.update(array.tobytes())
    return result.hexdigest()


def architecture_of(detector: Any) -> Any:
    """What the weights of a detector do not say: strides of ultralytics' layers, heads of Grounding DINO's."""
    layers = getattr(detector, "yaml", None)
    if layers is not None:
        return [layers.get("backbone"), layers.get("head")]
    return without_notes(detector.config.to_dict())


def without_notes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: without_notes(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in NOTES
    }
