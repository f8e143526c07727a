"""What benchmarks share: their options, the photos of a folder, and the server that they talk to."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.server.server import Server

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def parser_of(name: str, doc: str | None, *, figures: bool = True, url: bool = True) -> argparse.ArgumentParser:
    """A benchmark's, whose help is its module's text, with ``--url`` and, where there are
    figures, ``--json``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if figures:
        parser.add_argument("--json", type=Path, help="write the figures there")
    if url:
        parser.add_argument("--url", help="gRPC address of a running server (default: one is started)")
    return parser


def checked(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """An option's type: the text as it was given; what a ValueError of ``parse`` says is shown."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def find_photos(folder: Path, default_type: str) -> list[tuple[Path, str]]:
    """Photos and their prompts, from ``photos.csv`` where there is one. Raises SystemExit where there is no photo."""
    if (folder / "photos.csv").is_file():
        with (folder / "photos.csv").open(newline="", encoding="utf-8") as table:
            photos = [(folder / row["file"], row["product_type"]) for row in csv.DictReader(table)]
    else:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        photos = [(path, default_type) for path in found]
    if not photos:
        raise SystemExit(f"no photos in {folder}: expected files ending in {', '.join(sorted(_SUFFIXES))}")
    return photos


def keep(report: dict[str, Any], file: Path | None) -> None:
    """Writes the figures where ``--json`` says."""
    if file:
        file.write_text(json.dumps(report, indent=2) + "\n")


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The gRPC address to talk to."""
    if url:
        yield url
        return
    with Server.start() as server:
        yield server.grpc_url
