"""From what the user typed to the source of an encoder: a published name, a checkpoint or a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
from open_clip.transform import merge_preprocess_dict

from export.errors import SourceError, UsageError, unknown
from export.sources import LOCAL, MINI, YOLO_WORLD_TEXT, EncoderSource, weights_in

Activation = Literal["gelu", "quickgelu"]
"""The function between the layers of a transformer. It belongs to the weights, but no file of weights names it."""
QUICK = "-quickgelu"
"""What open_clip adds to the name of a model with this activation."""
DEFAULT_PRETRAINED = {"ViT-B-32": "laion2b_s34b_b79k", YOLO_WORLD_TEXT[0]: YOLO_WORLD_TEXT[1]}


def resolve_encoder(
    name: str,
    pretrained: str | None = None,
    checkpoint: str | None = None,
    random: bool = False,
    tokenizer: str | None = None,
    activation: Activation | None = None,
) -> EncoderSource:
    """The source of an encoder.

    resolve_encoder("mini")                                 the mini model in weights/mini/encoder
    resolve_encoder("runs/my-clip")                         a folder: open_clip_config.json and its weights
    resolve_encoder("runs/my-clip", checkpoint="e3.pt")     the same with the weights of a file
    resolve_encoder("ViT-B-32", pretrained="openai")        open_clip's model, weights from its hub
    resolve_encoder("ViT-B-32", "openai", "tuned.pt")       weights from a file that were tuned from openai's
    resolve_encoder("ViT-B-32", random=True)                the true architecture, no weights

    A file says nothing about the preprocessing of images, and random weights have none. Both use the preprocessing of
    ``pretrained``, else the one that all tags of the model share, else open_clip's default. The activation is that of
    ``pretrained``, else ``activation``, else the one of the model's name.

    Raises:
        UsageError: an unknown name, options that contradict each other or that would have no effect.
        SourceError: a file is missing.
    """
    if checkpoint and random:
        raise UsageError(f"--random-weights contradicts --checkpoint {checkpoint}: leave out one of them")
    if checkpoint and Path(checkpoint).is_dir():
        raise UsageError(f"--checkpoint {checkpoint} is a folder: give a file of weights, or --encoder {checkpoint}")
    if name == "mini" or is_folder(name):
        without = {"--pretrained": pretrained, "--random-weights": random, "--activation": activation}
        if name == "mini":
            without["--checkpoint"] = checkpoint
        if tokenizer:
            raise UsageError(f"{name} brings its own tokenizer: --tokenizer is for open_clip's named models")
        if given := [option for option, value in without.items() if value]:
            raise UsageError(
                f"the encoder {name} has its own weights and says how they are used: leave out {' and '.join(given)}, "
                "or name the architecture with --encoder"
            )
        if name == "mini":
            return _encoder_folder("mini", MINI / "encoder", None, "the mini encoder is trained by `make train-mini`")
        folder = Path(name.removeprefix(LOCAL))
        return _encoder_folder(folder.name, folder, checkpoint)
    return _named_encoder(name.replace("/", "-"), pretrained, checkpoint, random, tokenizer, activation)


def is_folder(name: str) -> bool:
    """Whether the name of an encoder is that of a folder. open_clip's own names may have a slash, as in ViT-B/32."""
    if name.startswith("hf-hub:"):
        raise UsageError(f"{name} is on a hub: download its repository into a folder and give --encoder FOLDER")
    known = name.replace("/", "-") in open_clip.list_models()
    return name.startswith(LOCAL) or Path(name).is_dir() or ("/" in name and not known)


def has_own_weights(name: str, checkpoint: str | None = None) -> bool:
    """Whether an encoder has weights, so that ``--random-weights`` does not concern it."""
    return bool(checkpoint) or name == "mini" or is_folder(name)


