"""Put artefacts into a model repository in one step, so that an interrupted export never leaves a mix of two versions.

The layout is described in ``serving.repository.manifest``. This module needs only the standard library.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.errors import RepositoryError
from serving.paths import REPOSITORIES
from serving.repository.manifest import (
    GRAPHS,
    SERVED,
    Manifest,
    Request,
    manifest_path,
    read_manifests,
    read_served,
    require_version,
)

TEMPLATE, _ = REPOSITORIES
HANDWRITTEN = ("*/config.pbtxt", "*/1/model.py")
"""The files of ``TEMPLATE`` that every repository needs in addition to the exported ones."""
STAGING = ".export-"


def choose_version(repository: Path, request: Request) -> int:
    """The version to write if the user names none: the one that holds this export, preferably served, else a new one.

    So an export never takes the place of another one unasked.
    """
    manifests, served = read_manifests(repository), read_served(repository)
    holders = [one for one in manifests if one.request == request and one.is_complete(repository)]
    if holders:
        return served.version if served in holders else holders[-1].version
    return 1 + max((one.version for one in manifests), default=0)


def require_free(repository: Path, version: int) -> None:
    """Check before an export that it overwrites no other one.

    Raises:
        RepositoryError: the repository holds this version.
    """
    present = Manifest.read(manifest_path(repository, version))
    if present is None or not present.is_complete(repository):
        return
    free = 1 + max(one.version for one in read_manifests(repository))
    served = ", which is served" if present == read_served(repository) else ""
    raise RepositoryError(
        f"{repository} already holds {present.label}{served}: leave out --version for the next free number (make: "
        f"VERSION), choose one such as {free}, or add --force to overwrite it (make: FORCE=1)"
    )


def require_another_served(repository: Path, version: int) -> None:
    """Check before a version is staged that another version is served.

    Raises:
        RepositoryError: no version is served, or it is this one.
    """
    served = read_served(repository)
    if served is None:
        raise RepositoryError(f"{repository} serves no version yet: export without --stage (make: without STAGE)")
    if served.version == version:
        raise RepositoryError(
            f"{repository} serves version {version}: choose another with --version to stage it (make: VERSION)"
        )


def next_steps(repository: Path, version: int) -> list[str]:
    """What comes after a staged export, in lines."""
    served = read_served(repository)
    return [
        f"{repository} still serves version {served.version if served else 'none'}. Next:",
        f"  python -m benchmarks.canary --model-repository {repository} --version {version} --promote",
        f"      compares version {version} with it, and serves version {version} if it passes",
        f"  python -m export use --out {repository} --version {version}",
        f"      serves version {version} without a comparison",
    ]


def serve_version(repository: Path, version: int) -> Manifest:
    """Make a version the one that is served. Running servers switch to it.

    Raises:
        RepositoryError: the repository does not hold every file of it.
    """
    manifest = require_version(repository, version)
    with staging(repository) as staged:
        point_to(repository, version, staged)
    return manifest


def point_to(repository: Path, version: int, staged: Path) -> None:
    (staged / SERVED).symlink_to(manifest_path(repository, version).name)
    os.replace(staged / SERVED, repository / SERVED)


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A hidden folder in the repository, and so on the same file system. It is deleted at the end in any case.

    The folders of exports that were killed are deleted as well: the lock ensures that no other export is running.

    Raises:
        RepositoryError: another export is running.
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
                with suppress(OSError):  # artefacts were placed
                    repository.rmdir()


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """An exclusive lock on the repository. The kernel releases it even if this process is killed."""
    folder = os.open(repository, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder. There the user must not run two exports at once.
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
    """Ignore Ctrl-C and SIGTERM during the few milliseconds of the renames."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def copy_handwritten(staged: Path, repository: Path) -> None:
    """Copy the configs that a repository lacks, and replace the Python models that differ from ours."""
    for file in (file for pattern in HANDWRITTEN for file in TEMPLATE.glob(pattern)):
        target = repository / file.relative_to(TEMPLATE)
        is_code = file.suffix == ".py"
        if not target.exists() or (is_code and target.read_bytes() != file.read_bytes()):
            shutil.copy2(file, staged / "handwritten")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged / "handwritten", target)


def put_in_place(staged: Path, repository: Path, manifest: Manifest, serve: bool = True) -> None:
    """Move the files of each leaf from ``staged/LEAF`` to ``repository/LEAF/VERSION`` by renames.

    The manifest is written last. If the version exists, its old manifest is deleted first: when the process is killed
    in between, the repository counts as incomplete, and no server starts with files of both exports. A graph replaces
    a graph of the other format, because Triton chooses its backend by the file that is there.

    Args:
        serve: make it the version that is served.

    Raises:
        RepositoryError: a file could not be moved; the version is incomplete.
    """
    path = manifest_path(repository, manifest.version)
    (staged / path.name).write_bytes(manifest.to_bytes())
    for leaf in manifest.leaves:
        if (code := TEMPLATE / leaf / "1" / "model.py").is_file():
            shutil.copy2(code, staged / leaf)
    with uninterrupted():
        try:
            path.unlink(missing_ok=True)
            for leaf in manifest.leaves:
                move(staged / leaf, repository / leaf / str(manifest.version))
            os.replace(staged / path.name, path)
            if serve:
                point_to(repository, manifest.version, staged)
        except OSError as error:
            raise RepositoryError(
                f"version {manifest.version} of {repository} is incomplete now, export again: {error}"
            ) from error


def move(new: Path, target: Path) -> None:
    """Rename the folder if the target does not exist, else rename file by file."""
    target.parent.mkdir(exist_ok=True)
    if not target.is_dir():
        os.replace(new, target)
        return
    names = {file.name for file in new.iterdir()}
    for name in names:
        os.replace(new / name, target / name)
    for name in GRAPHS - names if names & GRAPHS else ():
        (target / name).unlink(missing_ok=True)
