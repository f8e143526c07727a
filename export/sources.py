"""Where a model comes from: a published name, a checkpoint or a folder. And from what the user typed to a detector's.

``encoder_sources`` does the same for an encoder. Nothing is loaded in either. Every mistake that can be found without
loading is reported in one sentence.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from export.errors import SourceError, UsageError, unknown
from serving.repository.manifest import Source

THRESHOLD = 0.2
"""Score below which the whole image is used, if nothing else is known about the detector."""
MINI_THRESHOLD = 0.5
"""The mini detector's score is the probability that the product is there, in photos of which half show it."""

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
LOCAL = "local-dir:"
"""What open_clip puts in front of a folder's name."""


@dataclass(frozen=True)
class EncoderSource:
    """An existing open_clip model, as returned by ``resolve_encoder``."""

    label: str
    """The name for people."""
    name: str
    """open_clip's name: ``ViT-B-32``, or ``local-dir:FOLDER`` for a folder."""
    pretrained: str | None = None
    """The tag of the weights that open_clip downloads."""
    checkpoint: Path | None = None
    """The file of the weights. Random weights have neither."""
    preprocessing_of: str | None = None
    """The tag whose preprocessing is used with a file or with random weights."""
    tokenizer: str | None = None
    """A folder that replaces the tokenizer's hub."""

    @property
    def folder(self) -> Path | None:
        return Path(self.name.removeprefix(LOCAL)) if self.name.startswith(LOCAL) else None

    def describe(self) -> Source:
        """What identifies the weights, the preprocessing and the tokenizer, found without loading them."""
        description: dict[str, object] = {"model": self.label}
        if self.folder and self.checkpoint:
            description["files"] = {
                file.name: sha256_of(file)
                for file in [*sorted(set(self.folder.iterdir()) - {*weights_in(self.folder)}), self.checkpoint]
                if file.is_file()
            }
        elif self.checkpoint:
            description["files"] = {self.checkpoint.name: sha256_of(self.checkpoint)}
        elif self.pretrained:
            description["pretrained"] = self.pretrained
        else:
            description["weights"] = "random"
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


def weights_in(folder: Path) -> list[Path]:
    """The files of a folder that can be weights, in order."""
    return [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".bin", ".pth", ".pt")]


def hashes_of(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder, by name."""
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}


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
    if name == "mini" or name.endswith(".pt"):
        if weights:
            raise UsageError(
                f"the detector {name} has weights of its own: leave out --detector-weights, or name the architecture "
                f"of {weights} with --detector"
            )
        if random:
            raise UsageError(
                f"the detector {name} has weights of its own: --random-weights is for a named architecture"
            )
        if name == "mini":
            return _detector_file("mini", MINI / "detector.pt", "the mini detector is trained by `make train-mini`")
        return _detector_file(Path(name).stem, Path(name))
    if name not in YOLO_WORLD and name not in GROUNDING_DINO:
        raise unknown("detector", name, ["mini", *YOLO_WORLD, *GROUNDING_DINO])
    if weights and random:
        raise UsageError(f"--random-weights contradicts --detector-weights {weights}: leave out one of them")
    if name in GROUNDING_DINO:
        return _grounding_dino(name, weights, random)
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
