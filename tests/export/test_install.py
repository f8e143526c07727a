"""Packing and installing the mini models' graphs; installing needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from export.__main__ import main
from export.errors import SourceError
from export.install import ARCHIVE, install, pack
from export.place import put_in_place, staging
from serving.repository.folders import require_artefacts
from serving.repository.manifest import ARTEFACTS, Manifest, read_served, require_version
from tests.export.test_place import snapshot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shipped(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("shipped")
    pack(exported, to)
    return to


@pytest.fixture
def out(shipped: Path, tmp_path: Path) -> Path:
    """A repository in which the shipped graphs are installed."""
    folder = tmp_path / "model_repository"
    install(folder, shipped)
    return folder


def rewrite(out: Path, change: Callable[[Manifest], Manifest]) -> None:
    (out / "manifest-1.json").write_bytes(change(require_version(out, 1)).to_bytes())


def test_pack_stores_shared_weights_once_and_the_same_bytes_each_time(
    exported: Path, shipped: Path, tmp_path: Path
) -> None:
    raw = sum(leaf.bytes for leaf in require_version(exported, 1).leaves.values())
    shared = (exported / "encode_text" / "1" / "model.onnx").stat().st_size
    assert (shipped / ARCHIVE).stat().st_size < raw - 0.8 * shared
    pack(exported, tmp_path)
    assert snapshot(tmp_path) == snapshot(shipped)


def test_pack_refuses_an_incomplete_export(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no complete export"):
        pack(tmp_path, tmp_path / "to")


def test_install_gives_the_same_files_once_and_restores_a_missing_one(
    exported: Path, shipped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model_repository"
    assert "now holds" in install(out, shipped, if_missing=True)
    for leaf, name in ARTEFACTS.items():
        assert (out / leaf / "1" / name).read_bytes() == (exported / leaf / "1" / name).read_bytes()
    before = {path: (out / path).stat().st_mtime_ns for path in snapshot(out)}
    assert "up to date" in install(out, shipped, if_missing=True)
    assert before == {path: (out / path).stat().st_mtime_ns for path in snapshot(out)}
    complete = snapshot(out)
    (out / "detect" / "1" / "model.onnx").unlink()
    assert "now holds" in install(out, shipped, if_missing=True)
    assert snapshot(out) == complete


def test_install_replaces_the_graphs_of_an_older_archive_but_not_the_users_own_export(
    out: Path, shipped: Path, tmp_path: Path
) -> None:
    rewrite(out, lambda manifest: replace(manifest, libraries={}))
    assert "now holds" in install(out, shipped, if_missing=True)

    rewrite(out, lambda manifest: replace(manifest, shipped=False))
    before = snapshot(out)
    assert "left as it is" in install(out, shipped, if_missing=True)
    assert "left as it is" in install(out, tmp_path / "nothing shipped", if_missing=True)
    with pytest.raises(SourceError, match=r"holds your export, version 1: .* which the mini models would overwrite"):
        install(out, shipped)
    assert snapshot(out) == before
    assert "now holds" in install(out, shipped, force=True)


def test_an_export_of_the_user_that_is_damaged_is_not_replaced_by_the_mini_models(out: Path, shipped: Path) -> None:
    rewrite(out, lambda manifest: replace(manifest, shipped=False))
    (out / "detect" / "1" / "model.onnx").unlink()
    before = snapshot(out)
    with pytest.raises(SourceError, match=r"serves your export, version 1: .* of which a file is missing or damaged"):
        install(out, shipped, if_missing=True)
    assert snapshot(out) == before


def test_install_refuses_a_damaged_archive(shipped: Path, tmp_path: Path) -> None:
    damaged, out = tmp_path / "shipped", tmp_path / "model_repository"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes((shipped / "manifest.json").read_bytes())
    content = (shipped / ARCHIVE).read_bytes()
    for broken in (b"", content[: len(content) // 2], content[:1000] + bytes(1000) + content[2000:]):
        (damaged / ARCHIVE).write_bytes(broken)
        with pytest.raises(SourceError):
            install(out, damaged)
        assert not snapshot(out)
    with pytest.raises(SourceError, match="no shipped graphs"):
        install(out, tmp_path / "nothing")


def test_install_needs_only_the_standard_library(shipped: Path, tmp_path: Path) -> None:
    """As in the demo, where neither torch nor onnx is installed."""
    command = [sys.executable, "-S", "-m", "export.install", "--out", str(tmp_path), "--shipped", str(shipped)]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "now holds" in done.stdout


def test_an_empty_folder_gets_everything_a_server_needs_and_keeps_its_own_configs(
    shipped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model_repository"
    (out / "decode").mkdir(parents=True)
    (out / "decode" / "config.pbtxt").write_text("# the user's own")
    install(out, shipped)
    require_artefacts([out])
    assert (out / "decode" / "config.pbtxt").read_text() == "# the user's own"
    assert (out / "crop" / "config.pbtxt").read_bytes() == (ROOT / "model_repository/crop/config.pbtxt").read_bytes()


def test_install_keeps_another_version_served(out: Path, shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = require_version(out, 1)
    second = replace(first, version=2, shipped=False)
    with staging(out) as staged:
        for leaf in second.leaves:
            (staged / leaf).mkdir()
            (staged / leaf / second.leaves[leaf].file).write_bytes(first.file_in(out, leaf).read_bytes())
        put_in_place(staged, out, second)
    assert "left as it is" in install(out, shipped, if_missing=True)
    assert read_served(out) == second
    assert main(["use", "--version", "1", "--out", str(out)]) == 0
    assert "now serves version 1" in capsys.readouterr().out
    assert "up to date" in install(out, shipped, if_missing=True)
