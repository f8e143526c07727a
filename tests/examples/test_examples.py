"""The programs in examples/ run against a real server, from a copy of their folder, as a user would copy them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from examples.service import MAX_BYTES, app
from serving.paths import ROOT
from serving.server.server import Server
from vlclip import Client

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("program", ["search.py", "search_async.py"])
def test_each_text_finds_its_photo(server: Server, tmp_path: Path, program: str) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "mine")
    environment = {**os.environ, "VLCLIP_ADDRESS": server.grpc_url, "PYTHONPATH": str(ROOT / "client")}
    command = [sys.executable, f"mine/{program}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(.+): (\w+\.jpg) \(0\.\d\d\)$", done.stdout, re.MULTILINE) == [
        ("a red mug", "mug.jpg"),
        ("a blue lamp", "lamp.jpg"),
        ("a backpack", "bag.jpg"),
    ]
    if program == "search.py":
        assert done.stdout.count(": grounded, box [") == 3


def test_service(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLCLIP_ADDRESS", server.grpc_url)
    photo = (EXAMPLES / "mug.jpg").read_bytes()
    with Client(server.grpc_url) as client, TestClient(app) as service:
        found = service.post("/images", params={"type": "mug"}, content=photo).json()
        expected = client.embed_images(photo, "mug")
        assert found["status"] == "grounded"
        np.testing.assert_allclose(found["box_xyxy"], expected.box_xyxy[0], atol=0.1)
        assert np.array(found["embedding"]) @ expected.embedding[0] > 0.9999
        text = service.get("/texts", params={"text": "a red mug"}).json()
        assert np.array(text["embedding"]) @ client.embed_texts("a red mug").embedding[0] > 0.9999
        broken = service.post("/images", params={"type": "mug"}, content=b"no photo")
        assert (broken.status_code, broken.json()) == (422, {"detail": "not_an_image"})
        assert service.post("/images", params={"type": "mug"}, content=b"0" * (MAX_BYTES + 1)).status_code == 413


def test_service_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLCLIP_ADDRESS", "127.0.0.1:1")
    with TestClient(app) as service:
        answer = service.get("/texts", params={"text": "a red mug"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "If no server runs there, start one with `make serve`" in answer.json()["detail"]


def test_examples_are_short() -> None:
    for path in EXAMPLES.iterdir():
        if path.suffix == ".jpg":
            assert path.stat().st_size < 60_000
        elif path.suffix == ".py":
            assert len(path.read_text().splitlines()) <= (130 if path.stem == "magento" else 60)
