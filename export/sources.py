"""Where models come from: names, checkpoints and folders, loaded through the libraries' own loaders.

Everything that can be refused without loading is refused first, in one sentence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export import examples
from export.errors import SourceError, UnsupportedModel, UsageError, first_line, unknown
from export.quiet import quiet_exporters, quiet_logging, quiet_ultralytics

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlclip"
"""Where ultralytics' published weights are fetched to; put them here by hand on a machine without network."""
MINI = Path(__file__).resolve().parents[1] / "weights" / "mini"

YOLO_WORLD = {f"yolo-world-{scale}": f"yolov8{scale}-worldv2" for scale in "nsmlx"}
YOLO_WORLD_PUBLISHED = [name for name in YOLO_WORLD if not name.endswith("-n")]
YOLO_WORLD_SIDE = 640

YOLO_WORLD_TEXT = ("ViT-B-32-quickgelu", "openai")
"""The text tower that YOLO-World's published weights were trained with."""
GROUNDING_DINO = {f"grounding-dino-{scale}": f"IDEA-Research/grounding-dino-{scale}" for scale in ("tiny", "base")}
GROUNDING_DINO_SIDE = 800
DEFAULT_PRETRAINED = {"ViT-B-32": "laion2b_s34b_b79k", YOLO_WORLD_TEXT[0]: YOLO_WORLD_TEXT[1]}


@dataclass(frozen=True)
class EncoderSource:
    """An open_clip model that exists; ``resolve_encoder`` makes it.

    ``label`` is what people call it, ``name`` what open_clip does: a folder is ``local-dir:FOLDER``.
    ``pretrained`` is a tag or a file, ``preprocessing_of`` the tag whose images a file or random weights want,
    ``tokenizer`` a folder that stands for the tokenizer's hub.
    """

    label: str
    name: str
    pretrained: str | None = None
    random: bool = False
    preprocessing_of: str | None = None
    tokenizer: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None

    def describe(self) -> dict[str, Any]:
        """What identifies the weights, the preprocessing and the tokenizer without loading them."""
        return self._describe_weights() | {
            **({"preprocessing_of": self.preprocessing_of} if self.preprocessing_of else {}),
            **({"tokenizer": hashes_of(Path(self.tokenizer))} if self.tokenizer else {}),
        }

    def _describe_weights(self) -> dict[str, Any]:
        if self.random:
            return {"model": self.label, "weights": "random"}
        if self.folder:
            return {"model": self.label, "files": hashes_of(self.folder)}
        if self.pretrained and Path(self.pretrained).is_file():
            file = Path(self.pretrained)
            return {"model": self.label, "files": {file.name: sha256_of(file)}}
        return {"model": self.label, "pretrained": self.pretrained}


@dataclass(frozen=True)
class DetectorSource:
    """A checkpoint, or the name of one that its library fetches; ``resolve_detector`` makes it.

    ``file`` is a file of ultralytics for YOLO-World, a folder of transformers for Grounding DINO.
    """

    name: str
    file: Path | None
    random: bool = False

    @property
    def is_grounding_dino(self) -> bool:
        return self.name in GROUNDING_DINO

    def describe(self) -> dict[str, Any]:
        if self.random:
            return {"model": self.name, "weights": "random"}
        if self.file:
            files = sorted(self.file.iterdir()) if self.file.is_dir() else [self.file]
            return {"model": self.name, "files": {file.name: sha256_of(file) for file in files if file.is_file()}}
        return {"model": self.name, "pretrained": GROUNDING_DINO.get(self.name) or f"{YOLO_WORLD[self.name]}.pt"}


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder: both towers, how it wants its images, and its tokenizer (open_clip's)."""

    model: Any
    preprocessing: Any  # export.images.Preprocessing
    transform: Any
    tokenizer: Any

    @property
    def empty_text(self) -> Any:
        """The tokens of the empty text: tensor (T,)"""
        return self.tokenizer([""])[0]


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """The files of a folder with their hashes, by name."""
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}


