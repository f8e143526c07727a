"""Load an encoder with open_clip: the model, its image preprocessing and its tokenizer."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor

from export.errors import SourceError, UnsupportedModel, UsageError, first_line
from export.images import Preprocessing
from export.quiet import quiet_exporters, quiet_logging
from export.sources import EncoderSource, preprocessing_of_tag
from export.tokenizer import build_tokenizer


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder: both towers, the preprocessing of images, and the tokenizer."""

    model: Any
    preprocessing: Preprocessing
    transform: Any
    """open_clip's evaluation transform: PIL image → tensor (3, R, R)"""
    tokenizer: Any
    """open_clip's tokenizer: list of texts → tensor (N, T)"""

    @property
    def empty_text(self) -> Tensor:
        """The tokens of the empty text. → (T,)"""
        tokens: Tensor = self.tokenizer([""])[0]
        return tokens


def load_encoder(source: EncoderSource) -> Encoder:
    """The FP32 model in evaluation mode with open_clip's own transform and tokenizer.

    Raises:
        SourceError: files are missing, damaged, or of another architecture.
        UnsupportedModel: the model takes images that are not square.
    """
    torch.manual_seed(0)  # for random weights
    try:
        with quiet_exporters(), quiet_logging(logging.ERROR):
            model = open_clip.create_model(
                source.name,
                pretrained=source.pretrained,
                load_weights=not source.random,
                pretrained_text=False,
                require_pretrained=not source.random,
                force_preprocess_cfg=preprocessing_of_tag(source.name, source.preprocessing_of)
                if source.preprocessing_of
                else None,
            )
    except Exception as error:
        raise SourceError(explain_failure(source, error)) from error
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    size = config.size if isinstance(config.size, int) else config.size[0]
    if not isinstance(config.size, int) and len(set(config.size)) != 1:
        raise UnsupportedModel(f"{source.label} takes {config.size} pixels: only square inputs can be exported")
    fill = config.fill_color
    return Encoder(
        model=model.eval().float(),
        preprocessing=Preprocessing(
            size=size,
            mean=tuple(config.mean),
            std=tuple(config.std),
            interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
            resize_mode=config.resize_mode,
            fill_color=fill if isinstance(fill, int) else fill[0],
        ),
        transform=image_transform_v2(config, is_train=False),
        tokenizer=load_tokenizer(source),
    )


def explain_failure(source: EncoderSource, error: Exception) -> str:
    """One sentence: which weights to download and where to put them, which file does not fit, or what is damaged."""
    message = str(error)
    if source.pretrained and not Path(source.pretrained).is_file() and "ownload" in message:
        published = open_clip.get_pretrained_cfg(source.name, source.pretrained)
        repository, _, file = published.get("hf_hub", "").rpartition("/")
        file = file or "open_clip_model.safetensors or open_clip_pytorch_model.bin"
        needed = f"{file} of huggingface.co/{repository}" if repository else published.get("url", "the file")
        return (
            f"the weights {source.pretrained} of {source.label} cannot be downloaded: get {needed} elsewhere "
            f"and give it with --pretrained {source.pretrained} --checkpoint FILE"
        )
    weights = source.pretrained or source.folder or source.label
    if "Error(s) in loading state_dict" in message:
        message = " ".join(message.splitlines()[1].split())
    elif not (source.pretrained and is_checkpoint(source.pretrained)):
        return f"the encoder {source.label} cannot be loaded from {weights}: {first_line(error)}"
    return f"{weights} holds weights of another architecture than {source.label}: {message[:160]}"


def is_checkpoint(file: str) -> bool:
    """Whether open_clip can read tensors from the file.

    If it can, loading failed because the tensors do not fit the model: for example, position tables of another form.
    """
    try:
        return bool(load_state_dict(file, device="cpu"))
    except Exception:  # pickle, zip and safetensors each raise errors of their own
        return False


def load_tokenizer(source: EncoderSource) -> Any:
    """open_clip's tokenizer.

    A folder's vocabulary is read from the folder: the file that its configuration names, or ``bpe.txt.gz``. open_clip
    itself would look for a relative ``bpe_path`` in the current directory.
    """
    text = text_config(source)
    hub = text.get("hf_tokenizer_name")
    options: dict[str, Any] = dict(text.get("tokenizer_kwargs", {}))

    def load() -> Any:
        if source.tokenizer:
            mode = text.get("tokenizer_mode")
            length = text.get("context_length", 77)
            return HFTokenizer(source.tokenizer, context_length=length, tokenizer_mode=mode, **options)
        if source.folder is None or hub:
            return open_clip.get_tokenizer(source.name)
        bpe = source.folder / Path(options.get("bpe_path", "bpe.txt.gz")).name
        if bpe.is_file():
            return open_clip.get_tokenizer(source.name, bpe_path=str(bpe))
        if "bpe_path" in options:
            raise SourceError(f"no such file: {bpe} (the vocabulary that open_clip_config.json names)")
        return open_clip.get_tokenizer(source.name)

    if source.tokenizer and not hub:
        raise UsageError(f"{source.label} has CLIP's own tokenizer: --tokenizer is for models that take another")
    if source.folder and hub and not (source.folder / "tokenizer.json").is_file():
        raise SourceError(f"no such file: {source.folder / 'tokenizer.json'} (the tokenizer of {source.label})")
    try:
        with quiet_exporters():
            tokenizer = load()
    except SourceError:
        raise
    except Exception as error:  # each parser raises errors of its own for a damaged file
        if hub and not source.folder and not source.tokenizer:
            raise SourceError(
                f"the tokenizer of {source.label} cannot be downloaded: put tokenizer.json and tokenizer_config.json "
                f"of huggingface.co/{hub} into a folder and give it with --tokenizer FOLDER"
            ) from error
        raise SourceError(f"the tokenizer of {source.label} cannot be loaded: {first_line(error)}") from error
    if hub and "vocab_size" in text:
        require_vocabulary(source.label, tokenizer, text["vocab_size"])
    return tokenizer


def require_vocabulary(label: str, tokenizer: Any, size: int) -> None:
    """Refuse a tokenizer with tokens that the text tower lacks. Tokens that no text can contain do not count."""
    tokens = build_tokenizer(tokenizer).get_vocab_size()
    if tokens > size:
        raise SourceError(f"the tokenizer of {label} has {tokens} tokens, its text tower only {size}")


def text_config(source: EncoderSource) -> dict[str, Any]:
    """open_clip's configuration of the text tower."""
    if source.folder is None:
        config = open_clip.get_model_config(source.name)
    else:
        config = json.loads((source.folder / "open_clip_config.json").read_text())["model_cfg"]
    text: dict[str, Any] = config["text_cfg"]
    return text
