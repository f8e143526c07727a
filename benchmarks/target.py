"""The server that a benchmark talks to: a running one by its address, or one of its own for as long as it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.serve import Server


def add_url(parser: argparse.ArgumentParser) -> None:
    """The option ``--url``."""
    parser.add_argument("--url", help="gRPC address of a running server (default: one is started)")


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The gRPC address to talk to."""
    if url:
        yield url
        return
    with Server.start() as server:
        yield server.grpc_url
