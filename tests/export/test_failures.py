"""Whatever goes wrong in an export: one line that says so, and a model repository without a bit changed."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.__main__ import main
from export.install import install
from export.place import STAGING, staging
from serving.errors import RepositoryError, SetupError
from serving.repository.folders import require_artefacts
from tests.export.test_place import snapshot

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("installed") / "model_repository"
    install(out)
    return out


@pytest.fixture
def repository(installed: Path, tmp_path: Path) -> Path:
    """One that serves the mini models."""
    return shutil.copytree(installed, tmp_path / "model_repository", symlinks=True)


@pytest.fixture
def models(encoder_folder: Path, detector_file: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of random weights, which a test may damage."""
    return {
        "encoder": shutil.copytree(encoder_folder, tmp_path / "encoder"),
        "detector": Path(shutil.copy(detector_file, tmp_path / "detector.pt")),
    }


def arguments_for(models: dict[str, Path], repository: Path) -> list[str]:
    encoder = str(models["encoder"])
    options = ["--detector", str(models["detector"]), "--encoder", encoder, "--prompt-encoder", encoder]
    return [*options, "--out", str(repository)]


def fail(arguments: list[str], capsys: Capture, code: int = 1) -> str:
    """The error message of an export that must fail."""
    capsys.readouterr()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert error.count("\n") == 1
    return error


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def deepen_text_tower(folder: Path) -> None:
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"]["layers"] += 1
    file.write_text(json.dumps(config))


def put_plain_yolo(file: Path) -> None:
    from ultralytics.nn import tasks

    untyped: Any = tasks
    torch.save({"model": untyped.DetectionModel("yolov8n.yaml", verbose=False)}, file)


def put_yolo_world_v1(file: Path) -> None:
    from ultralytics.nn import tasks

    untyped: Any = tasks
    torch.save({"model": untyped.WorldModel("yolov8n-world.yaml", verbose=False)}, file)


def put_python_objects(file: Path) -> None:
    file.unlink()
    torch.save({"state_dict": {"logit_scale": torch.ones(())}, "options": Path("runs")}, file.with_suffix(".pt"))


DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "half a detector": ("detector.pt", halve, "the detector cannot be loaded from"),
    "detector of noise": (
        "detector.pt",
        lambda file: file.write_bytes(b"\x00" * 5000),
        "the detector cannot be loaded",
    ),
    "empty detector": ("detector.pt", lambda file: file.write_bytes(b""), "the detector cannot be loaded from"),
    "another detector": ("detector.pt", put_plain_yolo, "a DetectionModel, not a YOLO-World"),
    "YOLO-World v1": ("detector.pt", put_yolo_world_v1, "a YOLO-World v1, which cannot be exported"),
    "half an encoder": ("encoder/open_clip_model.safetensors", halve, "cannot be read: "),
    "encoder of objects": ("encoder/open_clip_model.safetensors", put_python_objects, "save the weights alone"),
    "another encoder": ("encoder", deepen_text_tower, "holds weights of another architecture than encoder"),
    "configuration": ("encoder/open_clip_config.json", lambda file: file.write_text("{"), "export: "),
    "no vocabulary": ("encoder/bpe.txt.gz", Path.unlink, "no such file: "),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_weights_give_one_line_and_change_nothing(
    repository: Path,
    models: dict[str, Path],
    capsys: Capture,
    name: str,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    before = snapshot(repository)
    damage(models["encoder"].parent / name)
    assert message in fail(arguments_for(models, repository), capsys)
    assert snapshot(repository) == before
    assert not list(repository.glob(f"{STAGING}*"))


def test_damaged_and_foreign_checkpoints(tmp_path: Path, models: dict[str, Path], capsys: Capture) -> None:
    arguments = [*arguments_for(models, tmp_path / "out"), "--encoder", "ViT-S-32-alt", "--checkpoint"]
    foreign = str(models["encoder"] / "open_clip_model.safetensors")
    assert "holds weights of another architecture than ViT-S-32-alt" in fail([*arguments, foreign], capsys)
    damaged = tmp_path / "tuned.pt"
    damaged.write_bytes(b"\x00" * 4096)
    assert str(damaged) in fail([*arguments, str(damaged)], capsys)


def run_on_a_small_disk(module: str, *arguments: str) -> str:
    """What stderr says. No file grows beyond 4 kB: the kernel says so where it would say that the disk is full.

    In a process of its own, since the limit is for every file: a log that this one writes to among them.
    """
    command = [sys.executable, "-m", module, *arguments]
    limit = (4_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ended = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_full_disk(repository: Path, models: dict[str, Path]) -> None:
    before = snapshot(repository)
    assert "the repository did not change" in run_on_a_small_disk("export", *arguments_for(models, repository))
    assert snapshot(repository) == before
    assert not list(repository.glob(f"{STAGING}*"))


def test_a_disk_that_is_full_when_the_mini_models_are_installed(tmp_path: Path) -> None:
    assert "File too large" in run_on_a_small_disk("export.install", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists() or not snapshot(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_an_interrupted_export(
    repository: Path, models: dict[str, Path], capsys: Capture, number: signal.Signals
) -> None:
    before = snapshot(repository)
    command = [sys.executable, "-m", "export", *arguments_for(models, repository)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        assert export.stdout
        assert export.stderr
        for line in export.stdout:
            if line.lstrip().startswith("running"):
                break
        assert list(repository.glob(f"{STAGING}*/tokenize/tokenizer.json"))
        assert "another export is writing" in fail(["use", "--version", "1", "--out", str(repository)], capsys)
        export.send_signal(number)
        export.stdout.read()
        error = export.stderr.read()
    if number == signal.SIGINT:
        assert export.returncode == 130
        assert error == "export: interrupted; the repository did not change\n"
    else:
        assert export.returncode == -signal.SIGKILL
        assert list(repository.glob(f"{STAGING}*"))
    assert main(["use", "--version", "1", "--out", str(repository)]) == 0
    assert snapshot(repository) == before
    assert not list(repository.glob(f"{STAGING}*"))


def test_one_export_at_a_time(repository: Path, models: dict[str, Path], capsys: Capture) -> None:
    with staging(repository) as staged:
        (staged / "half").write_text("")
        assert "another export is writing" in fail(arguments_for(models, repository), capsys)
        assert (staged / "half").exists()


def test_no_complete_version(repository: Path, capsys: Capture) -> None:
    (repository / "detect" / "1" / "model.onnx").unlink()
    assert "holds no complete version 1, nor any" in fail(["use", "--version", "1", "--out", str(repository)], capsys)


def test_what_cannot_be_staged(repository: Path, models: dict[str, Path], capsys: Capture) -> None:
    before = snapshot(repository)
    arguments = [*arguments_for(models, repository), "--version", "1", "--stage"]
    assert "serves version 1: choose another with --version" in fail(arguments, capsys)
    assert snapshot(repository) == before
    nowhere = repository.parent / "nowhere"
    assert "serves no version yet: export without --stage" in fail([*arguments, "--out", str(nowhere)], capsys)
    assert not nowhere.exists()


def test_no_export_is_overwritten_unasked(repository: Path, models: dict[str, Path], capsys: Capture) -> None:
    before = snapshot(repository)
    message = fail([*arguments_for(models, repository), "--version", "1"], capsys)
    assert "already holds version 1: mini + mini" in message
    assert "which is served: leave out --version" in message
    assert "choose one such as 2, or add --force to overwrite it (make: FORCE=1)" in message
    assert snapshot(repository) == before


def test_an_interrupted_replacement_is_reported_and_not_served(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example because a file belongs to another user."""
    from export import place as module

    real = module.move

    def move(new: Path, target: Path) -> None:
        if target.parent.name == "crop":
            raise PermissionError(13, "Permission denied", str(target))
        real(new, target)

    monkeypatch.setattr(module, "move", move)
    with pytest.raises(RepositoryError, match="incomplete now, export again"):
        install(repository)
    monkeypatch.undo()
    with pytest.raises(SetupError, match="an export was interrupted"):
        require_artefacts([repository])
    install(repository)
    require_artefacts([repository])
