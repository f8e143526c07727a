"""The manifests of a model repository: which versions it holds, what each was made from, and which one is served.

    model_repository/
    ├── manifest.json -> manifest-2.json     the version that is served
    ├── manifest-1.json                      what version 1 was made from, and its parity figures
    ├── manifest-2.json
    ├── detect/1/model.onnx                  or model.plan, made with --format tensorrt
    ├── detect/2/model.onnx
    └── tokenize/1/tokenizer.json

``export`` writes manifests, and a running server follows ``manifest.json``: see ``serving.server``. This module needs
only the standard library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from serving.errors import RepositoryError

ARTEFACTS = {
    "encode_prompt": "model.onnx",
    "detect": "model.onnx",
    "crop": "model.onnx",
    "fit": "model.onnx",
    "encode_image": "model.onnx",
    "encode_text": "model.onnx",
    "tokenize": "tokenizer.json",
    "tokenize_prompt": "tokenizer.json",
}
"""The exported leaves, and the file of each where ``--format tensorrt`` does not make it a plan."""
GRAPHS = {"model.onnx", "model.plan"}
FILES = {*ARTEFACTS.values(), *GRAPHS}
SERVED = "manifest.json"

Source = Mapping[str, object]
"""What identifies weights: ``model``, and the hashes of its ``files`` or the name of the ``pretrained`` weights."""


@dataclass(frozen=True)
class Plan:
    """How a TensorRT plan was built from the verified graph."""

    builder: str
    onnx_sha256: str
    tensors: Mapping[str, Mapping[str, Any]]
    """Dtype and shapes (minimum, optimum, maximum) of each input and output."""
    layers: Mapping[str, int]
    """How many outputs of layers have each dtype."""
    parity: str
    """"verified", or "not run" if the plan was built for a GPU that the exporting machine does not have."""


@dataclass(frozen=True)
class Leaf:
    """The exported file of one model, and how close its results are to PyTorch's."""

    sha256: str
    bytes: int
    parity: Mapping[str, float]
    file: str = ""
    """Always set by ``Manifest.parse``. Older manifests lack it for the files of ``ARTEFACTS``."""
    nodes: int | None = None
    opset: int | None = None
    plan: Plan | None = None

    def describe(self, name: str) -> str:
        """ "detect  7.54 MB  score difference max 1.8e-07" """
        figures = "  ".join(f"{figure.replace('_', ' ')} {value:.7g}" for figure, value in self.parity.items())
        return f"{name:<16}{self.bytes / 1e6:7.2f} MB  {figures}"


@dataclass(frozen=True)
class Settings:
    """What goes into the graphs in addition to the weights."""

    threshold: float
    detector_side: int | None = None
    precision: str = "fp32"
    format: str = "onnx"


@dataclass(frozen=True)
class Request:
    """Everything that decides what the artefacts are. Equal requests give equal artefacts."""

    detector: Source
    encoder: Source
    settings: Settings
    code: str
    """SHA-256 of the export code."""
    prompt_encoder: Source | None = None
    """``None`` if the detector brings its own."""


@dataclass(frozen=True)
class Calibration:
    """How a threshold was chosen: photos were asked for product types that they show, and for others."""

    threshold: float
    present: float
    """Share of the questions for a type that is shown whose score reaches the threshold."""
    absent: float
    """The same share of the questions for a type that is not shown."""
    auc: float
    """Chance that a type that is shown scores higher than one that is not."""
    present_asked: int
    absent_asked: int
    photos: int
    types: int

    def describe(self) -> str:
        """ "calibrated on 90 photos of 12 types: grounds 0.967 of the types that are there and 0.044 of …" """
        return (
            f"calibrated on {self.photos} photos of {self.types} types: grounds {self.present:.3f} of the types that "
            f"are there and {self.absent:.3f} of those that are not, AUC {self.auc:.3f}"
        )


