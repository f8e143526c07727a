"""The examples in the docstrings run; only the server's address is replaced."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vlclip
from tests.client.conftest import FakeTriton
from vlclip.client import Stream

TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def is_python(text: str) -> bool:
    try:
        compile(text, "docstring", "exec", TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return True


def text_of(documented: Any) -> str:
    return inspect.getdoc(documented) or ""


def example(documented: Any) -> str:
    """The code in a docstring: the paragraphs that are valid Python."""
    paragraphs = text_of(documented).split("\n\n")
    return "\n".join(text for text in paragraphs if is_python(text))


def calls(documented: type) -> list[str]:
    """The calls in the lines of a docstring that show the arguments of a class, without their explanations."""
    found = []
    for line in text_of(documented).splitlines():
        text = line.replace("(…, ", '("localhost:8001", ')
        if text.startswith(f"{documented.__name__}("):
            ends = (at + 1 for at, letter in enumerate(text) if letter == ")")
            found.append(next(text[:end] for end in ends if is_python(text[:end])))
    return found


@pytest.fixture
def names(triton: FakeTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the examples use. Photos are numbers, as the fake server expects."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("mug.jpg", "lamp.jpg")):
        (tmp_path / name).write_text(str(number + 1))
    added: list[Any] = []
    with vlclip.Client(triton.address) as client:
        yield {
            "Client": vlclip.Client,
            "AsyncClient": vlclip.AsyncClient,
            "client": client,
            "paths": ["mug.jpg", "lamp.jpg"],
            "texts": ["1", "2"],
            "index": SimpleNamespace(add=added.append),
            "added": added,
        }


def run(documented: Any, triton: FakeTriton, names: dict[str, Any]) -> None:
    code = example(documented)
    assert code, "no example in this docstring"
    code = code.replace("localhost:8001", triton.address)
    ran = eval(compile(code, "docstring", "exec", TOP_LEVEL_AWAIT), names)
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


ARGUMENTS = [(kind, call) for kind in (vlclip.Client, vlclip.TLS, vlclip.Timeout) for call in calls(kind)]


@pytest.mark.parametrize(("kind", "call"), ARGUMENTS, ids=[call for _, call in ARGUMENTS])
def test_arguments(kind: type, call: str) -> None:
    made = eval(call, {kind.__name__: kind})
    assert isinstance(made, kind)
    if isinstance(made, vlclip.Client):
        made.close()


def test_every_class_shows_its_arguments() -> None:
    shown = {kind.__name__: sum(one is kind for one, _ in ARGUMENTS) for kind, _ in ARGUMENTS}
    assert shown.keys() == {"Client", "TLS", "Timeout"}
    lines = [line for line in text_of(vlclip.Client).splitlines() if line.startswith("Client(")]
    assert shown["Client"] == len(lines)
