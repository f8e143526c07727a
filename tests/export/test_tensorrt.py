"""TensorRT takes every graph: built ahead of time with tensorrt_rtx, on a machine without a GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import parser

from export.__main__ import main
from export.build import build, make_request
from export.engine import Engine, check_precision, inspected_dtypes
from export.errors import MachineError, PlanError
from export.gate import pixel_check
from export.graph import export_graph
from export.images import Crop, Fit, Preprocessing
from export.leaves import Case, LeafExport, detect_leaf, example_photos
from export.load_detector import load_detector
from export.sources import resolve_detector
from export.tensorrt import Compiler, Limits, compile_graph, find_compiler, limits_of, require_gpu
from serving.errors import SetupError
from serving.repository.manifest import read_served, require_version
from serving.repository.specs import CANVAS, EMBEDDING, LEAVES, TOKENS, ModelSpec

trt = pytest.importorskip("tensorrt_rtx")

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(batch=(1, 4, 16), canvas=(64, 448, 768))
SPEC = ModelSpec((TOKENS,), (EMBEDDING,))


DTYPES = {"UINT8": "UINT8", "INT32": "INT32", "INT64": "INT64", "FP32": "FLOAT"}
SYMBOLS = {"T": 16, "L": 1, "C": 512, "R": 64}
"""The numbers of the random models of these tests."""
GRAPHS = ("encode_prompt", "detect", "crop", "fit", "encode_image", "encode_text")


@pytest.mark.parametrize("leaf", GRAPHS)
def test_every_graph_is_built_and_keeps_the_contract(exported: Path, ahead: Compiler, leaf: str) -> None:
    graph = (exported / leaf / "1" / "model.onnx").read_bytes()
    plan = compile_graph(graph, leaf, LEAVES[leaf], LIMITS, ahead)
    spec = LEAVES[leaf]
    assert {name: tensor["dtype"] for name, tensor in plan.tensors.items()} == {
        tensor.name: DTYPES[tensor.dtype] for tensor in (*spec.inputs, *spec.outputs)
    }
    assert {name: tensor["shapes"] for name, tensor in plan.tensors.items() if "shapes" in tensor} == {
        tensor.name: [
            [batch, *({**SYMBOLS, "S": canvas}.get(str(size), size) for size in tensor.shape)]
            for batch, canvas in zip(LIMITS.batch, LIMITS.canvas, strict=True)
        ]
        for tensor in spec.inputs
    }
    assert len(plan.content) > 10_000
    assert plan.layers["FLOAT"] > 10
    assert "HALF" not in plan.layers, "FP16 is only how weights are stored"


def model(signature: str, body: str) -> bytes:
    text = f'<ir_version: 9, opset_import: ["" : 18, "ours" : 1]> g {signature} {{ {body} }}'
    content: bytes = parser.parse_model(text).SerializeToString()
    return content


TEXT = "(int64[batch,4] TOKENS) => (float[batch,4] EMBEDDING)"
PICTURE = "(uint8[batch,S,S,3] CANVAS) => (float[batch,3,S,S] EMBEDDING)"
REFUSED = {
    "an empty file": (b"", "it is empty"),
    "no ONNX": (b"junk" * 100, "parse the ONNX model"),
    "half a file": (model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)")[:-20], "encode_text: .* refuses the graph"),
    "an unknown operator": (model(TEXT, "a = Cast<to=1>(TOKENS) EMBEDDING = ours.Frobnicate(a)"), "Frobnicate"),
    "another name": (
        model("(int64[batch,4] WORDS) => (float[batch,4] EMBEDDING)", "EMBEDDING = Cast<to=1>(WORDS)"),
        "TOKENS is None, expected .*INT64",
    ),
    "another dtype": (
        model("(int32[batch,4] TOKENS) => (float[batch,4] EMBEDDING)", "EMBEDDING = Cast<to=1>(TOKENS)"),
        "TOKENS is .*INT32.*, expected .*INT64",
    ),
    "a free width": (
        model("(int64[batch,width] TOKENS) => (float[batch,width] EMBEDDING)", "EMBEDDING = Cast<to=1>(TOKENS)"),
        "TOKENS: axis 1 is free",
    ),
}


@pytest.mark.parametrize(("graph", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(ahead: Compiler, graph: bytes, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        compile_graph(graph, "encode_text", SPEC, LIMITS, ahead)
    assert "\n" not in str(caught.value)


def test_a_canvas_must_be_cast_before_anything_else(ahead: Compiler) -> None:
    """Why ``planes_of`` casts first."""
    spec = ModelSpec((CANVAS,), (EMBEDDING,))
    first = model(PICTURE, "a = Cast<to=1>(CANVAS) EMBEDDING = Transpose<perm=[0,3,1,2]>(a)")
    assert compile_graph(first, "fit", spec, LIMITS, ahead).content
    last = model(PICTURE, "a = Transpose<perm=[0,3,1,2]>(CANVAS) EMBEDDING = Cast<to=1>(a)")
    with pytest.raises(PlanError, match=r"Transpose.*UInt8") as caught:
        compile_graph(last, "fit", spec, LIMITS, ahead)
    assert "cudaError" not in str(caught.value)


def test_layers_have_the_dtypes_of_the_graph(ahead: Compiler) -> None:
    graph = model(TEXT, "a = Cast<to=10>(TOKENS) b = Mul(a, a) EMBEDDING = Cast<to=1>(b)")
    plan = compile_graph(graph, "encode_text", SPEC, LIMITS, ahead)
    assert plan.layers == {"FLOAT": 1, "HALF": 2}


def inspected(*outputs: dict[str, str]) -> str:
    """What the documentation of the engine inspector shows, for one layer."""
    layer = {
        "Name": "node_of_gemm + node_of_add",
        "LayerType": "CaskGemm",
        "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [8, 64], "Format/Datatype": "Int64"}],
        "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [8, 64], **output} for output in outputs],
        "TacticName": "sm80_xmma_gemm_f16f16",
    }
    return json.dumps({"Layers": ["a layer with no more than a name", layer], "Bindings": ["TOKENS", "EMBEDDING"]})


INSPECTED = {
    "a dtype": ([{"Format/Datatype": "Half"}, {"Format/Datatype": "Float"}], {"FLOAT": 1, "HALF": 1}),
    "a format": ([{"Format/Datatype": "Row major linear FP16 format"}], {"HALF": 1}),
    "the format of convolutions": (
        [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."}],
        {"INT8": 1},
    ),
    "TensorRT 11": (
        [{"Format": "Row major linear FP32 format (kLINEAR)", "Datatype": "Float"}] * 2 + [{"Datatype": "Half"}],
        {"FLOAT": 2, "HALF": 1},
    ),
    "others": ([{"Datatype": "Bool"}, {"Datatype": "Int64"}, {"Datatype": "BF16"}], {"BF16": 1, "BOOL": 1, "INT64": 1}),
}


@pytest.mark.parametrize(("outputs", "dtypes"), INSPECTED.values(), ids=INSPECTED)
def test_the_dtypes_of_the_engine_inspector(outputs: list[dict[str, str]], dtypes: dict[str, int]) -> None:
    assert inspected_dtypes("detect", inspected(*outputs)) == dtypes


def test_an_engine_without_dtypes_is_refused() -> None:
    with pytest.raises(PlanError, match="detect: the engine inspector reports no dtypes") as caught:
        inspected_dtypes("detect", '{"Layers": ["node_of_gemm"\n, "node_of_add"]}')
    assert "\n" not in str(caught.value)


def test_fp16_in_the_graph_alone_or_in_the_engine_alone_is_refused() -> None:
    check_precision("detect", {"FLOAT": 9, "HALF": 90}, {"FLOAT": 2, "HALF": 20})
    check_precision("detect", {"FLOAT": 9}, {"FLOAT": 2, "INT64": 1})
    with pytest.raises(PlanError, match="detect: only the graph has FP16"):
        check_precision("detect", {"FLOAT": 9, "HALF": 90}, {"FLOAT": 2})
    with pytest.raises(PlanError, match="detect: only the engine has FP16"):
        check_precision("detect", {"FLOAT": 9}, {"FLOAT": 2, "HALF": 20})


def compile_leaves(leaves: Sequence[LeafExport], limits: Limits, compiler: Compiler) -> None:
    for leaf in leaves:
        graph = export_graph(leaf.module, list(leaf.cases[0].inputs.values()), leaf.traced).SerializeToString()
        assert compile_graph(graph, leaf.name, leaf.traced, limits, compiler).content


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["squash", "longest", "shortest"])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_crop_and_fit_of_every_preprocessing_are_built(ahead: Compiler, mode: Any, kernel: Any) -> None:
    config = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, kernel, mode, fill_color=9)
    photos = example_photos(64)
    boxed = {**photos.inputs, "CANVAS_BOX": photos.boxes, "SCORE": photos.scores}
    leaves = [
        LeafExport("crop", Crop(config, 0.2), [Case(boxed)], pixel_check("crop", config.std)),
        LeafExport("fit", Fit(config), [Case(photos.inputs)], pixel_check("fit", config.std)),
    ]
    compile_leaves(leaves, LIMITS, ahead)


def test_progress_is_reported_and_an_interrupt_ends_the_build(ahead: Compiler) -> None:
    graph = model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)")
    lines: list[str] = []
    compile_graph(graph, "encode_text", SPEC, LIMITS, ahead, lines.append, seconds=0.0)
    assert any("Building engine: 1 of" in line for line in lines)

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_graph(graph, "encode_text", SPEC, LIMITS, ahead, interrupt, seconds=0.0)


def test_timings_are_kept_one_file_a_version_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    graph = model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)")
    folder = tmp_path / "cache"
    compile_graph(graph, "encode_text", SPEC, LIMITS, Compiler(trt, "SM89", folder))
    (file,) = folder.iterdir()
    assert file.name == f"tensorrt_rtx-{trt.__version__}.timing"
    kept = file.read_bytes()
    file.write_bytes(b"damaged")
    compile_graph(graph, "encode_text", SPEC, LIMITS, Compiler(trt, "SM89", folder))
    assert file.read_bytes() == kept
    assert list(folder.iterdir()) == [file]
    assert compile_graph(graph, "encode_text", SPEC, LIMITS, Compiler(trt, "SM89", file / "no folder")).content


def test_limits_are_those_of_the_configs(tmp_path: Path) -> None:
    assert {limits_of(ROOT / "model_repository", leaf) for leaf in GRAPHS} == {
        Limits(batch=(1, 64, 64), canvas=(448, 768, 768))
    }
    assert limits_of(tmp_path, "detect") == Limits(canvas=(448, 768, 768))
    for leaf, text in {
        "detect": "max_batch_size: 4",
        "decode": 'parameters { key: "canvases" value: { string_value: "320 1024" } }',
    }.items():
        (tmp_path / leaf).mkdir()
        (tmp_path / leaf / "config.pbtxt").write_text(text)
    assert limits_of(tmp_path, "detect") == Limits(batch=(1, 4, 4), canvas=(320, 1024, 1024))
    (tmp_path / "detect" / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(SetupError, match=r"detect/config\.pbtxt") as caught:
        limits_of(tmp_path, "detect")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_export_to_plans(tmp_path: Path, exported: Path, request_arguments: dict[str, Any], ahead: Compiler) -> None:
    """From weights to plans, staged next to graphs, which do not change. The second run does nothing."""
    out, lines = shutil.copytree(exported, tmp_path / "model_repository", symlinks=True), list[str]()
    request = make_request(**request_arguments, format="tensorrt")
    manifest = build(request, out, 2, say=lines.append, compiler=ahead, stage=True)
    assert f"{out} now holds {manifest.label}" in lines
    assert read_served(out) == require_version(out, 1)
    for leaf in GRAPHS:
        assert [file.name for file in (out / leaf / "2").iterdir()] == ["model.plan"]
        entry = manifest.leaves[leaf]
        assert entry.plan
        assert entry.plan.builder == f"tensorrt_rtx {trt.__version__} for SM89"
        assert entry.plan.parity == "not run"
        assert entry.parity
    plan = manifest.leaves["detect"].plan
    assert plan
    assert plan.tensors["CANVAS"]["shapes"][0] == [1, 448, 448, 3]
    assert manifest.is_complete(out)
    build(request, out, 2, say=lines.append, stage=True)
    assert any("nothing to do" in line for line in lines)
    (out / "detect" / "2" / "model.plan").write_bytes(b"damaged")
    assert not manifest.is_complete(out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_tensorrt_or_a_gpu_one_line_says_where_to_go(
    tmp_path: Path, request_arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MachineError, match=r"nvcr\.io/nvidia/tensorrt") as caught:
        require_gpu()
    assert "PyTorch sees none" in str(caught.value)
    with pytest.raises(MachineError, match="python -m export --format tensorrt"):
        find_compiler()
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in request_arguments.items()]
    out = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository", out, ignore=shutil.ignore_patterns("model.onnx", "model.plan"))
    before = sorted(out.rglob("*"))
    assert main([*arguments, "--format=tensorrt", f"--out={out}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("export: plans ")
    assert error.count("\n") == 1
    assert sorted(out.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_plan_for_another_machine_is_refused_in_one_line(ahead: Compiler) -> None:
    plan = compile_graph(model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)"), "encode_text", SPEC, LIMITS, ahead)
    with pytest.raises(PlanError, match="encode_text: the plan does not load") as caught:
        Engine(trt, "encode_text", SPEC, plan)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["s", "m", "l", "x"])
def test_full_size_detectors_are_built(ahead: Compiler, scale: str) -> None:
    detector = load_detector(resolve_detector(f"yolo-world-{scale}", random=True))
    prompt, mask = torch.nn.functional.normalize(torch.randn(8, 1, 512), dim=-1), torch.ones(8, 1, dtype=torch.int32)
    compile_leaves([detect_leaf(detector, [example_photos(768)], prompt, mask)], Limits(), ahead)
