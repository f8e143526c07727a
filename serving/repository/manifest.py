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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
T = TypeVar("T")
D = TypeVar("D")


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

    file: str
    sha256: str
    bytes: int
    parity: Mapping[str, float]
    nodes: int | None = None
    opset: int | None = None
    plan: Plan | None = None

    def describe(self, name: str) -> str:
        """ "detect  7.54 MB  score_difference_max 1.8e-07" """
        figures = "  ".join(f"{figure} {value:.7g}" for figure, value in self.parity.items())
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
    prompt_encoder: Source | None
    """``None`` if the detector brings its own."""
    settings: Settings
    code: str
    """SHA-256 of the export code."""


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
    shipped: bool = False
    """Whether the models come from ``weights/mini/graphs``."""

    @classmethod
    def parse(cls, content: str | bytes) -> Manifest:
        """Read a manifest. Keys that this code does not know are ignored, so that newer exports can be served.

        Raises:
            ValueError: the content is not JSON, or a key is missing or has another type.
        """
        data = json.loads(content)
        request, leaves = take(data, "request", dict), take(data, "leaves", dict)
        settings = take(request, "settings", dict)
        if not leaves:
            raise ValueError("leaves must not be empty")
        return cls(
            version=take(data, "version", int),
            request=Request(
                detector=take(request, "detector", dict),
                encoder=take(request, "encoder", dict),
                prompt_encoder=take_or(request, "prompt_encoder", dict, None),
                settings=Settings(
                    threshold=take(settings, "threshold", float),
                    detector_side=take_or(settings, "detector_side", int, None),
                    precision=take_or(settings, "precision", str, "fp32"),
                    format=take_or(settings, "format", str, "onnx"),
                ),
                code=take(request, "code", str),
            ),
            leaves={name: parse_leaf(name, entry) for name, entry in leaves.items()},
            detector_side=take(data, "detector_side", int),
            preprocessing=take_or(data, "preprocessing", dict, {}),
            symbols=take_or(data, "symbols", dict, {}),
            libraries=take_or(data, "libraries", dict, {}),
            shipped=take_or(data, "shipped", bool, False),
        )

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

    def file_in(self, repository: Path, leaf: str) -> Path:
        return repository / leaf / str(self.version) / self.leaves[leaf].file

    def is_complete(self, repository: Path) -> bool:
        """Whether every file of the manifest is in its place with the expected bytes."""
        for name, leaf in self.leaves.items():
            file = self.file_in(repository, name)
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != leaf.sha256:
                return False
        return True


def take(data: object, name: str, kind: type[T]) -> T:
    """The value of a key, which must be there. Raises ValueError if it is absent or has another type."""
    if not isinstance(data, dict):
        raise ValueError(f"expected an object with the key {name!r}, got {data!r}")
    value = data.get(name)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name!r} must be of type {kind.__name__}, got {value!r}")
    return value


def take_or(data: object, name: str, kind: type[T], default: D) -> T | D:
    """The value of a key, or ``default`` if it is absent or null."""
    return default if isinstance(data, dict) and data.get(name) is None else take(data, name, kind)


def parse_leaf(name: str, entry: object) -> Leaf:
    file = take_or(entry, "file", str, ARTEFACTS.get(name))
    if file not in FILES:
        raise ValueError(f"{name}: the file must be one of {', '.join(sorted(FILES))}, got {file!r}")
    return Leaf(
        file=file,
        sha256=take(entry, "sha256", str),
        bytes=take(entry, "bytes", int),
        parity=take(entry, "parity", dict),
        nodes=take_or(entry, "nodes", int, None),
        opset=take_or(entry, "opset", int, None),
        plan=parse_plan(plan) if (plan := take_or(entry, "plan", dict, None)) else None,
    )


def parse_plan(plan: object) -> Plan:
    return Plan(
        builder=take(plan, "builder", str),
        onnx_sha256=take(plan, "onnx_sha256", str),
        tensors=take(plan, "tensors", dict),
        layers=take(plan, "layers", dict),
        parity=take(plan, "parity", str),
    )


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