def resolve_encoder(
    name: str,
    pretrained: str | None = None,
    checkpoint: str | None = None,
    random: bool = False,
    tokenizer: str | None = None,
) -> EncoderSource:
    """What the user typed, to a source that exists.

    resolve_encoder("mini")                                 the mini model in weights/mini/encoder
    resolve_encoder("runs/my-clip")                         a folder: open_clip_config.json and its weights
    resolve_encoder("ViT-B-32", pretrained="openai")        open_clip's model, weights from its hub
    resolve_encoder("ViT-B-32", checkpoint="tuned.pt")      open_clip's model, weights from a file
    resolve_encoder("ViT-B-32", random=True)                the true architecture, no weights

    A file, like no weights at all, says nothing of how images are prepared: with ``pretrained`` they are prepared as
    for that tag, else as all tags of the model agree on, else as open_clip does by default.
    """
    import open_clip

    if tokenizer:
        if not Path(tokenizer, "tokenizer.json").is_file():
            raise SourceError(f"no such file: {Path(tokenizer, 'tokenizer.json')} (with --tokenizer {tokenizer})")
        source = resolve_encoder(name, pretrained, checkpoint, random)
        if source.folder:
            raise UsageError(f"{source.folder} brings its own tokenizer: --tokenizer is for open_clip's named models")
        return replace(source, tokenizer=tokenizer)
    if name == "mini":
        return _encoder_folder("mini", MINI / "encoder", "the mini encoder is trained by `make train-mini`")
    if checkpoint and Path(checkpoint).is_dir():
        return _encoder_folder(Path(checkpoint).name, Path(checkpoint))
    if name.startswith("local-dir:") or "/" in name or Path(name).is_dir():
        folder = Path(name.removeprefix("local-dir:"))
        return _encoder_folder(folder.name, folder)
    if name not in open_clip.list_models():
        raise unknown("encoder", name, ["mini", *open_clip.list_models()])
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained and pretrained not in tags:
        raise unknown(f"pretrained tag of {name}", pretrained, tags)
    if random:
        return EncoderSource(name, name, random=True, preprocessing_of=pretrained or _agreed_tag(name, tags))
    if checkpoint:
        if not Path(checkpoint).is_file():
            raise SourceError(f"no such checkpoint: {checkpoint}")
        return EncoderSource(name, name, checkpoint, preprocessing_of=pretrained or _agreed_tag(name, tags))
    tag = pretrained or DEFAULT_PRETRAINED.get(name)
    if tag is None:
        known = ", ".join(tags) or "none known"
        raise UsageError(f"{name} needs weights: --pretrained TAG ({known}), --checkpoint FILE or --random-weights")
    return EncoderSource(name, name, tag)


def _agreed_tag(name: str, tags: list[str]) -> str | None:
    """A tag whose preprocessing is that of every other tag of the model."""
    ways = [preprocessing_of_tag(name, tag) for tag in tags]
    return tags[0] if ways and all(way == ways[0] for way in ways) else None


def preprocessing_of_tag(name: str, tag: str) -> dict[str, Any]:
    """The fields of open_clip's ``PreprocessCfg`` that published weights bring with them."""
    import open_clip
    from open_clip.transform import merge_preprocess_dict

    return dict(merge_preprocess_dict({}, open_clip.get_pretrained_cfg(name, tag)))


def _encoder_folder(label: str, folder: Path, hint: str = "made by open_clip's training") -> EncoderSource:
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise SourceError(f"no such file: {config} ({hint})")
    weights = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth", ".pt")]
    if not weights:
        raise SourceError(f"no weights in {folder}: expected open_clip_model.safetensors beside the configuration")
    return EncoderSource(label, f"local-dir:{folder}")


