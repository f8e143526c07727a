"""The examples of README.md and docs/calling.md run against a real server; only the address is replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image
from pyarrow import parquet
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.paths import ROOT
from serving.server.server import Server
from vlclip import Client

PAGES = (ROOT / "README.md").read_text() + (ROOT / "docs/calling.md").read_text()
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def block(language: str, sign: str) -> str:
    """The code block in a language that contains ``sign``."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    (found,) = (code for code in blocks if sign in code)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the examples name."""
    for folder in (tmp_path, tmp_path / "examples", tmp_path / "photos"):
        shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def expected(here: Path, server: Server) -> Iterator[np.ndarray]:
    """The embedding of the mug in mug.jpg (D)."""
    with Client(server.grpc_url) as client:
        yield client.embed_images("mug.jpg", "mug").embedding[0]


def for_server(code: str, server: Server) -> str:
    return code.replace("localhost:8001", server.grpc_url).replace("localhost:8000", server.http_url)


def run_python(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "example", "exec"), names)
    return names


def run_sh(code: str, path: Path | None = None) -> str:
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join(filter(None, [str(path) if path else "", environment["PATH"]]))
    done = subprocess.run(["sh", "-eu", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def embedding(answer: str) -> np.ndarray:
    outputs = {output["name"]: output for output in json.loads(answer)["outputs"]}
    return np.array(outputs["EMBEDDING"]["data"], np.float32)


def test_python(server: Server, expected: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(for_server(block("python", "from vlclip"), server))
    assert names["found"].embedding[0] @ expected > 0.9999
    assert names["found"].status.tolist() == [0, 0]
    assert capsys.readouterr().out.count("[") > 3


def test_enriching(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run_python("from vlclip import Client\n" + for_server(block("python", "client.enrich"), server))
    assert capsys.readouterr().out.strip() == re.findall("# (.*)", block("python", "client.enrich"))[0]


def test_tritonclient(server: Server, expected: np.ndarray) -> None:
    names = run_python(for_server(block("python", "tritonclient"), server))
    assert names["answer"].as_numpy("EMBEDDING")[0] @ expected > 0.9999


@needs_curl
def test_curl_of_a_text(server: Server, here: Path) -> None:
    answer = run_sh(for_server(block("sh", "product_text"), server))
    with Client(server.grpc_url) as client:
        assert embedding(answer) @ client.embed_texts("a red mug").embedding[0] > 0.9999


@needs_curl
def test_curl_of_a_photo(server: Server, expected: np.ndarray) -> None:
    answer = run_sh(for_server(block("sh", "product_image/infer"), server))
    assert embedding(answer) @ expected > 0.9999


def test_grpcurl_json(server: Server, expected: np.ndarray, here: Path) -> None:
    stand_in = here / "bin/grpcurl"  # prints the JSON that it gets
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\ncat\n")
    stand_in.chmod(0o755)
    request = json_format.Parse(run_sh(block("sh", "grpcurl"), stand_in.parent), service_pb2.ModelInferRequest())
    with grpc.insecure_channel(server.grpc_url) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    content = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
    assert np.frombuffer(content["EMBEDDING"], np.float32) @ expected > 0.9999


@pytest.mark.parametrize("sign", ["vlclip ground examples/mug.jpg", "vlclip health", "vlclip enrich --table"])
def test_command_line(server: Server, here: Path, sign: str) -> None:
    commands = here / "bin/vlclip"
    commands.parent.mkdir()
    commands.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "client"} exec {sys.executable} -m vlclip "$@" 2>> stderr\n')
    commands.chmod(0o755)
    (here / "titles.txt").write_text("a red mug\na desk lamp\n")
    shown = run_sh(f"export VLCLIP_ADDRESS={server.grpc_url}\n" + block("sh", sign), commands.parent)
    for drawing in re.findall(r"--draw (\S+)", block("sh", sign)):
        Image.open(here / drawing / "mug.jpg" if drawing.endswith("/") else here / drawing).verify()
    for out in re.findall(r"--out (\S+)", block("sh", sign)):
        reader = {".npz": np.load, ".parquet": parquet.read_table, ".jsonl": Path.read_bytes}[Path(out).suffix]
        assert reader(here / out)
    if "head" in block("sh", sign):
        assert shown.startswith("id,type,path,title,description\n")
    if "products.parquet" in block("sh", sign):
        assert parquet.read_table("products.parquet")["status"].to_pylist() == ["grounded"] * 3
