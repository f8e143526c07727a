"""Putting artefacts into a model repository; none of it needs torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from export import place as module
from export.__main__ import main
from export.place import choose_version, next_steps, put_in_place, require_free, staging
from serving.errors import RepositoryError
from serving.paths import REPOSITORIES
from serving.repository.manifest import Leaf, read_served
from tests import toys

MODEL = (REPOSITORIES[0] / "tokenize" / "1" / "model.py").read_bytes()


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def place(out: Path, version: int, serve: bool = True, leaves: Mapping[str, str] | None = None) -> None:
    """Place a file for each leaf, as an export does. By default that is one tokenizer."""
    content = b"{}"
    files = leaves or {"tokenize": "tokenizer.json"}
    entries = {leaf: Leaf(hashlib.sha256(content).hexdigest(), len(content), {}, file) for leaf, file in files.items()}
    with staging(out) as staged:
        for leaf, file in files.items():
            (staged / leaf).mkdir()
            (staged / leaf / file).write_bytes(content)
        put_in_place(staged, out, toys.make_manifest(version, entries), serve)


def served_version(repository: Path) -> int | None:
    manifest = read_served(repository)
    return manifest.version if manifest else None


def test_a_new_version_appears_next_to_the_old_one_with_the_current_code_of_its_model(tmp_path: Path) -> None:
    place(tmp_path, 1)
    place(tmp_path, 2)
    assert sorted(snapshot(tmp_path)) == [
        "manifest-1.json",
        "manifest-2.json",
        "manifest.json",
        *(f"tokenize/{version}/{file}" for version in (1, 2) for file in ("model.py", "tokenizer.json")),
    ]
    code = tmp_path / "tokenize" / "2" / "model.py"
    assert code.read_bytes() == MODEL
    code.write_text("# old code")
    place(tmp_path, 2)
    assert code.read_bytes() == MODEL


def test_a_staged_version_is_served_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path, 1)
    served = snapshot(tmp_path)
    place(tmp_path, 2, serve=False)
    assert snapshot(tmp_path).items() > served.items()
    assert served_version(tmp_path) == 1
    assert main(["use", "--version", "2", "--out", str(tmp_path)]) == 0
    assert served_version(tmp_path) == 2
    place(tmp_path, 1, serve=False)
    assert main(["show", "--out", str(tmp_path)]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "version" in line][-2:] == [
        "version 1",
        "version 2 (served)",
    ]


def test_an_interrupted_staging_keeps_the_served_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path, 1)
    served = snapshot(tmp_path)

    def refuse(new: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(module, "move", refuse)
    with pytest.raises(RepositoryError, match=r"version 2 of .* is incomplete now, export again"):
        place(tmp_path, 2, serve=False)
    assert snapshot(tmp_path) == served
    assert main(["use", "--version", "2", "--out", str(tmp_path)]) == 1
    assert "holds no complete version 2, only 1" in capsys.readouterr().err


def test_a_new_export_gets_the_next_free_number_and_a_known_one_its_own(tmp_path: Path) -> None:
    known = toys.make_manifest(1, {}).request
    new = replace(known, code="new")
    assert choose_version(tmp_path, new) == 1
    place(tmp_path, 1)
    place(tmp_path, 5, serve=False)
    assert [choose_version(tmp_path, request) for request in (new, known)] == [6, 1]
    (tmp_path / "tokenize" / "1" / "tokenizer.json").unlink()
    assert choose_version(tmp_path, known) == 5
    require_free(tmp_path, 1)  # to export it again repairs it
    require_free(tmp_path, 2)
    with pytest.raises(RepositoryError, match=r"already holds version 5: toy \+ toy, fp32: leave out --version"):
        require_free(tmp_path, 5)


def test_a_staged_version_says_what_comes_next(tmp_path: Path) -> None:
    place(tmp_path, 1)
    place(tmp_path, 2, serve=False)
    first, *commands = next_steps(tmp_path, 2)
    assert first == f"{tmp_path} still serves version 1. Next:"
    use = next(line for line in commands if "python -m export use" in line)
    assert main(use.split()[3:]) == 0
    assert served_version(tmp_path) == 2


def test_staging_cleans_up_after_an_interrupted_run(tmp_path: Path) -> None:
    (tmp_path / ".export-left").mkdir()
    with staging(tmp_path) as staged:
        (staged / "half").write_text("")
        assert list(tmp_path.iterdir()) == [staged]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("old", "new"), [("model.plan", "model.onnx"), ("model.onnx", "model.plan")])
def test_a_graph_replaces_one_of_the_other_format_and_keeps_other_files(old: str, new: str, tmp_path: Path) -> None:
    place(tmp_path, 1, leaves={"detect": old})
    (tmp_path / "detect" / "1" / "notes.txt").write_text("kept")
    place(tmp_path, 1, leaves={"detect": new})
    assert {file.name for file in (tmp_path / "detect" / "1").iterdir()} == {new, "notes.txt"}
