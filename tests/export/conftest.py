"""Random models of the mini models' form, so that these tests depend on no training and no download."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from export.tensorrt import Compiler

SIZE = 64
CONTEXT = 16
WORDS = ["photo", "red", "blue", "green", "shirt", "mug", "bear", "lamp", "with", "striped", "cotton", "wool"]


def write_bpe(path: Path) -> None:
    """A vocabulary in open_clip's format: a header line, then one merge a line, most frequent first."""
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = [parts[0] + parts[1]]
    lines = ["#version: 0.2", *dict.fromkeys(merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def write_model(
    folder: Path, model: dict[str, Any], preprocessing: dict[str, Any], tokenizer: str | None = None
) -> Path:
    """An open_clip ``local-dir:`` folder with random FP16 weights, and with a tokenizer of ``hf_folders`` if named."""
    import torch
    from open_clip import create_model
    from safetensors.torch import save_file

    from tests.export.hf_folders import write_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        write_tokenizer(tokenizer, folder)
    config = {"model_cfg": model, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    torch.manual_seed(0)
    made = create_model(f"local-dir:{folder}", load_weights=False)
    weights = {name: value.half().contiguous() for name, value in made.state_dict().items()}
    save_file(weights, str(folder / "open_clip_model.safetensors"))
    return folder


def write_encoder(folder: Path) -> Path:
    """A model with a vocabulary of its own."""
    from open_clip.tokenizer import SimpleTokenizer

    folder.mkdir(parents=True)
    write_bpe(folder / "bpe.txt.gz")
    text = {
        "context_length": CONTEXT,
        "vocab_size": SimpleTokenizer(bpe_path=str(folder / "bpe.txt.gz"), context_length=CONTEXT).vocab_size,
        "width": 64,
        "heads": 2,
        "layers": 2,
        "tokenizer_kwargs": {"bpe_path": "bpe.txt.gz"},
    }
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": SIZE}
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    return write_model(folder, {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}, preprocessing)


def write_detector(path: Path, seed: int = 0, scale: str = "n", side: int = 320, contrast: float = 0.5) -> Path:
    """An ultralytics checkpoint of YOLO-World v2, nano to X, with statistics that keep activations alive.

    ``contrast`` is the logarithm of the spread of scores. It is lower for larger models, so that few scores are 1.
    """
    import numpy as np
    import torch

    from export.examples import picture
    from export.quiet import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.nn import tasks

    torch.manual_seed(seed)
    untyped: Any = tasks
    model = untyped.WorldModel(f"yolov8{scale}-worldv2.yaml", nc=80, verbose=False)
    head = model.model[-1]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what passes
            module.bias.data.normal_(std=0.2)
    for layer in head.cv4:  # scores that differ, instead of the training's start near zero
        layer.bias.data.fill_(-1.0)
        layer.logit_scale.data.fill_(contrast)
    pixels = torch.stack([torch.from_numpy(np.array(picture(number, 320, 320))) for number in range(2)])
    with torch.no_grad():
        model.train().predict(pixels.permute(0, 3, 1, 2) / 255, txt_feats=torch.randn(2, 80, 512))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.eval().half(), "train_args": {"imgsz": side}}, path)
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def ahead(tmp_path: Path) -> Compiler:
    """Builds for a GPU that is not here."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: pip install tensorrt_rtx_cu13")
    return Compiler(trt, "SM89", tmp_path / "timings")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("weights") / "encoder")


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("weights") / "detector.pt")


@pytest.fixture(scope="session")
def request_arguments(encoder_folder: Path, detector_file: Path) -> dict[str, Any]:
    encoder = str(encoder_folder)
    return {"detector": str(detector_file), "encoder": encoder, "prompt_encoder": encoder, "threshold": 0.2}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, request_arguments: dict[str, Any]) -> Path:
    """A model repository with the random mini models, exported once for all tests."""
    from export.build import build, make_request

    out = tmp_path_factory.mktemp("exported") / "model_repository"
    build(make_request(**request_arguments), out, say=lambda line: None)
    return out
