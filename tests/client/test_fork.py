"""Clients in a process that is forked, in its own process, since the fake server's threads must not be forked."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlclip
from tests.client.conftest import FakeTriton

PROGRAM = """
import asyncio, json, os, signal, sys, threading
import vlclip

address = sys.argv[1]
signal.alarm(120)


def texts(n):
    return iter([str(i) for i in range(n)])


async def embed(client):
    return (await client.embed_texts("7")).embedding[0, 0]


def in_child(function):
    '''What the function returns in a child process, or the error that it raises there.'''
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            outcome = float(function())
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    return json.loads(os.read(reading, 4096))


unused, used, closed, other = (vlclip.Client(address, timeout=60) for _ in range(4))
used.embed_texts(texts(9))
closed.close()
outcomes = {
    "before the first request": in_child(lambda: unused.embed_texts("7").embedding[0, 0]),
    "asyncio, before the first request": in_child(lambda: asyncio.run(embed(vlclip.AsyncClient(address)))),
    "a closed client": in_child(lambda: closed.embed_texts("7")),
    "a new client": in_child(lambda: vlclip.Client(address).embed_texts("7").embedding[0, 0]),
}
outcomes["after a request"] = in_child(lambda: used.embed_texts("7").embedding[0, 0])
outcomes["several batches"] = in_child(lambda: len(used.embed_texts(texts(30))))
outcomes["close"] = in_child(lambda: used.close() or 1)
outcomes["a child of a child"] = in_child(lambda: in_child(lambda: used.embed_texts("7").embedding[0, 0]))
outcomes["the parent"] = float(used.embed_texts("7").embedding[0, 0])

waiting = threading.Thread(target=used.embed_texts, args=("hold",))
waiting.start()
print("waiting", flush=True)
input()
stream = other.stream.embed_texts(texts(30))
next(stream)
outcomes["a request in flight"] = in_child(lambda: used.embed_texts("7"))
outcomes["the rest of a stream, in the child"] = in_child(lambda: next(stream) and next(stream))
outcomes["close, with a request in flight"] = in_child(lambda: used.close() or 1)
outcomes["the rest of a stream, in the parent"] = sum(map(len, stream))
print("forked", flush=True)
waiting.join()
outcomes["the parent, later"] = float(used.embed_texts("7").embedding[0, 0])

asyncio.run(embed(vlclip.AsyncClient(address)))
outcomes["asyncio, after a request"] = in_child(lambda: asyncio.run(embed(vlclip.AsyncClient(address))))
outcomes["asyncio was used, the other client"] = in_child(lambda: used.embed_texts("7"))
print(json.dumps(outcomes))
"""

REFUSED = "ForkError: gRPC does not work in this process"
OUTCOMES: dict[str, float | str] = {
    "before the first request": 7.0,
    "asyncio, before the first request": 7.0,
    "a closed client": "ClosedError: this client",
    "a new client": 7.0,
    "after a request": 7.0,
    "several batches": 30.0,
    "close": 1.0,
    "a child of a child": 7.0,
    "the parent": 7.0,
    "a request in flight": REFUSED,
    "the rest of a stream, in the child": "ForkError: this call belongs to the parent",
    "close, with a request in flight": 1.0,
    "the rest of a stream, in the parent": 26,
    "the parent, later": 7.0,
    "asyncio, after a request": REFUSED,
    "asyncio was used, the other client": REFUSED,
}


def test_in_a_child_process(triton: FakeTriton) -> None:
    released = False
    triton.hold = {b"hold": lambda: released}
    environment = {**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, triton.address], env=environment, **pipes) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "waiting\n"
        triton.wait_for(lambda: [b"hold"] in triton.batches)
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "forked\n"
        released = True
        triton.wake()
        outcomes = json.loads(program.stdout.readline())
    assert outcomes.keys() == OUTCOMES.keys()
    for name, expected in OUTCOMES.items():
        found = outcomes[name]
        assert found.startswith(expected) if isinstance(expected, str) else found == expected, (name, found)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy])
@pytest.mark.parametrize("kind", [vlclip.Client, vlclip.AsyncClient])
def test_a_client_is_not_pickled_or_copied(kind: type, duplicate: Callable[[Any], Any]) -> None:
    """As for the processes of multiprocessing that are spawned."""
    with pytest.raises(TypeError, match="Create one in each process"):
        duplicate(kind("localhost:8001"))
