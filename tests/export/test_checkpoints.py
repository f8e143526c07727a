"""The weights of an encoder that are loaded are those that were asked for, however they were saved."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.__main__ import main
from export.encoder_sources import resolve_encoder
from export.errors import SourceError, UnsupportedModel, UsageError
from export.load_encoder import load_encoder
from export.quiet import quiet_logging, warnings_shown

Weights = dict[str, Tensor]


@pytest.fixture
def folder(encoder_folder: Path, tmp_path: Path) -> Path:
    """A copy of random weights, which a test may change."""
    return shutil.copytree(encoder_folder, tmp_path / "encoder")


def tuned(folder: Path) -> Weights:
    """Weights of the same architecture with another scale."""
    return {**load_file(folder / "open_clip_model.safetensors"), "logit_scale": torch.tensor(1.25)}


def is_tuned(folder: Path, checkpoint: Path | None = None) -> bool:
    encoder = load_encoder(resolve_encoder(str(folder), checkpoint=str(checkpoint) if checkpoint else None))
    return bool(encoder.model.logit_scale == 1.25)


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


SAVED: dict[str, Callable[[Weights], Any]] = {
    "the weights alone": lambda weights: weights,
    "open_clip's training": lambda weights: {"epoch": 3, "state_dict": prefixed("module.")(weights), "optimizer": {}},
    "model_state_dict": lambda weights: {"epoch": 3, "model_state_dict": weights},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {}}},
    "compiled": prefixed("_orig_mod."),
    "compiled in parts": lambda weights: {
        name.replace("visual.", "visual._orig_mod."): w for name, w in weights.items()
    },
    "distributed and compiled": lambda weights: {"state_dict": prefixed("module._orig_mod.")(weights)},
    "Lightning": lambda weights: {"state_dict": prefixed("model.")(weights), "pytorch-lightning_version": "2.0"},
    "averaged": lambda weights: {**prefixed("module.")(weights), "n_averaged": torch.tensor(7)},
}


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_weights_are_found_in_what_was_saved(folder: Path, save: Callable[[Weights], Any]) -> None:
    file = folder.parent / "epoch_3.pt"
    torch.save(save(tuned(folder)), file)
    assert is_tuned(folder, file)


@pytest.mark.parametrize("name", ["epoch_3.pt", "model.pth", "pytorch_model.bin", "epoch_3.safetensors"])
def test_a_folder_has_one_file_of_weights_of_any_name(folder: Path, name: str) -> None:
    weights = tuned(folder)
    (folder / "open_clip_model.safetensors").unlink()
    if name.endswith(".safetensors"):
        save_file(prefixed("module.")(weights), folder / name)
    else:
        torch.save(prefixed("module.")(weights), folder / name)
    assert is_tuned(folder)
    files = resolve_encoder(str(folder)).describe()["files"]
    assert isinstance(files, dict)
    assert set(files) == {"bpe.txt.gz", "open_clip_config.json", name}


def test_of_several_files_of_weights_one_is_chosen(folder: Path) -> None:
    newer = folder / "epoch_3.pt"
    torch.save(tuned(folder), newer)
    with pytest.raises(
        UsageError, match=r"several files of weights: epoch_3\.pt, open_clip_model\.safetensors\. Choose"
    ):
        resolve_encoder(str(folder))
    assert is_tuned(folder, newer)
    assert not is_tuned(folder, folder / "open_clip_model.safetensors")


REFUSED: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "no weights": (lambda _: {"epoch": 3, "net": {}}, "holds no weights under state_dict, .*: it has epoch, net"),
    "a list": (lambda _: [1, 2], "holds a list: expected weights by name"),
    "a module": (lambda _: torch.nn.Linear(2, 2), "save the weights alone"),
    "one weight less": (
        lambda weights: {name: w for name, w in weights.items() if name != "text_projection"},
        "another architecture than encoder: Missing key",
    ),
    "longer texts": (
        lambda weights: {**weights, "positional_embedding": torch.zeros(77, 64)},
        r"another size of images or texts than encoder: positional_embedding is \(77, 64\), expected \(16, 64\)",
    ),
    "larger images": (
        lambda weights: {**weights, "visual.trunk.pos_embed": torch.zeros(1, 197, 64)},
        r"another size of images or texts than encoder: visual\.trunk\.pos_embed is",
    ),
}


@pytest.mark.parametrize(("save", "message"), REFUSED.values(), ids=REFUSED)
def test_files_that_hold_other_weights(folder: Path, save: Callable[[Weights], Any], message: str) -> None:
    file = folder.parent / "epoch_3.pt"
    torch.save(save(tuned(folder)), file)
    with pytest.raises(SourceError, match=message) as caught:
        is_tuned(folder, file)
    assert str(caught.value).startswith(f"{file} ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive(folder: Path) -> None:
    file = folder.parent / "archive.pt"
    script: Any = torch.jit.script(torch.nn.Linear(2, 2))
    script.save(str(file))
    with pytest.raises(SourceError, match=r"is a TorchScript archive: save its weights"):
        is_tuned(folder, file)


PREPROCESSING: dict[str, tuple[dict[str, Any], str | None]] = {
    "one mean for all channels": ({"mean": 0.5, "std": 0.25}, None),
    "colours around the image": ({"resize_mode": "longest", "fill_color": [250, 128, 10]}, None),
    "one colour around the image": ({"resize_mode": "longest", "fill_color": [128] * 3}, None),
    "interpolation of the training": ({"interpolation": "random"}, None),
    "two means": ({"mean": [0.5, 0.5]}, r"mean \[0\.5, 0\.5\]: expected a number, or three for red, green and blue"),
    "a mean of words": ({"mean": "imagenet"}, "mean 'imagenet'"),
    "a spread of zero": ({"std": [0.5, 0.5, 0]}, r"std \[0\.5, 0\.5, 0\]: expected a positive number"),
    "nearest": ({"interpolation": "nearest"}, "interpolation 'nearest': expected bicubic or bilinear"),
    "lanczos": ({"interpolation": "lanczos"}, "interpolation 'lanczos': expected bicubic or bilinear"),
    "BGR": ({"mode": "BGR"}, "mode 'BGR': expected RGB"),
    "stretch": ({"resize_mode": "stretch"}, "resize_mode 'stretch': expected shortest, longest, squash"),
    "a colour beyond white": ({"fill_color": 300}, "fill_color 300: expected a level from 0 to 255"),
    "a colour with alpha": ({"fill_color": [1, 2, 3, 4]}, "fill_color"),
}


@pytest.mark.parametrize(("fields", "message"), PREPROCESSING.values(), ids=PREPROCESSING)
def test_preprocessing_is_open_clips_or_refused(folder: Path, fields: dict[str, Any], message: str | None) -> None:
    from export.examples import picture
    from export.images import Preprocess

    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["preprocess_cfg"] |= fields
    file.write_text(json.dumps(config))
    if message:
        with pytest.raises(UnsupportedModel, match="the preprocessing of encoder has " + message):
            load_encoder(resolve_encoder(str(folder)))
        return
    encoder = load_encoder(resolve_encoder(str(folder)))
    image = picture(1, 90, 61)
    canvas = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    canvas[0, : image.height, : image.width] = torch.from_numpy(np.array(image))
    found = Preprocess(encoder.preprocessing)(canvas, torch.tensor([[0.0, 0.0, 90.0, 61.0]]))[0]
    assert (found - encoder.transform(image)).abs().mean() < 0.01
    corner = found[:, 0, 0] - encoder.transform(image)[:, 0, 0]  # of the frame, where there is one
    assert corner.abs().max() < 0.1


def warn() -> None:
    warnings.warn("QuickGELU mismatch", stacklevel=1)
    warnings.warn("will be removed", DeprecationWarning, stacklevel=1)
    logging.warning("Multiple\n checkpoints")
    logging.info("Loaded weights")


def test_warnings_of_libraries_are_shown() -> None:
    with pytest.warns(UserWarning, match=r"QuickGELU mismatch|Multiple checkpoints") as seen, warnings_shown():
        warn()
    assert [str(warning.message) for warning in seen] == ["QuickGELU mismatch", "Multiple checkpoints"]


@warnings_shown()
def warn_and_fail() -> None:
    warn()
    raise OSError("no space")


def test_an_error_replaces_the_warnings_before_it() -> None:
    with warnings.catch_warnings(record=True) as seen, pytest.raises(OSError, match="no space"):
        warn_and_fail()
    assert not seen


@pytest.mark.filterwarnings("always")
def test_a_warning_about_weights_reaches_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = open_clip.create_model

    def create_model(name: str, **options: Any) -> Any:
        warnings.warn(f"QuickGELU mismatch in {name}", stacklevel=1)
        with quiet_logging():
            return made(f"local-dir:{folder}", load_weights=False, force_preprocess_cfg={"mode": "BGR"})

    monkeypatch.setattr(open_clip, "create_model", create_model)
    arguments = ["--encoder=ViT-B-32", "--pretrained=openai", "--out", str(folder.parent / "out")]
    assert main(arguments) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "export: warning: QuickGELU mismatch in ViT-B-32-quickgelu"
    assert "has mode 'BGR'" in error


@pytest.mark.parametrize(
    ("for_prompts", "advice"),
    [(False, "--pretrained openai --checkpoint FILE$"), (True, "open_clip_config.json, .*--prompt-encoder FOLDER$")],
)
def test_weights_that_cannot_be_downloaded_can_be_given(
    for_prompts: bool, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_model(*args: Any, **options: Any) -> None:
        raise RuntimeError("Failed to download file")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(SourceError, match=f"openai of ViT-B-32-quickgelu cannot be downloaded.*{advice}"):
        load_encoder(resolve_encoder("ViT-B-32", pretrained="openai"), for_prompts=for_prompts)
