"""What the benchmarks share: their options, their JSON file, and the server that they send requests to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.server.server import Server
from vlclip import VlclipError


def parser_of(name: str, doc: str | None, *, figures: bool = True, url: bool = True) -> argparse.ArgumentParser:
    """The parser of a benchmark, with ``doc`` as its help, and with ``--json`` and ``--url`` unless turned off."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if figures:
        parser.add_argument("--json", type=Path, help="write the figures to this file")
    if url:
        parser.add_argument("--url", help="gRPC address of a running server (default: start one)")
    return parser


def checked(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """The type of an option that keeps its text, and is refused with the message of a ValueError of ``parse``."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def keep(report: dict[str, Any], file: Path | None) -> None:
    """Write the figures, which may be dataclasses, to the file of ``--json``, if there is one."""
    if file:
        file.write_text(json.dumps(report, indent=2, default=asdict) + "\n")


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The gRPC address to use: ``url``, or that of a server which runs until the block ends.

    A failure of the server or of a request ends the program with its message.
    """
    try:
        if url:
            yield url
            return
        with Server.start() as server:
            yield server.grpc_url
    except (ServingError, VlclipError) as error:
        raise SystemExit(f"error: {error}") from error