@dataclass(frozen=True)
class Manifest:
    """One version of the exported models."""

    version: int
    request: Request
    leaves: Mapping[str, Leaf]
    detector_side: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of what the answers depend on, by ``serving.repository.versions.PARTS``. Empty in manifests of older exports."""
    date: str = ""
    """The day of the export: 2026-11-28"""
    shipped: bool = False
    """Whether the models come from ``weights/mini/graphs``."""
    calibration: Calibration | None = None
    """``None`` if the threshold was given, and not chosen from photos."""

    @classmethod
    def parse(cls, content: str | bytes) -> Manifest:
        """Read a manifest. Keys that this code does not know are ignored, so that newer exports can be served.

        Raises:
            ValueError: the content is not JSON, or a key is missing or has another type.
        """
        manifest: Manifest = decode(cls, json.loads(content), "the manifest")
        if not manifest.leaves:
            raise ValueError("the manifest has no leaves")
        leaves = {
            name: replace(leaf, file=leaf.file or ARTEFACTS.get(name, "")) for name, leaf in manifest.leaves.items()
        }
        for name, leaf in leaves.items():
            if leaf.file not in FILES:
                raise ValueError(f"{name} must have one of the files {', '.join(sorted(FILES))}, got {leaf.file!r}")
        return replace(manifest, leaves=leaves)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest in a file, or ``None`` if there is no such file or it is not a manifest."""
        try:
            return cls.parse(path.read_bytes())
        except (OSError, ValueError):
            return None

    def to_bytes(self) -> bytes:
        """JSON without the keys that are ``None``."""
        data = asdict(self, dict_factory=lambda pairs: {name: value for name, value in pairs if value is not None})
        return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()

    @property
    def models(self) -> str:
        """ "mini + ViT-B-32" """
        return f"{self.request.detector.get('model', '?')} + {self.request.encoder.get('model', '?')}"

    @property
    def label(self) -> str:
        """ "version 2: mini + ViT-B-32, 2026-11-28, fp16, tensorrt" """
        settings = self.request.settings
        plan = "tensorrt" if settings.format == "tensorrt" else ""
        notes = filter(None, [self.models, self.date, settings.precision, plan])
        return f"version {self.version}: {', '.join(notes)}"

    def file_in(self, repository: Path, leaf: str) -> Path:
        return repository / leaf / str(self.version) / self.leaves[leaf].file

    def is_complete(self, repository: Path) -> bool:
        """Whether every file of the manifest is in its place with the expected bytes."""
        for name, leaf in self.leaves.items():
            file = self.file_in(repository, name)
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != leaf.sha256:
                return False
        return True


def decode(kind: Any, value: object, name: str) -> Any:
    """A value of JSON as a ``kind``: a dataclass, a ``Mapping``, a type of JSON, or one of these or ``None``.

    Raises:
        ValueError: the value, or a part of it, is missing or has another type.
    """
    if get_origin(kind) is UnionType:
        kind, _ = get_args(kind)
        return None if value is None else decode(kind, value, name)
    if is_dataclass(kind) or get_origin(kind) is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be an object, got {value!r}")
        if not is_dataclass(kind):
            return {key: decode(get_args(kind)[1], item, key) for key, item in value.items()}
        types, make = get_type_hints(kind), cast(Any, kind)
        try:
            return make(**{key: decode(types[key], value[key], key) for key in types if key in value})
        except TypeError as error:
            raise ValueError(f"{name} is not complete: {error}") from error
    if kind is float and type(value) is int:
        return float(value)
    if kind not in (Any, object) and type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}")
    return value


def manifest_path(repository: Path, version: int) -> Path:
    return repository / f"manifest-{version}.json"


def read_manifests(repository: Path) -> list[Manifest]:
    """The manifests of all versions, the lowest version first."""
    found = [Manifest.read(path) for path in repository.glob("manifest-*.json")]
    return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest.version)


def read_served(repository: Path) -> Manifest | None:
    """The manifest of the version that is served; ``None`` if nothing was exported, or an export was interrupted."""
    return Manifest.read(repository / SERVED)


def require_version(repository: Path, version: int) -> Manifest:
    """The manifest of a version.

    Raises:
        RepositoryError: the repository does not hold every file of it.
    """
    manifest = Manifest.read(manifest_path(repository, version))
    if manifest is None or not manifest.is_complete(repository):
        complete = [str(one.version) for one in read_manifests(repository) if one.is_complete(repository)]
        raise RepositoryError(
            f"{repository} holds no complete version {version}, only {', '.join(complete)}"
            if complete
            else f"{repository} holds no complete version {version}, nor any other"
        )
    return manifest
