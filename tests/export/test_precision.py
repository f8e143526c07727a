"""FP16 graphs: what computes in which precision, and that the numbers keep their limits."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx as trt
import torch
from onnx import TensorProto, parser

from benchmarks.judge import box_iou
from benchmarks.photos import draw_scenes
from export import examples, gate
from export.__main__ import main
from export.build import build, make_request
from export.errors import ParityError, UnsupportedModel
from export.graph import check_contract
from export.precision import Policy, is_half, rounded, with_policy
from export.reference import Reference, open_image
from export.tensorrt import Compiler, Limits, compile_graph
from serving.paths import REPOSITORIES
from serving.repository.manifest import Manifest
from serving.repository.specs import LEAVES, ModelSpec
from serving.server.server import Server
from tests.export.hf_folders import write_tokenizer
from vlclip import Client

HALF = ["encode_prompt", "detect", "encode_image", "encode_text"]
FULL = ["crop", "fit"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini models, exported in FP16 beside the configs."""
    out = tmp_path_factory.mktemp("half") / "model_repository"
    shutil.copytree(REPOSITORIES[0], out, ignore=shutil.ignore_patterns("model.onnx", "tokenizer.json", "manifest-*"))
    build(make_request("mini", "mini", threshold=0.2, precision="fp16"), out, say=lambda line: None)
    return out


def graph_of(root: Path, leaf: str) -> onnx.ModelProto:
    return onnx.load(root / leaf / "1" / "model.onnx")


@pytest.mark.parametrize("leaf", HALF)
def test_inputs_and_outputs_keep_the_contract_and_weights_are_half(half: Path, leaf: str) -> None:
    graph = graph_of(half, leaf)
    onnx.checker.check_model(graph, full_check=True)
    check_contract(graph, LEAVES[leaf])
    assert is_half(graph)
    weights = {tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= 64}
    assert TensorProto.FLOAT16 in weights
    assert not is_half(graph_of(REPOSITORIES[0], leaf))


@pytest.mark.parametrize("leaf", FULL)
def test_pixels_are_resampled_in_full(half: Path, leaf: str) -> None:
    assert not is_half(graph_of(half, leaf))
    manifest = Manifest.read(half / "manifest-1.json")
    assert manifest is not None
    assert manifest.leaves[leaf].parity["grey_max"] <= 1.01


@pytest.mark.parametrize("leaf", HALF)
def test_tensorrt_takes_the_types_as_they_are(half: Path, leaf: str, tmp_path: Path) -> None:
    graph = graph_of(half, leaf).SerializeToString()
    plan = compile_graph(graph, leaf, LEAVES[leaf], Limits(), Compiler(trt, "SM89", tmp_path))
    assert plan.layers["HALF"] > plan.layers.get("FLOAT", 0) or leaf == "detect"
    assert plan.layers["HALF"] > 100


def test_served_embeddings_and_boxes_are_near_those_in_full(half: Path, server: Server) -> None:
    """ONNX Runtime computes FP16 in FP32 on a CPU: this is about the graphs loading and fitting together."""
    photos = draw_scenes(24, 5)
    files, prompts = [photo.jpeg for photo in photos], [photo.items[0].product_type for photo in photos]
    with Client(server.grpc_url, timeout=60) as client:
        wanted = client.embed_images(files, prompts)
    with Server.start([half, REPOSITORIES[1]]) as other, Client(other.grpc_url, timeout=60) as client:
        came = client.embed_images(files, prompts)
    cosines = gate.cosines(came.embedding, wanted.embedding)
    assert cosines.mean() >= 0.9995
    assert cosines.min() >= 0.995
    assert np.abs(came.score - wanted.score).max() < 0.01
    assert not np.array_equal(came.embedding, wanted.embedding)


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
    cosines = gate.cosines(came["EMBEDDING"], wanted["EMBEDDING"])
    assert cosines.mean() >= 0.9999
    assert cosines.min() >= 0.9995


def test_texts_rounded_to_fp16(half: Path) -> None:
    items = [photo.items[0] for photo in draw_scenes(60, 7)]
    texts = examples.TEXTS + [text for item in items for text in (item.caption, item.title)]
    came, wanted = both(half, "encode_text", {"TOKENS": np.asarray(Reference("mini").encoder.tokenizer(texts))}, 32)
    cosines = gate.cosines(came["EMBEDDING"], wanted["EMBEDDING"])
    assert cosines.mean() >= 0.9999
    assert cosines.min() >= 0.9995


def test_rounding_shows_what_the_cpu_hides() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]>
    g (float[B] X) => (float[B] Y) {
        F = Constant<value_float=60000.0>()
        A = Cast<to=10>(F)
        H = Cast<to=10>(X)
        S = Add(H, A)
        D = Sub(S, A)
        Y = Cast<to=1>(D)
    }"""
    graph = parser.parse_model(text)

    def run(model: onnx.ModelProto, values: list[float]) -> list[float]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results: list[float] = session.run(None, {"X": np.array(values, np.float32)})[0].tolist()
        return results

    assert is_half(graph)
    assert run(rounded(graph), [60000.0, 1.0, -60000.0, 16.0]) == [np.inf, 0.0, -60000.0, 32.0]
    assert run(graph, [60000.0]) == [60000.0]


def test_the_gate_refuses_what_overflows() -> None:
    """A tower whose activations leave FP16 is not exported in FP16."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
    g (float[B, 4] X) => (float[B, 4] EMBEDDING) {
        C = Constant<value_float=256.0>()
        A = Cast<to=10>(C)
        H = Cast<to=10>(X)
        S = Mul(H, A)
        D = Mul(S, A)
        E = Div(D, A)
        F = Div(E, A)
        EMBEDDING = Cast<to=1>(F)
    }"""
    graph = parser.parse_model(text)
    spec = ModelSpec((), LEAVES["encode_text"].outputs)
    unit = np.full((3, 4), 0.5, np.float32)
    inputs, wanted = {"X": 4 * unit}, {"EMBEDDING": unit}
    with np.errstate(invalid="ignore"), pytest.raises(ParityError, match="cosine of EMBEDDING is nan"):
        gate.compare(gate.run_graph(graph, spec), inputs, wanted, partial(gate.check_encode_text, tolerance=gate.FP16))


class Tower(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))
        self.head = torch.nn.Linear(4, 4)
        self.seen: dict[str, torch.dtype] = {}
        for name, part in (("linear", self.body[0]), ("norm", self.body[1]), ("head", self.head)):
            part.register_forward_hook(lambda _, args, came, name=name: self.seen.update({name: came.dtype}))

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
    tmp_path = tmp_path / "model_repository"
    assert main([*arguments, f"--out={tmp_path}"]) == 0
    manifest = Manifest.read(tmp_path / "manifest-1.json")
    assert manifest is not None
    for leaf in ("encode_image", "encode_text"):
        assert manifest.leaves[leaf].parity["cosine_mean"] >= 0.9995
        assert manifest.leaves[leaf].parity["cosine_min"] >= 0.995
        assert is_half(graph_of(tmp_path, leaf))