def _named_encoder(
    name: str,
    pretrained: str | None,
    checkpoint: str | None,
    random: bool,
    tokenizer: str | None,
    activation: Activation | None,
) -> EncoderSource:
    if name not in open_clip.list_models():
        raise unknown("encoder", name, ["mini", *open_clip.list_models()])
    if tokenizer:
        if not text_config(name).get("hf_tokenizer_name"):
            raise UsageError(f"{name} has CLIP's own tokenizer: --tokenizer is for models that take another")
        if not Path(tokenizer, "tokenizer.json").is_file():
            raise SourceError(f"no such file: {Path(tokenizer, 'tokenizer.json')} (with --tokenizer {tokenizer})")
    if checkpoint and not Path(checkpoint).is_file():
        raise SourceError(f"no such checkpoint: {checkpoint}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained and pretrained not in tags:
        if pretrained in open_clip.list_pretrained_tags_by_model(name.removesuffix(QUICK)):
            raise UsageError(f"{pretrained} was trained with gelu: --encoder {name.removesuffix(QUICK)}")
        raise unknown(f"pretrained tag of {name}", pretrained, tags)
    published = None if checkpoint or random else pretrained or DEFAULT_PRETRAINED.get(name)
    if not (checkpoint or random or published):
        known = ", ".join(tags) or "none known"
        raise UsageError(f"{name} needs weights: --pretrained TAG ({known}), --checkpoint FILE or --random-weights")
    name = with_activation(name, published or pretrained, checkpoint, activation)
    preprocessing = None if published else pretrained or _shared_tag(name)
    file = Path(checkpoint) if checkpoint else None
    return EncoderSource(name, name, published, file, preprocessing, tokenizer)


def with_activation(name: str, tag: str | None, checkpoint: str | None, activation: Activation | None) -> str:
    """open_clip's name of the model with the activation that its weights were trained with.

    Args:
        tag: the published weights, or those that the checkpoint was tuned from.

    Raises:
        UsageError: a checkpoint of a model that exists with both, and nothing says which; or a wrong ``activation``.
    """
    quick = bool(open_clip.get_model_config(name).get("quick_gelu"))
    variant = name + QUICK if name + QUICK in open_clip.list_models() else None
    of_tag: Activation | None = None
    if tag:
        of_tag = "quickgelu" if quick or open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") else "gelu"
        if activation and activation != of_tag:
            raise UsageError(f"{tag} of {name} was trained with {of_tag}: leave out --activation {activation}")
    if quick and activation == "gelu":
        base = name.removesuffix(QUICK)
        instead = f"--encoder {base}" if base != name else "leave out --activation gelu"
        raise UsageError(f"{name} computes with quickgelu: {instead}")
    wanted = activation or of_tag
    if not wanted and checkpoint and variant:
        raise UsageError(
            f"{checkpoint} does not say whether it was trained with {name} or {variant}: give --pretrained TAG of the "
            "weights that it was tuned from (openai, for example), or --activation gelu or quickgelu"
        )
    if wanted != "quickgelu" or quick:
        return name
    if not variant:
        raise UsageError(
            f"open_clip has no {name}{QUICK}: leave out --activation quickgelu, or give a folder whose "
            "open_clip_config.json has quick_gelu"
        )
    return variant


def _shared_tag(name: str) -> str | None:
    """A tag of the model, if all its tags have the same preprocessing."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [preprocessing_of_tag(name, tag) for tag in tags]
    return tags[0] if configs and all(config == configs[0] for config in configs) else None


def preprocessing_of_tag(name: str, tag: str) -> dict[str, Any]:
    """The fields of open_clip's ``PreprocessCfg`` for published weights."""
    return dict(merge_preprocess_dict({}, open_clip.get_pretrained_cfg(name, tag)))


def model_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of both towers of a named model or of a folder."""
    if name.startswith(LOCAL):
        config = json.loads(Path(name.removeprefix(LOCAL), "open_clip_config.json").read_text())["model_cfg"]
    else:
        config = open_clip.get_model_config(name)
    return cast("dict[str, Any]", config)


def text_config(name: str) -> dict[str, Any]:
    """The configuration of the text tower alone."""
    return cast("dict[str, Any]", model_config(name)["text_cfg"])


def _encoder_folder(
    label: str, folder: Path, checkpoint: str | None, hint: str = "it describes the model, as on Hugging Face's hub"
) -> EncoderSource:
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise SourceError(f"no such file: {config} ({hint})")
    if checkpoint:
        if not Path(checkpoint).is_file():
            raise SourceError(f"no such checkpoint: {checkpoint}")
        return EncoderSource(label, LOCAL + str(folder), checkpoint=Path(checkpoint))
    weights = weights_in(folder)
    if not weights:
        raise SourceError(f"no weights in {folder}: expected open_clip_model.safetensors next to the configuration")
    if len(weights) > 1:
        names = ", ".join(file.name for file in weights)
        raise UsageError(f"{folder} has several files of weights: {names}. Choose one with --checkpoint {weights[-1]}")
    return EncoderSource(label, LOCAL + str(folder), checkpoint=weights[0])
