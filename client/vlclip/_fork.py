"""Forks: what a child process must not share with its parent.

Connections and shared memory belong to the process that opened them. In a child, each client opens its own at its next
request. gRPC itself survives a fork only if no thread was inside it: else the child would crash or wait forever, so
its requests are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from vlclip.errors import ForkError


class Forkable(Protocol):
    """A client."""

    def _after_fork(self) -> None:
        """Is called in the child, which has one thread. Locks may be held by threads that only the parent has."""


_clients: WeakSet[Forkable] = WeakSet()
_inherited: list[object] = []
_in_grpc: set[object] = set()
_usable = True


def register(client: Forkable) -> None:
    """Calls the client's ``_after_fork`` in each child process."""
    _clients.add(client)


def inherited(channel: object) -> None:
    """Keeps a channel of the parent forever: the child would end its connections if it destroyed it."""
    _inherited.append(channel)


@contextmanager
def in_grpc() -> Iterator[None]:
    """Marks a request that waits for gRPC in this thread."""
    request = object()
    _in_grpc.add(request)
    try:
        yield
    finally:
        _in_grpc.discard(request)


def always_in_grpc() -> None:
    """Marks that gRPC keeps a thread from now on, as its asyncio API does."""
    _in_grpc.add("asyncio")


def check() -> None:
    """Raises ForkError if gRPC does not work in this process."""
    if not _usable:
        raise ForkError(
            "gRPC does not work in this process, because it was forked while its parent had a request in flight or "
            "had used an AsyncClient",
            advice='Fork before the first request, or start processes with the method "spawn" or "forkserver" of '
            "multiprocessing",
        )


def _after_fork() -> None:
    global _usable
    _usable = _usable and not _in_grpc
    _in_grpc.clear()
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
