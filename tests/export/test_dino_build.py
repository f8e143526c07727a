"""Grounding DINO from a folder to verified graphs."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image, ImageOps

from export import examples, gate
from export.build import build, export_leaf, load_prompt_encoder, make_request
from export.errors import ParityError, SourceError, UsageError
from export.examples import pictures
from export.grounding_dino import EncodeDinoPrompt
from export.leaves import LeafExport, example_photos, leaves_of, phrase_detect_leaf
from export.load_detector import load_detector
from export.load_encoder import load_encoder
from export.phrases import LONGEST, PhraseTokenizer, character_tokenizer
from export.sources import resolve_detector
from export.tensorrt import Compiler, Limits, compile_graph
from serving.repository.manifest import Manifest, Request, Settings
from serving.repository.specs import LEAVES
from tests.export.dino import SIDE, Upstream, compare_with_upstream, make_model
from tests.export.test_cuda_kernels import without_kernel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "dino"
    make_model(encoder_layers=1).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_gives_the_weights_and_the_tokenizer(folder: Path) -> None:
    source = resolve_detector("grounding-dino-tiny", str(folder))
    loaded = load_detector(source, SIDE)
    assert loaded.side == SIDE
    saved = make_model(encoder_layers=1).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.tokenizer("a mug.")["input_ids"] == character_tokenizer()("a mug.")["input_ids"]
    files = source.describe()["files"]
    assert isinstance(files, dict)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    with pytest.raises(UsageError, match="multiple of 32"):
        load_detector(source, 100)


@pytest.mark.parametrize("damage", ["cut", "another model"])
def test_a_damaged_folder(tmp_path: Path, damage: str) -> None:
    model = make_model(encoder_layers=1)
    (model.model.text_backbone if damage == "another model" else model).save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    if damage == "cut":
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match="cannot be loaded" if damage == "cut" else "holds a bert") as caught:
        load_detector(resolve_detector("grounding-dino-tiny", str(tmp_path)))
    assert "\n" not in str(caught.value)


def leaves_with(folder: Path, encoder: Path, precision: str, canvases: list[int]) -> list[LeafExport]:
    """``encode_prompt`` and ``detect``."""
    request = make_request("grounding-dino-tiny", str(encoder), threshold=0.2, detector_weights=str(folder))
    detector, loaded = load_detector(request.detector, SIDE), load_encoder(request.encoder)
    prompts = load_prompt_encoder(request, detector, loaded)
    return leaves_of(Settings(0.2, precision=precision), detector, loaded, prompts, canvases=canvases)[:2]


def test_the_gate_has_prompts_of_other_lengths(folder: Path, encoder_folder: Path) -> None:
    _, detect = leaves_with(folder, encoder_folder, "fp32", [128, 96])
    lengths = [case.inputs["PROMPT_MASK"].sum(dim=1).tolist() for case in detect.cases]
    assert lengths == [[LONGEST, 0], [18, LONGEST]]


SHAPES = {
    "encode_prompt": {"TOKENS": [64, LONGEST]},
    "detect": {"CANVAS": [64, 768, 768, 3], "SIZE": [64, 4], "PROMPT": [64, LONGEST, 64], "PROMPT_MASK": [64, LONGEST]},
}


@pytest.mark.slow
def test_both_graphs_pass_the_gate_and_are_built_by_tensorrt(
    folder: Path, encoder_folder: Path, ahead: Compiler, tmp_path: Path
) -> None:
    for leaf in leaves_with(folder, encoder_folder, "fp32", [128, 96]):
        entry, symbols = export_leaf(leaf, Request({}, {}, Settings(0.2), code=""), tmp_path / leaf.name)
        graph = onnx.load(tmp_path / leaf.name / "model.onnx")
        onnx.checker.check_model(graph, full_check=True)
        assert "GridSample" not in {node.op_type for node in graph.graph.node}
        assert without_kernel(graph, tmp_path) == set(), "on CUDA"
        if leaf.name == "detect":
            assert symbols == {"L": LONGEST, "C": 64}
            assert entry.parity["logits_relative_max"] < 1e-4
        plan = compile_graph(graph.SerializeToString(), leaf.name, LEAVES[leaf.name], Limits(), ahead)
        assert len(plan.content) > 10_000
        shapes = {name: tensor["shapes"][2] for name, tensor in plan.tensors.items() if "shapes" in tensor}
        assert shapes == SHAPES[leaf.name]


@pytest.mark.slow
def test_fp16_backbone(folder: Path, encoder_folder: Path, ahead: Compiler, tmp_path: Path) -> None:
    """The rest stays in FP32, and TensorRT takes it so."""
    encode_prompt, detect = leaves_with(folder, encoder_folder, "fp16", [128])
    assert encode_prompt.half is None
    entry, _ = export_leaf(detect, Request({}, {}, Settings(0.2), code=""), tmp_path / "detect")
    assert 1e-4 < entry.parity["logits_relative_max"] < gate.FP16.score
    graph = (tmp_path / "detect" / "model.onnx").read_bytes()
    layers = compile_graph(graph, "detect", LEAVES["detect"], Limits(), ahead).layers
    assert layers["HALF"] > 100
    assert layers["FLOAT"] > 100


RESIZED = {"unresized": 1e-4, "resized": 5e-3}
"""How far raw logits may be apart: for the same pixels, and where a few of them lie one grey level apart."""


def test_without_probes_the_answer_is_judged(folder: Path, encoder_folder: Path) -> None:
    """As of a plan, whose raw numbers stay inside."""
    detector = load_detector(resolve_detector("grounding-dino-tiny", str(folder)), SIDE)
    prompts = EncodeDinoPrompt(detector.model).eval()
    with torch.no_grad():
        prompt, mask = prompts(PhraseTokenizer(detector.tokenizer)(examples.TEXTS[: examples.ROWS]))
        leaf = phrase_detect_leaf(detector, [example_photos(128)], prompt, mask)
        (case,) = leaf.cases
        box, score, *_ = leaf.module(*case.inputs.values())
    inputs = {name: value.numpy() for name, value in case.inputs.items()}
    came = {"CANVAS_BOX": box.numpy(), "SCORE": score.numpy()}
    wanted = leaf.expected(case)
    assert set(leaf.check(inputs, came, wanted, gate.FP32)) == {"score_difference_max", "box_pixels"}
    for name, wrong in (("SCORE", came["SCORE"] + 0.01), ("CANVAS_BOX", came["CANVAS_BOX"] + 5.0)):
        with pytest.raises(ParityError, match=name):
            leaf.check(inputs, came | {name: wrong}, wanted, gate.FP32)


@pytest.fixture(scope="module")
def true_size(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of the detector, and a repository with it; random weights."""
    name, out = f"grounding-dino-{request.param}", tmp_path_factory.mktemp(request.param)
    build(make_request(name, "mini", threshold=0.2, random_weights=True), out)
    return name, out


