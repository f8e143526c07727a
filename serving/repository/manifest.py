"""The model repository: what lies where, and how new artefacts come in without a moment of disorder.

    model_repository/
    ├── manifest.json -> manifest-2.json     the version that is served
    ├── manifest-1.json                      what version 1 was made from, and its parity figures
    ├── manifest-2.json
    ├── detect/1/model.onnx                  or model.plan, made with --format tensorrt
    ├── detect/2/model.onnx
    └── tokenize/1/tokenizer.json

A running server follows ``manifest.json``: see ``serving.server``. Only the standard library is needed here, and in
``export.install``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from serving.errors import RepositoryError
from serving.paths import REPOSITORIES

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
OURS, _ = REPOSITORIES
BY_HAND = ("*/config.pbtxt", "*/1/model.py")
"""What of ``OURS`` is written by hand, and what any other repository needs to be served."""
SERVED = "manifest.json"
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


def read_manifests(repository: Path) -> list[Manifest]:
    """Of all versions, the lowest first."""
    found = [read_manifest(path) for path in repository.glob("manifest-*.json")]
    return sorted(filter(None, found), key=lambda manifest: int(manifest["version"]))


def read_served(repository: Path) -> Manifest | None:
    """The manifest of the version that is served; ``None`` where nothing was exported, or not to its end."""
    return read_manifest(repository / SERVED)


def require_version(repository: Path, version: int) -> Manifest:
    """The manifest of a version.

    Raises:
        RepositoryError: the repository does not hold all of it.
    """
    manifest = read_manifest(manifest_path(repository, version))
    if manifest is None or not is_complete(repository, manifest):
        whole = [str(one["version"]) for one in read_manifests(repository) if is_complete(repository, one)]
        raise RepositoryError(
            f"{repository} holds no complete version {version}, " + (f"only {', '.join(whole)}" if whole else "nor any")
        )
    return manifest


def require_another_served(repository: Path, version: int) -> None:
    """Before a version is staged: there must be one beside it, and it must not be that one.

    Raises:
        RepositoryError: says what to do instead.
    """
    served = read_served(repository)
    if served is None:
        raise RepositoryError(f"{repository} serves no version to stage another beside: leave out --stage")
    if served["version"] == version:
        raise RepositoryError(f"{repository} serves version {version}: stage another, with --version")


def serve_version(repository: Path, version: int) -> Manifest:
    """Makes a version the one that is served, here and by running servers, in one step.

    Raises:
        RepositoryError: the repository does not hold all of it.
    """
    manifest = require_version(repository, version)
    with staging(repository) as staged:
        point_to(repository, version, staged)
    return manifest


def point_to(repository: Path, version: int, staged: Path) -> None:
    (staged / SERVED).symlink_to(manifest_path(repository, version).name)
    os.replace(staged / SERVED, repository / SERVED)


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
    """A hidden folder in the repository, on the same file system; gone afterwards, whatever happens.

    What exports left behind that were killed goes too: nobody else is at work, for the repository is locked.

    Raises:
        RepositoryError: another export is at work.
    """
    is_new = not repository.exists()
    repository.mkdir(parents=True, exist_ok=True)
    with locked(repository):
        for left_over in repository.glob(f"{STAGING}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=repository))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                with suppress(OSError):  # something was put into place
                    repository.rmdir()


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """The repository to ourselves; the kernel gives it back even if we are killed."""
    folder = os.open(repository, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder. There two exports at once remain the user's care.
        with suppress(OSError):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RepositoryError(f"another export is writing to {repository}: wait until it is done") from None
        yield
    finally:
        os.close(folder)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM come to nothing in the few milliseconds of the renames."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def furnish(staged: Path, repository: Path) -> None:
    """Gives a repository the configs that it lacks, and the Python models as they are now."""
    for file in (file for pattern in BY_HAND for file in OURS.glob(pattern)):
        target = repository / file.relative_to(OURS)
        is_code = file.suffix == ".py"
        if not target.exists() or (is_code and target.read_bytes() != file.read_bytes()):
            shutil.copy2(file, staged / "by-hand")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged / "by-hand", target)


def put_in_place(
    staged: Path,
    repository: Path,
    version: int,
    leaves: Mapping[str, Any],
    manifest: bytes,
    serve: bool = True,
) -> None:
    """Moves ``staged/LEAF`` (its files) to ``repository/LEAF/VERSION`` by renames, and makes it the version served.

    The manifest comes last. A version that is replaced loses its own first: killed in between, the repository is seen
    to be incomplete, and no server starts with a part of each. A graph replaces one of the other format:
    the file decides which of Triton's backends runs it, so there must be only one.

    Args:
        serve: whether to make it the version served; without, the one that is served stays as it is.
    """
    (staged / manifest_path(repository, version).name).write_bytes(manifest)
    for leaf in leaves:
        if (code := OURS / leaf / "1" / "model.py").is_file():
            shutil.copy2(code, staged / leaf)
    with uninterrupted():
        try:
            manifest_path(repository, version).unlink(missing_ok=True)
            for leaf in leaves:
                move(staged / leaf, repository / leaf / str(version))
            os.replace(staged / manifest_path(repository, version).name, manifest_path(repository, version))
            if serve:
                point_to(repository, version, staged)
        except OSError as error:
            raise RepositoryError(
                f"version {version} of {repository} is incomplete now, export again: {error}"
            ) from error


def move(new: Path, target: Path) -> None:
    """A whole folder where there is none, else file by file."""
    target.parent.mkdir(exist_ok=True)
    if not target.is_dir():
        os.replace(new, target)
        return
    names = {file.name for file in new.iterdir()}
    for name in names:
        os.replace(new / name, target / name)
    for name in GRAPHS - names if names & GRAPHS else ():
        (target / name).unlink(missing_ok=True)
