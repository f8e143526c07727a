"""Pack the mini models' graphs for git, and install them without torch.

    python -m export.install                   install them into model_repository/ as version 1, and serve it
    python -m export.install --if-missing      only if it does not serve them, or an export of yours, already

Installing needs only the standard library: the demo has neither torch nor onnx.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.errors import ExportError, SourceError
from export.place import copy_handwritten, put_in_place, staging
from serving.errors import RepositoryError
from serving.repository.manifest import (
    Manifest,
    manifest_path,
    read_served,
)

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "mini" / "graphs"
ARCHIVE = "graphs.tar.xz"
VERSION = 1


def pack(repository: Path, to: Path = SHIPPED) -> int:
    """Pack the artefacts of a repository into one archive for git, with its manifest next to it.

    The archive is solid, so that the weights that ``encode_prompt`` and ``encode_text`` share are stored once. The
    same artefacts give the same bytes.

    Returns:
        the archive's size in bytes
    """
    manifest = Manifest.read(manifest_path(repository, VERSION))
    if manifest is None or not manifest.is_complete(repository):
        raise SourceError(f"{repository} holds no complete export: run `python -m export` first")
    to.mkdir(parents=True, exist_ok=True)
    partial = to / f"{ARCHIVE}.partial"
    with tarfile.open(partial, "w:xz", preset=9) as archive:
        for leaf in sorted(manifest.leaves):
            source = manifest.file_in(repository, leaf)
            entry = tarfile.TarInfo(f"{leaf}/{source.name}")
            entry.size = source.stat().st_size
            with source.open("rb") as stream:
                archive.addfile(entry, stream)
    os.replace(partial, to / ARCHIVE)
    (to / "manifest.json").write_bytes(replace(manifest, shipped=True).to_bytes())
    return (to / ARCHIVE).stat().st_size


def install(repository: Path, shipped: Path = SHIPPED, if_missing: bool = False, force: bool = False) -> str:
    """Install the shipped graphs as version 1, and serve it.

    Args:
        if_missing: keep an export of the user's own that is served. Graphs from an older archive are replaced.
        force: overwrite an export of the user's own that is version 1.

    Returns:
        a sentence about what was done

    Raises:
        SourceError: there are no shipped graphs, or they are damaged, or they would overwrite an export of the user's;
            the repository did not change.
    """
    present, first = read_served(repository), Manifest.read(manifest_path(repository, VERSION))
    complete = present is not None and present.is_complete(repository)
    if if_missing and present and not present.shipped:
        if complete:
            return f"{repository} holds your export of {present.models}, left as it is"
        raise SourceError(
            f"{repository} serves your export, {present.label}, of which a file is missing or damaged: export it "
            "again, or serve another version with `python -m export use`"
        )
    if first and not first.shipped and first.is_complete(repository) and not force:
        raise SourceError(
            f"{repository} holds your export, {first.label}, which the mini models would overwrite: serve it with "
            f"`python -m export use --version {VERSION}`, install them elsewhere with --out, or add --force"
        )
    manifest = Manifest.read(shipped / "manifest.json")
    if manifest is None or not (shipped / ARCHIVE).is_file():
        raise SourceError(f"no shipped graphs in {shipped}: run `make train-mini`, or `make models` for others")
    if if_missing and complete and present == manifest:
        return f"{repository} is up to date"
    with staging(repository) as staged:
        unpack(shipped / ARCHIVE, manifest, staged)
        copy_handwritten(staged, repository)
        put_in_place(staged, repository, manifest)
    return f"{repository} now holds {manifest.models}"


def unpack(archive_file: Path, manifest: Manifest, to: Path) -> None:
    """Extract the files of the manifest and compare their hashes."""
    try:
        from lzma import LZMAError
    except ImportError as error:
        raise SourceError("this Python was built without lzma: install liblzma-dev and build it again") from error
    try:
        with tarfile.open(archive_file, "r:xz") as archive:
            for leaf, entry in manifest.leaves.items():
                member = archive.extractfile(f"{leaf}/{entry.file}")
                content = member.read() if member else b""
                if hashlib.sha256(content).hexdigest() != entry.sha256:
                    raise SourceError(f"{archive_file} is damaged: {leaf} is not what the manifest says")
                (to / leaf).mkdir()
                (to / leaf / entry.file).write_bytes(content)
    except (tarfile.TarError, LZMAError, KeyError, EOFError, OSError) as error:
        raise SourceError(f"{archive_file} cannot be unpacked: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.install", description="Install the mini models' graphs, which are in git, without torch."
    )
    parser.add_argument("--out", type=Path, default=Path("model_repository"), help="model repository (%(default)s)")
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="packed graphs (weights/mini/graphs)")
    parser.add_argument("--if-missing", action="store_true", help="keep an export of yours that is served")
    parser.add_argument("--force", action="store_true", help="overwrite an export of yours that is version 1")
    arguments = parser.parse_args(argv)
    try:
        print(install(arguments.out, arguments.shipped, arguments.if_missing, arguments.force))
    except (ExportError, RepositoryError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
