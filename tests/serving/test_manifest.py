"""Reading the manifests of a model repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export.sources import MINI_THRESHOLD
from serving.errors import RepositoryError
from serving.repository.manifest import Leaf, Manifest, Plan, Settings, read_manifests, read_served, require_version
from tests import toys

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "mini" / "graphs" / "manifest.json"
PLAN = Plan("tensorrt 11.1 for SM90", "0" * 64, {"TOKENS": {"dtype": "INT64"}}, {"FLOAT": 3}, "verified")
WHOLE = toys.make_manifest(
    3, {"detect": Leaf("1" * 64, 7, {"score_difference_max": 1e-7}, "model.plan", nodes=5, opset=18, plan=PLAN)}
)


def test_the_shipped_manifest() -> None:
    manifest = Manifest.read(SHIPPED)
    assert manifest is not None
    assert manifest.models == "mini + mini"
    assert manifest.shipped
    assert manifest.request.settings.threshold == MINI_THRESHOLD
    assert manifest.leaves["detect"].file == "model.onnx"
    assert manifest.leaves["tokenize"].describe("tokenize") == "tokenize           0.07 MB  texts equal 10"


def test_what_is_written_is_read() -> None:
    assert Manifest.parse(WHOLE.to_bytes()) == WHOLE
    assert b"null" not in WHOLE.to_bytes()


def test_defaults_and_unknown_keys() -> None:
    """Other versions of the code wrote fewer keys or more."""
    content = json.loads(WHOLE.to_bytes())
    content["request"]["settings"] = {"threshold": 0, "canvas": 640}
    content["leaves"]["detect"] = {"sha256": "1" * 64, "bytes": 7, "parity": {}, "added": {}}
    manifest = Manifest.parse(json.dumps(content | {"added": []}))
    assert manifest.request.settings == Settings(threshold=0.0)
    assert manifest.leaves["detect"] == Leaf("1" * 64, 7, {}, "model.onnx")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        pytest.param(["version"], None, "version must be of type int, got None", id="no version"),
        pytest.param(["version"], "3", "version must be of type int, got '3'", id="text for a number"),
        pytest.param(["version"], True, "version must be of type int, got True", id="boolean for a number"),
        pytest.param(["request"], [], r"request must be an object, got \[\]", id="list for an object"),
        pytest.param(["request"], {}, "request is not complete: .*detector", id="empty request"),
        pytest.param(["request", "settings", "threshold"], "high", "threshold must be of type float", id="threshold"),
        pytest.param(["leaves"], {}, "the manifest has no leaves", id="no leaves"),
        pytest.param(["leaves", "detect"], None, "detect must be an object, got None", id="no leaf"),
        pytest.param(["leaves", "detect", "sha256"], 1, "sha256 must be of type str, got 1", id="no hash"),
        pytest.param(["leaves", "detect", "parity", "score"], "x", "score must be of type float, got 'x'", id="parity"),
        pytest.param(["leaves", "detect", "file"], "../x", "detect must have one of the files", id="foreign file"),
        pytest.param(["leaves", "detect", "plan"], {"layers": {}}, "plan is not complete", id="incomplete plan"),
    ],
)
def test_what_is_no_manifest(path: list[str], value: Any, words: str, tmp_path: Path) -> None:
    content = part = json.loads(WHOLE.to_bytes())
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        Manifest.parse(json.dumps(content))
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert read_served(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_object(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert read_served(tmp_path) is None


def test_versions_of_a_repository(tmp_path: Path) -> None:
    assert read_manifests(tmp_path) == []
    with pytest.raises(RepositoryError, match="holds no complete version 1, nor any other"):
        require_version(tmp_path, 1)
    for version in (10, 2):
        toys.place_version(tmp_path, version)
    assert [manifest.version for manifest in read_manifests(tmp_path)] == [2, 10]
    assert read_served(tmp_path) == require_version(tmp_path, 2)
    require_version(tmp_path, 10).file_in(tmp_path, "detect").write_bytes(b"damaged")
    (tmp_path / "manifest-11.json").write_text("{}")
    with pytest.raises(RepositoryError, match="holds no complete version 10, only 2"):
        require_version(tmp_path, 10)
