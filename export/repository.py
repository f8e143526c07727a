"""The model repository: what lies where, and how new artefacts come in without a moment of disorder.

    model_repository/
    ├── manifest-1.json              what version 1 was made from, and its parity figures
    ├── detect/1/model.onnx
    └── tokenize/1/tokenizer.json

Only the standard library is needed here: the shipped mini models are installed without torch, onnx or numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.errors import SourceError, UsageError

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
STAGING = ".export-"
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "mini" / "graphs"
ARCHIVE = "graphs.tar.xz"

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


def describe_leaf(leaf: str, entry: Manifest) -> str:
    """ "detect  7.54 MB  score_difference_max 1.8e-07" """
    figures = "  ".join(f"{name} {value:.7g}" for name, value in entry["parity"].items())
    return f"{leaf:<16}{entry['bytes'] / 1e6:7.2f} MB  {figures}"


def is_complete(repository: Path, manifest: Manifest) -> bool:
    """Whether every artefact of the manifest lies in its place, bit for bit."""
    for leaf, entry in manifest.get("leaves", {}).items():
        file = repository / leaf / str(manifest["version"]) / ARTEFACTS[leaf]
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            return False
    return bool(manifest.get("leaves"))


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
    Python takes its ``model.py`` along from the newest version that has one.
    """
    (staged / "manifest.json").write_bytes(manifest)
    for leaf in leaves:
        home, new = repository / leaf, staged / leaf
        target = home / str(version)
        home.mkdir(exist_ok=True)
        if target.is_dir():
            for file in new.iterdir():
                os.replace(file, target / file.name)
            continue
        code = sorted(home.glob("*/model.py"), key=lambda file: (len(file.parent.name), file.parent.name))
        if code:
            shutil.copy2(code[-1], new / "model.py")
        os.replace(new, target)
    os.replace(staged / "manifest.json", manifest_path(repository, version))


def pack(repository: Path, version: int, to: Path) -> int:
    """Packs the artefacts of a version into one archive for git, with its manifest beside it.

    One solid archive: the weights that ``encode_prompt`` and ``encode_text`` share are stored once. The same
    artefacts give the same bytes.

    Returns:
        the archive's size in bytes
    """
    manifest = read_manifest(manifest_path(repository, version))
    if manifest is None or not is_complete(repository, manifest):
        raise SourceError(f"{repository} holds no complete export of version {version}: run `python -m export` first")
    to.mkdir(parents=True, exist_ok=True)
    partial = to / f"{ARCHIVE}.partial"
    with tarfile.open(partial, "w:xz", preset=9) as archive:
        for leaf in sorted(manifest["leaves"]):
            name = f"{leaf}/{ARTEFACTS[leaf]}"
            entry = tarfile.TarInfo(name)
            source = repository / leaf / str(version) / ARTEFACTS[leaf]
            entry.size = source.stat().st_size
            with source.open("rb") as stream:
                archive.addfile(entry, stream)
    os.replace(partial, to / ARCHIVE)
    (to / "manifest.json").write_bytes(write_manifest(manifest))
    return (to / ARCHIVE).stat().st_size


def install(repository: Path, shipped: Path = SHIPPED, force: bool = False) -> str:
    """Puts the shipped graphs into the repository as version 1, unless they or others are there.

    Returns:
        a sentence that says what was done
    """
    manifest = read_manifest(shipped / "manifest.json")
    if manifest is None or not (shipped / ARCHIVE).is_file():
        raise SourceError(f"no shipped graphs in {shipped}: run `make train-mini`, or `python -m export` for others")
    version = int(manifest["version"])
    present = read_manifest(manifest_path(repository, version))
    name = f"{manifest['request']['detector']['model']} + {manifest['request']['encoder']['model']}"
    if present is not None and not force:
        if present == manifest and is_complete(repository, present):
            return f"{repository} is up to date"
        others = f"{present['request']['detector']['model']} + {present['request']['encoder']['model']}"
        if others != name:
            return f"{repository} holds {others} and is left as it is (--force replaces it with the mini models)"
    with staging(repository) as staged:
        try:
            with tarfile.open(shipped / ARCHIVE, "r:xz") as archive:
                for leaf, entry in manifest["leaves"].items():
                    member = archive.extractfile(f"{leaf}/{ARTEFACTS[leaf]}")
                    content = member.read() if member else b""
                    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                        raise SourceError(f"{shipped / ARCHIVE} is damaged: {leaf} is not what the manifest says")
                    (staged / leaf).mkdir()
                    (staged / leaf / ARTEFACTS[leaf]).write_bytes(content)
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise SourceError(f"{shipped / ARCHIVE} cannot be unpacked: {error}") from error
        except ImportError as error:  # a Python built without liblzma
            raise UsageError("this Python has no lzma module; install liblzma and rebuild it") from error
        put_in_place(staged, repository, version, manifest["leaves"], write_manifest(manifest))
    return f"{repository} now holds {name}, version {version}"
