"""Every family of open_clip's encoders, with random weights, through the gate: small here, at full size under slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from export.__main__ import main
from export.build import export_leaf, export_tokenizer
from export.encoders import FP32_BYTES, LARGEST_GRAPH, image_weights, require_one_file, text_weights
from export.errors import SourceError, UnsupportedModel, UsageError
from export.leaves import encoder_leaves, example_photos, pixel_leaves
from export.load_encoder import load_encoder
from export.sources import resolve_encoder
from export.tensorrt import Compiler, Limits, compile_graph
from serving.repository.manifest import Leaf, Manifest, Request, Settings
from serving.repository.specs import LEAVES
from tests.export.hf_folders import VOCABULARY, write_tokenizer

Capture = pytest.CaptureFixture[str]
SIDE = 64
CONTEXT = 16
WIDTH = 64
CLIP_TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}
HF_TEXT = {**CLIP_TEXT, "vocab_size": VOCABULARY + 1, "hf_tokenizer_name": "any"}
SIGLIP_TEXT = {
    **HF_TEXT,
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
VIT = {"image_size": SIDE, "patch_size": 16, "width": WIDTH, "head_width": 32, "layers": 2}
TIMM = {"image_size": SIDE, "timm_model_pretrained": False}
SQUASH = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bicubic"}

SMALL: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "vit of openai": ({"vision_cfg": VIT, "text_cfg": CLIP_TEXT, "quick_gelu": True}, {}, None),
    "vit with attention pooling": (
        {
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
            "text_cfg": CLIP_TEXT,
        },
        {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 128},
        None,
    ),
    "resnet": (
        {"vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": CLIP_TEXT},
        {},
        None,
    ),
    "siglip": (
        {
            "vision_cfg": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": SIGLIP_TEXT,
            "custom_text": True,
            "init_logit_bias": -10,
        },
        SQUASH,
        "unigram",
    ),
    "convnext": (
        {
            "vision_cfg": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
            "text_cfg": CLIP_TEXT,
        },
        {},
        None,
    ),
    "coca": (
        {
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": {**CLIP_TEXT, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"context_length": CONTEXT, "width": WIDTH, "heads": 2, "layers": 1, "vocab_size": 49408},
            "custom_text": True,
        },
        {},
        None,
    ),
    "words of bert": (
        {
            "vision_cfg": VIT,
            "text_cfg": {**HF_TEXT, "tokenizer_kwargs": {"strip_sep_token": True}, "pool_type": "first"},
        },
        {},
        "wordpiece",
    ),
}


def write_model(folder: Path, model: dict[str, Any], preprocessing: dict[str, Any], tokenizer: str | None) -> Path:
    """A folder as open_clip's training leaves it, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        write_tokenizer(tokenizer, folder)
    config = {"model_cfg": {"embed_dim": WIDTH, **model}, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({k: v.clone().contiguous() for k, v in made.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def export_all(encoder: Any, out: Path, pixels: bool = True) -> tuple[dict[str, Leaf], dict[str, dict[str, int]]]:
    """Export every leaf that depends on the encoder: the entries of the manifest by leaf, and the symbols."""
    request = Request({}, {}, Settings(0.2), code="")
    leaves = encoder_leaves(encoder)
    if pixels:
        leaves += pixel_leaves(request.settings, encoder, [example_photos(256)])
    entries = {"tokenize": export_tokenizer("tokenize", encoder.tokenizer, out / "tokenize")}
    symbols = {}
    for leaf in leaves:
        entries[leaf.name], symbols[leaf.name] = export_leaf(leaf, request, out / leaf.name)
    return entries, symbols


def compile_all(entries: Mapping[str, Any], out: Path, limits: Limits, compiler: Compiler) -> None:
    """TensorRT takes every graph, and each computes in FP32."""
    for leaf in entries.keys() - {"tokenize"}:
        plan = compile_graph((out / leaf / "model.onnx").read_bytes(), leaf, LEAVES[leaf], limits, compiler)
        assert len(plan.content) > 10_000
        assert "HALF" not in plan.layers


RARE = ("vit with attention pooling", "siglip", "resnet", "convnext", "coca")
"""Rare families, which only the slow tests cover."""


@pytest.mark.parametrize(
    ("model", "preprocessing", "tokenizer"),
    [pytest.param(*SMALL[name], id=name, marks=[pytest.mark.slow] * (name in RARE)) for name in SMALL],
)
def test_small_models_of_every_family(
    tmp_path: Path, ahead: Compiler, model: dict[str, Any], preprocessing: dict[str, Any], tokenizer: str | None
) -> None:
    encoder = load_encoder(resolve_encoder(str(write_model(tmp_path / "model", model, preprocessing, tokenizer))))
    assert encoder.preprocessing.resize_mode == preprocessing.get("resize_mode", "shortest")
    entries, symbols = export_all(encoder, tmp_path, pixels=bool(preprocessing))
    compile_all(entries, tmp_path, Limits(batch=(1, 4, 16), canvas=(64, 256, 448)), ahead)
    for leaf in ("encode_image", "encode_text"):
        assert entries[leaf].parity["cosine_min"] > 0.999999
    assert symbols["encode_image"]["R"] == SIDE
    assert symbols["encode_text"]["T"] == CONTEXT


FULL = {
    "ViT-B-32": None,
    "ViT-L-14": None,
    "ViT-B-16-SigLIP": "unigram",
    "convnext_base": None,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokenizer"), FULL.items(), ids=FULL)
def test_full_size(tmp_path: Path, ahead: Compiler, name: str, tokenizer: str | None) -> None:
    folder = str(write_tokenizer(tokenizer, tmp_path / "tokenizer")) if tokenizer else None
    encoder = load_encoder(resolve_encoder(name, random=True, tokenizer=folder))
    entries, _ = export_all(encoder, tmp_path)
    assert entries["encode_image"].parity["cosine_min"] >= 0.99999
    assert entries["encode_text"].parity["cosine_min"] >= 0.99999
    onnx.checker.check_model(str(tmp_path / "encode_image" / "model.onnx"), full_check=True)
    if name != "ViT-L-14":  # TensorRT takes it too, but needs 10 GB of memory
        compile_all(entries, tmp_path, Limits(), ahead)


def test_preprocessing_without_published_weights() -> None:
    assert resolve_encoder("ViT-B-16-SigLIP", random=True).preprocessing_of  # every tag says squash
    assert resolve_encoder("ViT-L-14", random=True).preprocessing_of is None  # the tags disagree
    named = resolve_encoder("ViT-L-14", random=True, pretrained="laion2b_s32b_b82k")
    assert named.describe() == {
        "model": "ViT-L-14",
        "weights": "random",
        "preprocessing_of": "laion2b_s32b_b82k",
    }


def test_graphs_over_the_limit_are_refused_before_tracing() -> None:
    with torch.device("meta"):
        tower = open_clip.create_model("ViT-H-14", load_weights=False, device="meta")
    wanted = "encode_image has 632 million weights, and one ONNX file holds 537 million in FP32: choose a smaller"
    with pytest.raises(UnsupportedModel, match=wanted) as caught:
        require_one_file("encode_image", image_weights(tower))
    assert "\n" not in str(caught.value)
    require_one_file("encode_text", text_weights(tower))
    require_one_file("encode_text", [torch.empty(LARGEST_GRAPH // FP32_BYTES - 1, device="meta")])


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("siglip") / "model", *SMALL["siglip"])


def test_a_tokenizer_larger_than_its_tower(tmp_path: Path) -> None:
    model, preprocessing, _ = SMALL["siglip"]
    small = {**model, "text_cfg": {**SIGLIP_TEXT, "vocab_size": 100}}
    folder = write_model(tmp_path / "model", small, preprocessing, "unigram")
    with pytest.raises(SourceError, match=r"has \d+ tokens, its text tower only 100"):
        load_encoder(resolve_encoder(str(folder)))


def test_tokenizer_folders(tmp_path: Path, siglip: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file: .*tokenizer\.json"):
        resolve_encoder("ViT-B-16-SigLIP", random=True, tokenizer=str(tmp_path))
    with pytest.raises(UsageError, match="its own tokenizer"):
        resolve_encoder(str(siglip), tokenizer=str(siglip))
    with pytest.raises(UsageError, match="CLIP's own tokenizer"):
        load_encoder(resolve_encoder("ViT-S-32-alt", random=True, tokenizer=str(siglip)))


def run_cli(capsys: Capture, detector: Path, out: Path, *arguments: str) -> str:
    """The error message of a command that must fail."""
    prompt = ["--prompt-encoder", "mini"]
    assert main(["--detector", str(detector), *prompt, "--out", str(out), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert error.count("\n") == 1
    assert not out.exists()
    return error


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def add_layer(config: Path) -> None:
    content = json.loads(config.read_text())
    content["model_cfg"]["text_cfg"]["layers"] = 3
    config.write_text(json.dumps(content))


WEIGHTS = "open_clip_model.safetensors"
BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "half the weights": (WEIGHTS, halve, "the encoder model cannot be loaded from"),
    "weights of noise": (WEIGHTS, lambda file: file.write_bytes(b"\xff" * 4096), "the encoder model cannot be loaded"),
    "half the tokenizer": ("tokenizer.json", halve, "the tokenizer of model cannot be loaded"),
    "no tokenizer": ("tokenizer.json", Path.unlink, "no such file: "),
    "another configuration": ("open_clip_config.json", add_layer, "another architecture than model: Missing key(s)"),
}


@pytest.mark.parametrize(("name", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_folders_in_one_line(
    tmp_path: Path, capsys: Capture, detector_file: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = write_model(tmp_path / "model", *SMALL["siglip"])
    damage(folder / name)
    assert message in run_cli(capsys, detector_file, tmp_path / "out", "--encoder", str(folder))


def test_damaged_and_foreign_checkpoints_in_one_line(
    tmp_path: Path, capsys: Capture, detector_file: Path, siglip: Path
) -> None:
    def export(checkpoint: Path) -> str:
        arguments = ["--encoder", "ViT-S-32-alt", "--checkpoint", str(checkpoint)]
        return run_cli(capsys, detector_file, tmp_path / "out", *arguments)

    damaged = tmp_path / "tuned.pt"
    damaged.write_bytes(b"\x00" * 4096)
    assert str(damaged) in export(damaged)
    assert "holds weights of another architecture than ViT-S-32-alt" in export(siglip / WEIGHTS)


OFFLINE = {
    "weights": (
        ["--encoder", "ViT-B-32", "--pretrained", "laion2b_s34b_b79k"],
        ["open_clip_model.safetensors", "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "--checkpoint FILE"],
    ),
    "tokenizer": (
        ["--encoder", "ViT-B-16-SigLIP", "--random-weights"],
        ["tokenizer.json", "huggingface.co/timm/ViT-B-16-SigLIP", "--tokenizer FOLDER"],
    ),
}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        pytest.param(*OFFLINE["weights"], id="weights"),
        pytest.param(*OFFLINE["tokenizer"], id="tokenizer", marks=pytest.mark.slow),
    ],
)
def test_without_network_the_wanted_file_is_named(tmp_path: Path, arguments: list[str], wanted: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    detector = ["--detector", "yolo-world-n", "--random-weights", "--prompt-encoder", "mini"]
    if "--random-weights" not in arguments:
        detector = ["--prompt-encoder", "mini"]
    command = [sys.executable, "-m", "export", *detector, *arguments, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert all(words in ended.stderr for words in wanted), ended.stderr
    assert Manifest.read(tmp_path / "out" / "manifest-1.json") is None
