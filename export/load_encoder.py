"""Load an encoder with open_clip: the model, its image preprocessing and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_checkpoint
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import image_transform_v2
from torch import Tensor

from export.checkpoints import plain_checkpoint
from export.encoder_sources import model_config, preprocessing_of_tag, text_config
from export.errors import ExportError, SourceError, first_line
from export.images import Preprocessing
from export.preprocessing import open_clip_config, read_preprocessing
from export.quiet import quiet_exporters, warnings_shown
from export.sources import EncoderSource
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
    architecture: dict[str, Any]
    """open_clip's configuration of both towers."""

    @property
    def empty_text(self) -> Tensor:
        """The tokens of the empty text. → (T,)"""
        tokens: Tensor = self.tokenizer([""])[0]
        return tokens


def load_encoder(source: EncoderSource, *, for_prompts: bool = False) -> Encoder:
    """The FP32 model in evaluation mode with open_clip's own transform and tokenizer.

    Args:
        source: the encoder.
        for_prompts: whether it was given as, or stands for, --prompt-encoder, which has no options for weights.

    Raises:
        SourceError: files are missing, damaged, or of another architecture.
        UnsupportedModel: the preprocessing of images cannot be exported.
    """
    torch.manual_seed(0)  # for random weights
    try:
        model = create_model(source)
        if source.checkpoint:
            load_weights(model, source.checkpoint, source.label)
    except ExportError:
        raise
    except Exception as error:
        raise SourceError(explain_failure(source, error, for_prompts)) from error
    preprocessing = read_preprocessing(source.label, model.visual.preprocess_cfg)
    return Encoder(
        model=model.eval().float(),
        preprocessing=preprocessing,
        transform=image_transform_v2(open_clip_config(preprocessing), is_train=False),
        tokenizer=load_tokenizer(source),
        architecture=model_config(source.name),
    )


def create_model(source: EncoderSource) -> Any:
    """open_clip's model with its preprocessing; with weights, if open_clip downloads them."""
    preprocessing = preprocessing_of_tag(source.name, source.preprocessing_of) if source.preprocessing_of else None
    if source.pretrained:
        with warnings_shown():
            return open_clip.create_model(
                source.name, pretrained=source.pretrained, pretrained_text=False, require_pretrained=True
            )
    with quiet_exporters():  # warns that there are no weights
        return open_clip.create_model(
            source.name, load_weights=False, pretrained_text=False, force_preprocess_cfg=preprocessing
        )


def load_weights(model: Any, file: Path, label: str) -> None:
    """Load the weights of a file: all of them, and none is adapted to another shape."""
    with plain_checkpoint(file) as (path, weights):
        own = model.state_dict()
        for name, weight in weights.items():
            # open_clip would stretch position tables for another size of images or texts.
            if (
                "pos" in name
                and name in own
                and weight.shape != own[name].shape
                and weight.shape[-1:] == own[name].shape[-1:]
            ):
                raise SourceError(
                    f"{file} was trained for another size of images or texts than {label}: {name} is "
                    f"{tuple(weight.shape)}, expected {tuple(own[name].shape)}"
                )
        try:
            with warnings_shown():
                load_checkpoint(model, path)
        except Exception as error:
            lines = str(error).splitlines()
            reason = " ".join(lines[1].split()) if "Error(s) in loading state_dict" in lines[0] else first_line(error)
            raise SourceError(f"{file} holds weights of another architecture than {label}: {reason[:160]}") from error


def explain_failure(source: EncoderSource, error: Exception, for_prompts: bool) -> str:
    """One sentence: which weights to download and where to put them, or what cannot be loaded."""
    message = str(error)
    if source.pretrained and "ownload" in message:
        published = open_clip.get_pretrained_cfg(source.name, source.pretrained)
        repository, _, file = published.get("hf_hub", "").rpartition("/")
        file = file or "open_clip_model.safetensors or open_clip_pytorch_model.bin"
        needed = f"{file} of huggingface.co/{repository}" if repository else published.get("url", "the file")
        problem = f"the weights {source.pretrained} of {source.label} cannot be downloaded"
        if for_prompts:
            return (
                f"{problem}, which encode the prompts of the detector: get {needed}, and its open_clip_config.json, "
                "elsewhere, and give the folder that holds both with --prompt-encoder FOLDER"
            )
        return f"{problem}: get {needed} elsewhere and give it with --pretrained {source.pretrained} --checkpoint FILE"
    where = source.pretrained or source.folder or source.label
    return f"the encoder {source.label} cannot be loaded from {where}: {first_line(error)}"


def load_tokenizer(source: EncoderSource) -> Any:
    """open_clip's tokenizer.

    A folder's vocabulary is read from the folder: the file that its configuration names, or ``bpe.txt.gz``. open_clip
    itself would look for a relative ``bpe_path`` in the current directory.
    """
    text = text_config(source.name)
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