@pytest.mark.slow
@pytest.mark.parametrize("true_size", ["tiny", "base"], indirect=True)
def test_the_true_size(true_size: tuple[str, Path]) -> None:
    """Mixed prompts in batches equal PyTorch's answers row by row: that is what the gate compares."""
    _, out = true_size
    manifest = Manifest.read(out / "manifest-1.json")
    assert manifest is not None
    assert manifest.is_complete(out)
    assert manifest.symbols["detect"] == {"L": LONGEST, "C": 256}
    parity = manifest.leaves["detect"].parity
    assert parity["foreground_relative_max"] < 1e-3
    assert parity["logits_relative_max"] < 1e-3


def photos() -> tuple[list[Image.Image], list[str]]:
    """Images and product types: of ``VLCLIP_PHOTOS`` if it is set."""
    if "VLCLIP_PHOTOS" not in os.environ:
        return pictures()[:4], ["red mug", "Jumper of wool", "x", "desk lamp, 2-pack (navy)"]
    folder = Path(os.environ["VLCLIP_PHOTOS"])
    with (folder / "photos.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))[::192]
    return [Image.open(folder / row["file"]).convert("RGB") for row in rows], [row["product_type"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("true_size", ["tiny"], indirect=True)
@pytest.mark.parametrize(("pixels", "limit"), RESIZED.items(), ids=RESIZED)
def test_the_graphs_equal_transformers_processor_and_model(
    true_size: tuple[str, Path], pixels: str, limit: float
) -> None:
    """From picture and phrase to box and score."""
    name, out = true_size
    detector = load_detector(resolve_detector(name, random=True))
    images, phrases = photos()
    if pixels == "unresized":
        images = [ImageOps.contain(image, (detector.side, detector.side)) for image in images]
    apart = compare_with_upstream(
        {leaf: out / leaf / "1" / "model.onnx" for leaf in ("encode_prompt", "detect")},
        Upstream(detector.model, detector.tokenizer, detector.side),
        images,
        phrases,
    )
    print(name, pixels, apart)
    assert max(apart["foreground"], apart["logits"], apart["score"]) < limit, apart
    assert apart["box"] < limit * detector.side, apart
