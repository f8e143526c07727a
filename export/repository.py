"""The model repository: what lies where, and how new artefacts come in without a moment of disorder.

    model_repository/
    ├── manifest-1.json              what version 1 was made from, and its parity figures
    ├── detect/1/model.onnx
    ├── detect/2/model.plan          a version made with --format tensorrt
    └── tokenize/1/tokenizer.json

Only the standard library is needed here, and in ``export.install``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
GRAPHS = {"model.onnx", "model.plan"}
STAGING = ".export-"

Manifest = dict[str, Any]


def manifest_path(repository: Path, version: int) -> Path:
    return repository / f"manifest-{version}.json"


def read_manifest(path: Path) -> Manifest | None:
    """``None`` where there is none, or one that cannot be read."""
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def write_manifest(manifest: Manifest) -> bytes:
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()


def models_of(manifest: Manifest) -> str:
    """ "mini + ViT-B-32" """
    request = manifest.get("request", {})
    return " + ".join(request.get(part, {}).get("model", "?") for part in ("detector", "encoder"))


def describe_leaf(leaf: str, entry: Manifest) -> str:
    """ "detect  7.54 MB  score_difference_max 1.8e-07" """
    figures = "  ".join(f"{name} {value:.7g}" for name, value in entry["parity"].items())
    return f"{leaf:<16}{entry['bytes'] / 1e6:7.2f} MB  {figures}"


def is_complete(repository: Path, manifest: Manifest) -> bool:
    """Whether every artefact of the manifest lies in its place, bit for bit."""
    leaves, version = manifest.get("leaves", {}), str(manifest.get("version"))
    for leaf, entry in leaves.items():
        file = repository / leaf / version / entry.get("file", ARTEFACTS.get(leaf, "?"))
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            return False
    return bool(leaves)


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A hidden folder in the repository, on the same file system; gone afterwards, whatever happens."""
    repository.mkdir(parents=True, exist_ok=True)
    for left_over in repository.glob(f"{STAGING}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=repository))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staged: Path, repository: Path, version: int, leaves: Mapping[str, Any], manifest: bytes) -> None:
    """Moves ``staged/LEAF`` (its files) to ``repository/LEAF/VERSION`` by renames, the manifest last.

    A version folder that is new appears as a whole, so that a polling server never sees half of it. A leaf in
    Python takes its ``model.py`` along from the newest version that has one. A graph replaces one of the other
    format: the file decides which of Triton's backends runs it, so there must be only one.
    """
    (staged / "manifest.json").write_bytes(manifest)
    for leaf in leaves:
        home, new = repository / leaf, staged / leaf
        target = home / str(version)
        home.mkdir(exist_ok=True)
        if target.is_dir():
            names = {file.name for file in new.iterdir()}
            for name in names:
                os.replace(new / name, target / name)
            if names & GRAPHS:
                for name in GRAPHS - names:
                    (target / name).unlink(missing_ok=True)
            continue
        code = sorted(home.glob("*/model.py"), key=lambda file: (len(file.parent.name), file.parent.name))
        if code:
            shutil.copy2(code[-1], new / "model.py")
        os.replace(new, target)
    os.replace(staged / "manifest.json", manifest_path(repository, version))
