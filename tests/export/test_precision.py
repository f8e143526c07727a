"""FP16 graphs: what computes in which precision, and that the numbers keep their limits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, parser

from benchmarks.judge import box_iou
from benchmarks.photos import draw_scenes
from export import examples, gate
from export.__main__ import main
from export.build import build, make_request
from export.errors import UnsupportedModel
from export.graph import check_contract
from export.precision import Policy, is_half, with_policy
from export.reference import Reference, open_image
from export.tensorrt import Compiler, Limits, compile_graph
from serving.paths import REPOSITORIES
from serving.repository.manifest import require_version
from serving.repository.specs import LEAVES, ModelSpec, TensorSpec
from tests.export.hf_folders import write_tokenizer

HALF = ["encode_prompt", "detect", "encode_image", "encode_text"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini models, exported in FP16."""
    out = tmp_path_factory.mktemp("half") / "model_repository"
    build(make_request("mini", "mini", threshold=0.2, precision="fp16"), out, say=lambda line: None)
    return out


def graph_of(root: Path, leaf: str) -> onnx.ModelProto:
    return onnx.load(root / leaf / "1" / "model.onnx")


@pytest.mark.parametrize("leaf", HALF)
def test_tensorrt_takes_the_types_as_they_are(half: Path, leaf: str, ahead: Compiler) -> None:
    graph = graph_of(half, leaf)
    onnx.checker.check_model(graph, full_check=True)
    check_contract(graph, LEAVES[leaf])
    plan = compile_graph(graph.SerializeToString(), leaf, LEAVES[leaf], Limits(), ahead)
    assert plan.layers["HALF"] > plan.layers.get("FLOAT", 0) or leaf == "detect"
    assert plan.layers["HALF"] > 100
    weights = {tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= 64}
    assert TensorProto.FLOAT16 in weights


@pytest.mark.parametrize("leaf", ["crop", "fit"])
def test_pixels_are_resampled_in_full(half: Path, leaf: str) -> None:
    assert not is_half(graph_of(half, leaf))
    assert require_version(half, 1).leaves[leaf].parity["grey_max"] <= 1.01


def both(half: Path, leaf: str, inputs: dict[str, np.ndarray], batch: int = 4) -> list[dict[str, np.ndarray]]:
    """What the FP16 graph gives with every tensor rounded, more often than on a GPU, and what the FP32 graph gives."""
    rows = len(next(iter(inputs.values())))
    found = []
    for root in (half, REPOSITORIES[0]):
        run = gate.run_graph(graph_of(root, leaf), LEAVES[leaf])
        parts = [
            run({name: value[begin : begin + batch] for name, value in inputs.items()})
            for begin in range(0, rows, batch)
        ]
        found.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return found


def require_near(came: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    cosines = gate.cosines(came["EMBEDDING"], wanted["EMBEDDING"])
    assert cosines.mean() >= 0.9999
    assert cosines.min() >= 0.9995


@pytest.mark.parametrize("source", ["drawn", "photos"])
def test_pictures_rounded_to_fp16(half: Path, source: str) -> None:
    if source == "drawn":
        photos = draw_scenes(32, 6)
        images = [open_image(photo.jpeg) for photo in photos]
        prompts = [photo.items[0].product_type for photo in photos]
    else:
        if "VLCLIP_PHOTOS" not in os.environ:
            pytest.skip("VLCLIP_PHOTOS names no folder of photos")
        files = sorted(Path(os.environ["VLCLIP_PHOTOS"]).rglob("*.jpg"))[::8]
        images = [open_image(file.read_bytes()) for file in files]
        prompts = [file.stem.split("_")[0].replace("-", " ") for file in files]
    reference = Reference("mini")
    tokens = {"TOKENS": np.asarray(reference.encoder.tokenizer(prompts))}
    prompt = both(half, "encode_prompt", tokens)[1]
    canvas, size, _ = examples.canvases(images, 640)
    came, wanted = both(half, "detect", {"CANVAS": canvas, "SIZE": size, **prompt})
    assert np.abs(came["SCORE"] - wanted["SCORE"]).max() <= gate.FP16.score
    assert box_iou(came["CANVAS_BOX"], wanted["CANVAS_BOX"]).min() >= 0.99

    pixels = torch.stack([reference.encoder.transform(image) for image in images]).numpy()
    came, wanted = both(half, "encode_image", {"PIXELS": pixels, "STATUS": np.zeros((len(images), 1), np.int32)})
    require_near(came, wanted)


def test_texts_rounded_to_fp16(half: Path) -> None:
    items = [photo.items[0] for photo in draw_scenes(60, 7)]
    texts = examples.TEXTS + [text for item in items for text in (item.caption, item.title)]
    require_near(*both(half, "encode_text", {"TOKENS": np.asarray(Reference("mini").encoder.tokenizer(texts))}, 32))


def test_the_gate_sees_overflow_which_the_cpu_hides() -> None:
    graph = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]> g (float[B] X) => (float[B] Y) {
            F = Constant<value_float=60000.0>()
            A = Cast<to=10>(F)
            H = Cast<to=10>(X)
            S = Add(H, A)
            D = Sub(S, A)
            Y = Cast<to=1>(D)
        }"""
    )
    run = gate.run_graph(graph, ModelSpec((), (TensorSpec("Y", "FP32", ()),)))
    values = {"X": np.array([60000.0, 1.0, -60000.0, 16.0], np.float32)}
    assert run(values)["Y"].tolist() == [np.inf, 0.0, -60000.0, 32.0]


class Tower(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))
        self.head = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.body(x))
        return result


def test_a_policy_names_the_module_that_computes_in_fp16() -> None:
    tower = Tower()
    copy = with_policy(tower, Policy(half="body"))
    result = copy(torch.ones(2, 4))
    dtypes = {name: weight.dtype for name, weight in copy.named_parameters()}
    assert dtypes["body.0.weight"] == dtypes["body.2.weight"] == torch.float16
    assert dtypes["head.weight"] == result.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in tower.parameters())
    assert torch.allclose(result, tower(torch.ones(2, 4)), atol=5e-3)


def test_a_policy_of_another_model_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"names body\.9, which Tower does not have"):
        with_policy(Tower(), Policy(half="body.9"))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["ViT-B-32", "ViT-B-16-SigLIP", "convnext_base"])
def test_full_size(tmp_path: Path, encoder: str) -> None:
    arguments = ["--detector=yolo-world-s", f"--encoder={encoder}", "--random-weights", "--precision=fp16"]
    if encoder == "ViT-B-16-SigLIP":
        arguments.append(f"--tokenizer={write_tokenizer('unigram', tmp_path / 'tokenizer')}")
    out = tmp_path / "model_repository"
    assert main([*arguments, f"--out={out}"]) == 0
    for leaf in ("encode_image", "encode_text"):
        parity = require_version(out, 1).leaves[leaf].parity
        assert parity["cosine_mean"] >= 0.9995
        assert parity["cosine_min"] >= 0.995
        assert is_half(graph_of(out, leaf))
