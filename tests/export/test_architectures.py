"""Every family of open_clip's encoders, with random weights, through the gate: small here, at full size under slow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import open_clip
import pytest
import torch

from export.build import export_leaf, export_tokenizer, with_versions
from export.encoder_sources import resolve_encoder
from export.encoders import FP32_BYTES, LARGEST_GRAPH, image_weights, require_one_file, text_weights
from export.errors import SourceError, UnsupportedModel, UsageError
from export.leaves import encoder_leaves, example_photos, pixel_leaves
from export.load_encoder import Encoder, load_encoder
from export.tensorrt import Compiler, Limits, compile_graph
from serving.repository.manifest import Leaf, Request, Settings
from serving.repository.specs import LEAVES
from tests import toys
from tests.export.conftest import write_model
from tests.export.hf_folders import VOCABULARY, write_tokenizer

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

WITH_POOL = {**VIT, "attentional_pool": True, "attn_pooler_heads": 2}
SMALL: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "vit of openai": ({"vision_cfg": VIT, "text_cfg": CLIP_TEXT, "quick_gelu": True}, {}, None),
    "vit with attention pooling": (
        {"vision_cfg": {**WITH_POOL, "attn_pooler_queries": 4}, "text_cfg": CLIP_TEXT},
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
            "vision_cfg": {**WITH_POOL, "output_tokens": True},
            "text_cfg": {**CLIP_TEXT, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**CLIP_TEXT, "layers": 1},
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


def load_small(folder: Path, name: str) -> Encoder:
    """One of ``SMALL``, with random weights."""
    model, preprocessing, tokenizer = SMALL[name]
    write_model(folder, {"embed_dim": WIDTH, **model}, preprocessing, tokenizer)
    return load_encoder(resolve_encoder(str(folder)))


def export_all(encoder: Any, out: Path, pixels: bool = True) -> tuple[dict[str, Leaf], dict[str, dict[str, int]]]:
    """Export every leaf that depends on the encoder: the entries of the manifest by leaf, and the symbols."""
    request = Request({}, {}, Settings(0.2), code="")
    leaves = encoder_leaves(encoder)
    if pixels:
        leaves += pixel_leaves(request.settings, encoder, [example_photos(256)])
    entries = {"tokenize": export_tokenizer("tokenize", encoder.tokenizer, out / "tokenize")}
    symbols = {}
    for leaf in with_versions(leaves, toys.digests(1)):
        entries[leaf.name], symbols[leaf.name] = export_leaf(leaf, request, out / leaf.name)
    return entries, symbols


def compile_all(entries: Mapping[str, Any], out: Path, limits: Limits, compiler: Compiler) -> None:
    """TensorRT takes every graph, and each computes in FP32."""
    for leaf in entries.keys() - {"tokenize"}:
        plan = compile_graph((out / leaf / "model.onnx").read_bytes(), leaf, LEAVES[leaf], limits, compiler)
        assert len(plan.content) > 10_000
        assert "HALF" not in plan.layers


FAST = ("vit of openai", "words of bert")
"""Common families. Only the slow tests cover the others."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in SMALL])
def test_small_models_of_every_family(tmp_path: Path, ahead: Compiler, name: str) -> None:
    preprocessing = SMALL[name][1]
    encoder = load_small(tmp_path / "model", name)
    assert encoder.preprocessing.resize_mode == preprocessing.get("resize_mode", "shortest")
    entries, symbols = export_all(encoder, tmp_path, pixels=bool(preprocessing))
    compile_all(entries, tmp_path, Limits(batch=(1, 4, 16), canvas=(64, 256, 448)), ahead)
    for leaf in ("encode_image", "encode_text"):
        assert entries[leaf].parity["cosine_min"] > 0.999999
    assert symbols["encode_image"]["R"] == SIDE
    assert symbols["encode_text"]["T"] == CONTEXT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [("ViT-B-32", None), ("ViT-L-14", None), ("ViT-B-16-SigLIP", "unigram"), ("convnext_base", None)],
)
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
    assert named.preprocessing_of == "laion2b_s32b_b82k"


def test_graphs_over_the_limit_are_refused_before_tracing() -> None:
    with torch.device("meta"):
        tower = open_clip.create_model("ViT-H-14", load_weights=False, device="meta")
    wanted = "encode_image has 632 million weights, and one ONNX file holds 537 million in FP32: choose a smaller"
    with pytest.raises(UnsupportedModel, match=wanted) as caught:
        require_one_file("encode_image", image_weights(tower))
    assert "\n" not in str(caught.value)
    require_one_file("encode_text", text_weights(tower))
    require_one_file("encode_text", [torch.empty(LARGEST_GRAPH // FP32_BYTES - 1, device="meta")])


def test_tokenizer_folders(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    load_small(folder, "siglip")
    with pytest.raises(SourceError, match=r"no such file: .*tokenizer\.json"):
        resolve_encoder("ViT-B-16-SigLIP", random=True, tokenizer=str(tmp_path))
    with pytest.raises(UsageError, match="its own tokenizer"):
        resolve_encoder(str(folder), tokenizer=str(folder))
    with pytest.raises(UsageError, match="CLIP's own tokenizer"):
        load_encoder(resolve_encoder("ViT-S-32-alt", random=True, tokenizer=str(folder)))
    file = folder / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(SourceError, match="the tokenizer of model cannot be loaded"):
        load_encoder(resolve_encoder(str(folder)))
    file.unlink()
    with pytest.raises(SourceError, match="no such file: "):
        load_encoder(resolve_encoder(str(folder)))


def test_a_tokenizer_larger_than_its_tower(tmp_path: Path) -> None:
    model, preprocessing, tokenizer = SMALL["words of bert"]
    small = {"embed_dim": WIDTH, **model, "text_cfg": {**model["text_cfg"], "vocab_size": 100}}
    write_model(tmp_path / "model", small, preprocessing, tokenizer)
    with pytest.raises(SourceError, match=r"has \d+ tokens, its text tower only 100"):
        load_encoder(resolve_encoder(str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param(
            ["--encoder=ViT-B-32", "--pretrained=laion2b_s34b_b79k"],
            [
                "open_clip_model.safetensors",
                "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
                "--checkpoint FILE",
            ],
            id="weights",
        ),
        pytest.param(
            ["--encoder=ViT-B-16-SigLIP", "--random-weights", "--detector=yolo-world-n", "--prompt-encoder=mini"],
            ["tokenizer.json", "huggingface.co/timm/ViT-B-16-SigLIP", "--tokenizer FOLDER"],
            id="tokenizer",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_network_the_file_that_is_needed_is_named(tmp_path: Path, options: list[str], named: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "export", *options, f"--out={tmp_path / 'out'}"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert all(words in ended.stderr for words in named), ended.stderr
    assert not list((tmp_path / "out").glob("manifest*"))