def resolve_detector(name: str, weights: str | None = None, random: bool = False) -> DetectorSource:
    """What the user typed, to a source that exists.

    resolve_detector("mini")                                     the mini model, weights/mini/detector.pt
    resolve_detector("yolo-world-s")                             ultralytics' published weights
    resolve_detector("yolo-world-s", weights="yolov8s-worldv2.pt")  the same from a file
    resolve_detector("runs/detect/train/weights/best.pt")        a YOLO-World checkpoint of any scale
    resolve_detector("yolo-world-s", random=True)                the true architecture, no weights
    resolve_detector("grounding-dino-tiny")                      transformers' published weights
    resolve_detector("grounding-dino-tiny", weights="runs/dino") a folder made by save_pretrained
    """
    if name == "mini":
        return _detector_file("mini", MINI / "detector.pt", "the mini detector is trained by `make train-mini`")
    if name.endswith(".pt"):
        return _detector_file(Path(name).stem, Path(name))
    if name in GROUNDING_DINO:
        return _grounding_dino(name, weights, random)
    if name not in YOLO_WORLD:
        raise unknown("detector", name, ["mini", *YOLO_WORLD, *GROUNDING_DINO])
    if weights:
        return _detector_file(name, Path(weights))
    if not random and name not in YOLO_WORLD_PUBLISHED:
        raise UsageError(f"{name} has no published weights: --detector-weights FILE or --random-weights")
    return DetectorSource(name, None, random)


def _detector_file(name: str, file: Path, hint: str = "a YOLO-World checkpoint of ultralytics") -> DetectorSource:
    if not file.is_file():
        raise SourceError(f"no such file: {file} ({hint})")
    return DetectorSource(name, file)


def _grounding_dino(name: str, weights: str | None, random: bool) -> DetectorSource:
    if not weights:
        return DetectorSource(name, None, random)
    folder = Path(weights)
    for wanted in ("config.json", "tokenizer_config.json"):
        if not (folder / wanted).is_file():
            raise SourceError(f"no such file: {folder / wanted} (save model and tokenizer there by save_pretrained)")
    return DetectorSource(name, folder)


def load_encoder(source: EncoderSource) -> Encoder:
    """The FP32 model in evaluation mode with open_clip's own transform and tokenizer."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from export.images import Preprocessing

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
        raise SourceError(why_not_loaded(source, error)) from error
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


def why_not_loaded(source: EncoderSource, error: Exception) -> str:
    """One sentence: which weights are wanted and where to put them, which file is not theirs, or what is damaged."""
    import open_clip

    told = str(error)
    if source.pretrained and not Path(source.pretrained).is_file() and "ownload" in told:
        published = open_clip.get_pretrained_cfg(source.name, source.pretrained)
        repository, _, file = published.get("hf_hub", "").rpartition("/")
        file = file or "open_clip_model.safetensors or open_clip_pytorch_model.bin"
        wanted = f"{file} of huggingface.co/{repository}" if repository else published.get("url", "the file")
        return (
            f"the weights {source.pretrained} of {source.label} cannot be fetched: get {wanted} elsewhere "
            f"and give it with --pretrained {source.pretrained} --checkpoint FILE"
        )
    weights = source.pretrained or source.folder or source.label
    if "Error(s) in loading state_dict" in told:
        told = " ".join(told.splitlines()[1].split())
    elif not (source.pretrained and is_checkpoint(source.pretrained)):
        return f"the encoder {source.label} cannot be loaded from {weights}: {first_line(error)}"
    return f"{weights} holds weights of another architecture than {source.label}: {told[:160]}"


def is_checkpoint(file: str) -> bool:
    """Whether open_clip reads tensors from it.

    Where it does, a failure comes from fitting them to the model: position tables of another form, for example.
    """
    from open_clip.factory import load_state_dict

    try:
        return bool(load_state_dict(file, device="cpu"))
    except Exception:  # pickle, zip and safetensors all fail in their own ways
        return False


def load_tokenizer(source: EncoderSource) -> Any:
    """open_clip's tokenizer; a vocabulary named in a folder's configuration, or ``bpe.txt.gz``, is in the folder.

    open_clip itself looks for a relative ``bpe_path`` in the current directory.
    """
    import open_clip
    from open_clip.tokenizer import HFTokenizer

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
    except Exception as error:  # a damaged file fails in every way that a parser can
        if hub and not source.folder and not source.tokenizer:
            raise SourceError(
                f"the tokenizer of {source.label} cannot be fetched: put tokenizer.json and tokenizer_config.json "
                f"of huggingface.co/{hub} into a folder and give it with --tokenizer FOLDER"
            ) from error
        raise SourceError(f"the tokenizer of {source.label} cannot be loaded: {first_line(error)}") from error
    if hub and "vocab_size" in text:
        require_vocabulary(source.label, tokenizer, text["vocab_size"])
    return tokenizer


def require_vocabulary(label: str, tokenizer: Any, size: int) -> None:
    """Refuses a tokenizer whose tokens the text tower does not have; those that no text can hold do not count."""
    from export.tokenizer import build_tokenizer

    tokens = build_tokenizer(tokenizer).get_vocab_size()
    if tokens > size:
        raise SourceError(f"the tokenizer of {label} has {tokens} tokens, its text tower only {size}")


def text_config(source: EncoderSource) -> dict[str, Any]:
    """open_clip's description of the text tower."""
    import open_clip

    if source.folder is None:
        config = open_clip.get_model_config(source.name)
    else:
        config = json.loads((source.folder / "open_clip_config.json").read_text())["model_cfg"]
    text: dict[str, Any] = config["text_cfg"]
    return text


