"""From what the user typed to the source of a model: a published name, a checkpoint or a folder.

Nothing is loaded here. Every mistake that can be found without loading is reported in one sentence.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transform import merge_preprocess_dict

from export.errors import SourceError, UsageError, unknown
from serving.repository.manifest import Source

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlclip"
"""Where ultralytics' published weights are stored. Copy them here by hand on a machine without network."""
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
    """An existing open_clip model, as returned by ``resolve_encoder``."""

    label: str
    """The name for people."""
    name: str
    """open_clip's name: ``ViT-B-32``, or ``local-dir:FOLDER`` for a folder."""
    pretrained: str | None = None
    """A tag or a file."""
    random: bool = False
    preprocessing_of: str | None = None
    """The tag whose preprocessing is used with a file or with random weights."""
    tokenizer: str | None = None
    """A folder that replaces the tokenizer's hub."""

    @property
    def folder(self) -> Path | None:
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None

    def describe(self) -> Source:
        """What identifies the weights, the preprocessing and the tokenizer, found without loading them."""
        description: dict[str, object] = {"model": self.label}
        if self.random:
            description["weights"] = "random"
        elif self.folder:
            description["files"] = hashes_of(self.folder)
        elif self.pretrained and Path(self.pretrained).is_file():
            description["files"] = {Path(self.pretrained).name: sha256_of(Path(self.pretrained))}
        else:
            description["pretrained"] = self.pretrained
        if self.preprocessing_of:
            description["preprocessing_of"] = self.preprocessing_of
        if self.tokenizer:
            description["tokenizer"] = hashes_of(Path(self.tokenizer))
        return description


@dataclass(frozen=True)
class DetectorSource:
    """A checkpoint, or the name of one that its library downloads, as returned by ``resolve_detector``."""

    name: str
    file: Path | None
    """A file of ultralytics for YOLO-World, a folder of transformers for Grounding DINO."""
    random: bool = False

    @property
    def is_grounding_dino(self) -> bool:
        return self.name in GROUNDING_DINO

    def describe(self) -> Source:
        """What identifies the weights, found without loading them."""
        if self.random:
            return {"model": self.name, "weights": "random"}
        if self.file:
            files = hashes_of(self.file) if self.file.is_dir() else {self.file.name: sha256_of(self.file)}
            return {"model": self.name, "files": files}
        return {"model": self.name, "pretrained": GROUNDING_DINO.get(self.name) or f"{YOLO_WORLD[self.name]}.pt"}


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder, by name."""
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}


def resolve_encoder(
    name: str,
    pretrained: str | None = None,
    checkpoint: str | None = None,
    random: bool = False,
    tokenizer: str | None = None,
) -> EncoderSource:
    """The source of an encoder.

    resolve_encoder("mini")                                 the mini model in weights/mini/encoder
    resolve_encoder("runs/my-clip")                         a folder: open_clip_config.json and its weights
    resolve_encoder("ViT-B-32", pretrained="openai")        open_clip's model, weights from its hub
    resolve_encoder("ViT-B-32", checkpoint="tuned.pt")      open_clip's model, weights from a file
    resolve_encoder("ViT-B-32", random=True)                the true architecture, no weights

    A file says nothing about the preprocessing of images, and random weights have none. Both use the preprocessing of
    ``pretrained``, else the one that all tags of the model share, else open_clip's default.

    Raises:
        UsageError: an unknown name, or options that contradict each other.
        SourceError: a file is missing.
    """
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
        return EncoderSource(name, name, random=True, preprocessing_of=pretrained or _shared_tag(name, tags))
    if checkpoint:
        if not Path(checkpoint).is_file():
            raise SourceError(f"no such checkpoint: {checkpoint}")
        return EncoderSource(name, name, checkpoint, preprocessing_of=pretrained or _shared_tag(name, tags))
    tag = pretrained or DEFAULT_PRETRAINED.get(name)
    if tag is None:
        known = ", ".join(tags) or "none known"
        raise UsageError(f"{name} needs weights: --pretrained TAG ({known}), --checkpoint FILE or --random-weights")
    return EncoderSource(name, name, tag)


def _shared_tag(name: str, tags: list[str]) -> str | None:
    """A tag of the model, if all its tags have the same preprocessing."""
    configs = [preprocessing_of_tag(name, tag) for tag in tags]
    return tags[0] if configs and all(config == configs[0] for config in configs) else None


def preprocessing_of_tag(name: str, tag: str) -> dict[str, Any]:
    """The fields of open_clip's ``PreprocessCfg`` for published weights."""
    return dict(merge_preprocess_dict({}, open_clip.get_pretrained_cfg(name, tag)))


def _encoder_folder(label: str, folder: Path, hint: str = "open_clip's training writes it") -> EncoderSource:
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise SourceError(f"no such file: {config} ({hint})")
    weights = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth", ".pt")]
    if not weights:
        raise SourceError(f"no weights in {folder}: expected open_clip_model.safetensors next to the configuration")
    return EncoderSource(label, f"local-dir:{folder}")


def resolve_detector(name: str, weights: str | None = None, random: bool = False) -> DetectorSource:
    """The source of a detector.

    resolve_detector("mini")                                     the mini model, weights/mini/detector.pt
    resolve_detector("yolo-world-s")                             ultralytics' published weights
    resolve_detector("yolo-world-s", weights="yolov8s-worldv2.pt")  the same from a file
    resolve_detector("runs/detect/train/weights/best.pt")        a YOLO-World checkpoint of any scale
    resolve_detector("yolo-world-s", random=True)                the true architecture, no weights
    resolve_detector("grounding-dino-tiny")                      transformers' published weights
    resolve_detector("grounding-dino-tiny", weights="runs/dino") a folder made by save_pretrained

    Raises:
        UsageError: an unknown name, or one without published weights.
        SourceError: a file is missing.
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
    for required in ("config.json", "tokenizer_config.json"):
        if not (folder / required).is_file():
            raise SourceError(f"no such file: {folder / required} (save_pretrained writes it)")
    return DetectorSource(name, folder)
