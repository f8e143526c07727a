"""Placing, packing and installing artefacts; none of it needs torch."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from export.__main__ import main
from export.errors import SourceError
from export.install import ARCHIVE, install, pack
from serving.errors import RepositoryError
from serving.repository import manifest as repository
from serving.repository.folders import require_artefacts
from serving.repository.manifest import ARTEFACTS, put_in_place, read_manifest, read_served, staging, write_manifest

ROOT = Path(__file__).resolve().parents[2]


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def shipped(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("shipped")
    pack(exported, to)
    return to


def test_pack_stores_shared_weights_once_and_the_same_bytes_each_time(exported, shipped, tmp_path):
    raw = sum(entry["bytes"] for entry in read_manifest(exported / "manifest-1.json")["leaves"].values())
    shared = (exported / "encode_text" / "1" / "model.onnx").stat().st_size
    assert (shipped / ARCHIVE).stat().st_size < raw - 0.8 * shared
    pack(exported, tmp_path)
    assert snapshot(tmp_path) == snapshot(shipped)


def test_pack_refuses_what_is_not_complete(tmp_path):
    with pytest.raises(SourceError, match="no complete export"):
        pack(tmp_path, tmp_path / "to")


def test_install_gives_the_same_files_and_skips_the_second_time(exported, shipped, tmp_path):
    out = tmp_path / "model_repository"
    assert "now holds" in install(out, shipped, if_missing=True)
    for leaf, name in ARTEFACTS.items():
        assert (out / leaf / "1" / name).read_bytes() == (exported / leaf / "1" / name).read_bytes()
    before = {path: (out / path).stat().st_mtime_ns for path in snapshot(out)}
    assert "up to date" in install(out, shipped, if_missing=True)
    assert before == {path: (out / path).stat().st_mtime_ns for path in snapshot(out)}


def test_install_mends_a_missing_file(shipped, tmp_path):
    out = tmp_path / "model_repository"
    install(out, shipped)
    whole = snapshot(out)
    (out / "detect" / "1" / "model.onnx").unlink()
    assert "now holds" in install(out, shipped, if_missing=True)
    assert snapshot(out) == whole


def test_install_replaces_what_an_older_archive_gave_but_no_export_of_ones_own(shipped, tmp_path):
    out = tmp_path / "model_repository"
    install(out, shipped)
    manifest = read_manifest(out / "manifest-1.json")
    (out / "manifest-1.json").write_text(json.dumps({**manifest, "libraries": {}}))
    assert "now holds" in install(out, shipped, if_missing=True)

    (out / "manifest-1.json").write_text(json.dumps({**manifest, "shipped": False}))
    before = snapshot(out)
    assert "left as it is" in install(out, shipped, if_missing=True)
    assert "left as it is" in install(out, tmp_path / "nothing shipped", if_missing=True)
    assert snapshot(out) == before
    assert "now holds" in install(out, shipped)


def test_install_refuses_a_damaged_archive(shipped, tmp_path):
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


def test_install_needs_only_the_standard_library(shipped, tmp_path):
    """As in the demo, where neither torch nor onnx is installed."""
    command = [sys.executable, "-S", "-m", "export.install", "--out", str(tmp_path), "--shipped", str(shipped)]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "now holds" in done.stdout


def test_a_new_version_appears_as_a_whole_beside_the_old_and_takes_the_code_along(tmp_path):
    (tmp_path / "tokenize" / "1").mkdir(parents=True)
    (tmp_path / "tokenize" / "1" / "model.py").write_text("# the leaf")
    (tmp_path / "elsewhere.py").write_text("# shared")
    (tmp_path / "tokenize" / "1" / "metrics.py").symlink_to("../../elsewhere.py")
    with staging(tmp_path) as staged:
        (staged / "tokenize").mkdir()
        (staged / "tokenize" / "tokenizer.json").write_text("{}")
        put_in_place(staged, tmp_path, 2, {"tokenize": {}}, b"{}")
    assert sorted(snapshot(tmp_path)) == [
        "elsewhere.py",
        "manifest-2.json",
        "manifest.json",
        "tokenize/1/metrics.py",
        "tokenize/1/model.py",
        "tokenize/2/metrics.py",
        "tokenize/2/model.py",
        "tokenize/2/tokenizer.json",
    ]


def test_a_staged_version_is_served_once_it_is_told(tmp_path, capsys):
    place(tmp_path, 1)
    served = snapshot(tmp_path)
    place(tmp_path, 2, serve=False)
    assert snapshot(tmp_path).items() > served.items()
    assert read_served(tmp_path)["version"] == 1
    assert main(["use", "--version", "2", "--out", str(tmp_path)]) == 0
    assert read_served(tmp_path)["version"] == 2
    place(tmp_path, 1, serve=False)
    assert main(["show", "--out", str(tmp_path)]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "version" in line][-2:] == [
        "version 1",
        "version 2 (served)",
    ]


def test_a_staging_that_breaks_off_leaves_what_is_served(tmp_path, monkeypatch, capsys):
    place(tmp_path, 1)
    served = snapshot(tmp_path)

    def refuse(new: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(repository, "move", refuse)
    with pytest.raises(RepositoryError, match=r"version 2 of .* is incomplete now, export again"):
        place(tmp_path, 2, serve=False)
    assert snapshot(tmp_path) == served
    assert main(["use", "--version", "2", "--out", str(tmp_path)]) == 1
    assert "holds no complete version 2, only 1" in capsys.readouterr().err


def test_a_version_that_is_placed_again_takes_the_code_as_it_is_now(tmp_path):
    place(tmp_path, 1)
    (tmp_path / "tokenize" / "1" / "model.py").write_text("# the leaf")
    place(tmp_path, 2)
    (tmp_path / "tokenize" / "1" / "model.py").write_text("# the leaf, mended")
    place(tmp_path, 2)
    assert (tmp_path / "tokenize" / "2" / "model.py").read_text() == "# the leaf, mended"


def place(out: Path, version: int, serve: bool = True) -> None:
    """One leaf, as an export would."""
    content = b"{}"
    leaves = {"tokenize": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "parity": {}}}
    manifest = {
        "version": version,
        "request": {"settings": {"threshold": 0.2}},
        "detector_side": 320,
        "leaves": leaves,
    }
    with staging(out) as staged:
        (staged / "tokenize").mkdir()
        (staged / "tokenize" / "tokenizer.json").write_bytes(content)
        put_in_place(staged, out, version, leaves, write_manifest(manifest), serve)


def test_staging_cleans_up_after_an_interrupted_run(tmp_path):
    (tmp_path / ".export-left").mkdir()
    with staging(tmp_path) as staged:
        (staged / "half").write_text("")
        assert list(tmp_path.iterdir()) == [staged]
    assert not list(tmp_path.iterdir())


def test_a_bare_folder_gets_what_a_server_needs_and_keeps_what_it_has(shipped, tmp_path):
    out = tmp_path / "model_repository"
    (out / "decode").mkdir(parents=True)
    (out / "decode" / "config.pbtxt").write_text("# of one's own")
    install(out, shipped)
    require_artefacts([out])
    assert (out / "decode" / "config.pbtxt").read_text() == "# of one's own"
    assert (out / "crop" / "config.pbtxt").read_bytes() == (ROOT / "model_repository/crop/config.pbtxt").read_bytes()


def test_install_leaves_another_version_served(shipped, tmp_path):
    out = tmp_path / "model_repository"
    install(out, shipped)
    manifest = {**read_manifest(out / "manifest-1.json"), "version": 2, "shipped": False}
    with staging(out) as staged:
        for leaf, name in ARTEFACTS.items():
            (staged / leaf).mkdir()
            (staged / leaf / name).write_bytes((out / leaf / "1" / name).read_bytes())
        put_in_place(staged, out, 2, manifest["leaves"], json.dumps(manifest).encode())
    assert "left as it is" in install(out, shipped, if_missing=True)
    assert read_served(out) == manifest
    assert "now serves version 1" in use(out)
    assert "up to date" in install(out, shipped, if_missing=True)


def use(out: Path) -> str:
    told = io.StringIO()
    with redirect_stdout(told):
        assert main(["use", "--version", "1", "--out", str(out)]) == 0
    return told.getvalue()
