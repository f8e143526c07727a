"""Finds the files that the models of the repositories need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from serving.errors import SetupError
from serving.repository.manifest import SERVED, read_served


def require_artefacts(repositories: Sequence[Path | str]) -> None:
    """Raise SetupError if the file that a model runs is missing."""
    folders = [Path(folder) for folder in repositories]
    home = find_home(folders)
    served = read_served(home) if home else None
    if home and served is None:
        raise SetupError(f"{home / SERVED} points to no manifest, because an export was interrupted: run it again")
    if served and not served.digests:
        raise SetupError(
            f"{home} serves {served.label}, of an older release, whose graphs do not name their version: export the "
            "models again (the mini models: python -m export.install)"
        )
    for folder in folders:
        if not any(folder.glob("*/config.pbtxt")):
            what = "holds no models" if folder.is_dir() else "is not a folder"
            raise SetupError(
                f"{folder} {what}: expected a model repository, which `make models MODELS={folder}` "
                f"(python -m export --out {folder}) makes"
            )
    for config in sorted(path for folder in folders for path in folder.glob("*/config.pbtxt")):
        leaf, version = config.parent.name, config.parent / "1"
        wanted = ["tokenizer.json"] if leaf.startswith("tokenize") else []
        if served and leaf in served.leaves:
            version, wanted = config.parent / str(served.version), [served.leaves[leaf].file]
        elif "ensemble" not in config.read_text() and not any(version.glob("model.*")):
            wanted = ["model.onnx"]
        for name in wanted:
            if not (version / name).exists():
                raise SetupError(f"{version / name} is missing: run `make models`, which exports the models")


def find_home(repositories: Sequence[Path]) -> Path | None:
    """The repository with a manifest, which ``python -m export`` writes; None if there is none."""
    return next((folder for folder in repositories if os.path.lexists(folder / SERVED)), None)