def enliven(model: Any) -> None:
    """Gives an untrained YOLO-World outputs that depend on its inputs, or comparing two of them would show nothing.

    As made, its signals fade from layer to layer, and its scores are all 5e-5. One batch of pictures sets the
    statistics that normalize the layers, and scores spread around one half.
    """
    import torch

    normalizations = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for part in normalizations:
        part.momentum = 1.0
    head = model.model[-1]
    for contrast in head.cv4:
        torch.nn.init.zeros_(contrast.bias)
    with torch.no_grad():
        images = torch.from_numpy(examples.canvases(examples.pictures(), 320)[0]).permute(0, 3, 1, 2) / 255.0
        prompts = torch.randn(len(images), head.nc, head.cv3[0][-1].out_channels)
        model.train().predict(images, txt_feats=prompts)


@dataclass(frozen=True)
class LoadedDetector:
    model: Any  # ultralytics.nn.tasks.WorldModel, transformers.GroundingDinoForObjectDetection
    side: int
    tokenizer: Any = None  # transformers' BertTokenizer, where the detector brings its own prompt encoder


def load_detector(source: DetectorSource, side: int | None = None) -> LoadedDetector:
    """The FP32 model in evaluation mode and the side of its input: asked for, trained with, or 640."""
    if source.is_grounding_dino:
        from export.grounding_dino import load_grounding_dino

        return load_grounding_dino(source, side)
    quiet_ultralytics()
    import torch
    from ultralytics.nn.tasks import WorldModel, load_checkpoint

    if source.random:
        torch.manual_seed(0)
        model = WorldModel(f"{YOLO_WORLD[source.name]}.yaml", verbose=False)
        enliven(model)
        return LoadedDetector(model.eval(), side or YOLO_WORLD_SIDE)
    file = source.file or CACHE / f"{YOLO_WORLD[source.name]}.pt"
    try:
        model, checkpoint = load_checkpoint(str(file))
    except Exception as error:
        hint = "" if source.file else " (put it there, or give it with --detector-weights FILE)"
        raise SourceError(f"the detector cannot be loaded from {file}{hint}: {first_line(error)}") from error
    if not isinstance(model, WorldModel):
        raise SourceError(f"{file} holds a {type(model).__name__}, not a YOLO-World")
    trained = checkpoint.get("train_args", {}).get("imgsz") or getattr(model, "args", {}).get("imgsz")
    chosen = side or (trained if isinstance(trained, int) else YOLO_WORLD_SIDE)
    if chosen % 32:
        raise UsageError(f"the detector's side must be a multiple of 32, came {chosen}")
    return LoadedDetector(model, chosen)
