"""The folders of the model repositories."""

from __future__ import annotations

from pathlib import Path


def find_root() -> Path:
    """The checkout that contains this package; the current folder if the package was installed, as in our images."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "ensembles").is_dir() else Path.cwd()


ROOT = find_root()
REPOSITORIES = (ROOT / "model_repository", ROOT / "ensembles")
