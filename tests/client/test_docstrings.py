"""The examples in the docstrings run; only the server's address is replaced."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vlclip
from tests.client.conftest import FakeTriton
from vlclip.client import Stream


@pytest.fixture
def names(triton: FakeTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the examples use. Photos are numbers, as the fake server expects."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("mug.jpg", "lamp.jpg")):
        (tmp_path / name).write_text(str(number + 1))
    added: list[Any] = []
    with vlclip.Client(triton.address) as client:
        yield {
            "AsyncClient": vlclip.AsyncClient,
            "client": client,
            "paths": ["mug.jpg", "lamp.jpg"],
            "texts": ["1", "2"],
            "index": SimpleNamespace(add=added.append),
            "added": added,
        }


def run(documented: Any, triton: FakeTriton, names: dict[str, Any]) -> None:
    """Runs the example in a docstring: all that follows its summary, except paragraphs of prose."""
    _, *paragraphs = (inspect.getdoc(documented) or "").split("\n\n")
    code = "\n".join(text for text in paragraphs if not re.match("[A-Z]", text))
    code = code.replace("localhost:8001", triton.address)
    ran = eval(compile(code, "docstring", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(ran):
        asyncio.run(ran)


def test_module(triton: FakeTriton, names: dict[str, Any]) -> None:
    run(vlclip, triton, names)
    assert names["photos"].embedding.tolist() == [[1, len("coffee mug"), 0], [2, len("desk lamp"), 0]]
    assert names["similarity"].shape == (1, 2)


def test_async_client(triton: FakeTriton, names: dict[str, Any]) -> None:
    run(vlclip.AsyncClient, triton, names)
    assert names["found"].embedding[:, 0].tolist() == [1]
    assert triton.batches[-1] == [b"1", b"2"]


def test_stream(triton: FakeTriton, names: dict[str, Any]) -> None:
    run(Stream, triton, names)
    assert np.concatenate(names["added"])[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("kind", [vlclip.Client, vlclip.TLS, vlclip.Timeout])
def test_arguments(kind: type) -> None:
    """In the lines of the docstring that begin with a call of the class, which an explanation follows."""
    lines = re.findall(rf"^{kind.__name__}(\(.*)", inspect.getdoc(kind) or "", re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        arguments, explained, _ = line.replace("(…, ", '("localhost:8001", ').partition(") ")
        assert explained
        made = eval(f"kind{arguments})", {"kind": kind})
        if isinstance(made, vlclip.Client):
            made.close()
