"""What the benchmarks share: their options, their JSON file, and the server that they ask."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.server.server import Server


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
