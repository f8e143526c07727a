"""TensorRT takes every graph: built ahead of time with tensorrt_rtx, on a machine without a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch
from onnx import parser

from export import repository
from export.__main__ import main
from export.build import build, example_photos, make_request, plan_detect, plan_encoders, plan_pixels
from export.errors import MachineError, PlanError, UsageError
from export.graph import export_graph
from export.repository import put_in_place, staging
from export.sources import load_detector, load_encoder, resolve_detector, resolve_encoder
from export.specs import CANVAS, EMBEDDING, LEAVES, TOKENS, ModelSpec
from export.tensorrt import Compiler, Engine, Limits, compile_graph, find_compiler, limits_of, require_gpu

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: pip install tensorrt_rtx_cu13")

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(batch=(1, 4, 16), canvas=(64, 448, 768))
SPEC = ModelSpec((TOKENS,), (EMBEDDING,))


@pytest.fixture
def ahead(tmp_path: Path) -> Compiler:
    return Compiler(trt, "SM89", tmp_path / "timings")


def side(*shape: int) -> list[list[int]]:
    """The shapes of a profile: the batch in front, and -1 for the canvas's side."""
    return [
        [batch, *(canvas if size == -1 else size for size in shape)]
        for batch, canvas in zip(LIMITS.batch, LIMITS.canvas, strict=True)
    ]


TENSORS = {
    "encode_prompt": {
        "TOKENS": ("INT64", side(16)),
        "PROMPT": ("FLOAT", None),
        "PROMPT_MASK": ("INT32", None),
    },
    "detect": {
        "CANVAS": ("UINT8", side(-1, -1, 3)),
        "SIZE": ("INT32", side(4)),
        "PROMPT": ("FLOAT", side(1, 512)),
        "PROMPT_MASK": ("INT32", side(1)),
        "CANVAS_BOX": ("FLOAT", None),
        "SCORE": ("FLOAT", None),
    },
    "crop": {
        "CANVAS": ("UINT8", side(-1, -1, 3)),
        "SIZE": ("INT32", side(4)),
        "DECODED": ("INT32", side(1)),
        "CANVAS_BOX": ("FLOAT", side(4)),
        "SCORE": ("FLOAT", side(1)),
        "PIXELS": ("FLOAT", None),
        "BOX": ("FLOAT", None),
        "STATUS": ("INT32", None),
    },
    "fit": {
        "CANVAS": ("UINT8", side(-1, -1, 3)),
        "SIZE": ("INT32", side(4)),
        "DECODED": ("INT32", side(1)),
        "PIXELS": ("FLOAT", None),
        "STATUS": ("INT32", None),
    },
    "encode_image": {
        "PIXELS": ("FLOAT", side(3, 64, 64)),
        "STATUS": ("INT32", side(1)),
        "EMBEDDING": ("FLOAT", None),
    },
    "encode_text": {"TOKENS": ("INT64", side(16)), "EMBEDDING": ("FLOAT", None)},
}


@pytest.mark.parametrize("leaf", TENSORS)
def test_every_graph_is_built_and_keeps_the_contract(exported, ahead, leaf):
    graph = (exported / leaf / "1" / "model.onnx").read_bytes()
    plan = compile_graph(graph, leaf, LEAVES[leaf], LIMITS, ahead)
    assert {name: (entry["dtype"], entry.get("shapes")) for name, entry in plan.tensors.items()} == TENSORS[leaf]
    assert len(plan.content) > 10_000
    assert plan.layers["FLOAT"] > 10
    assert "HALF" not in plan.layers, "FP16 is only how weights are stored"


@pytest.mark.parametrize("leaf", TENSORS)
def test_no_graph_has_a_grid_sample(exported, leaf):
    """TensorRT 10.14 and 11.1 compile deformable attention through GridSample wrongly."""
    model = onnx.load(exported / leaf / "1" / "model.onnx")
    assert "GridSample" not in {node.op_type for node in model.graph.node}


def model(signature: str, body: str) -> bytes:
    text = f'<ir_version: 9, opset_import: ["" : 18, "ours" : 1]> g {signature} {{ {body} }}'
    return parser.parse_model(text).SerializeToString()


TEXT = "(int64[batch,4] TOKENS) => (float[batch,4] EMBEDDING)"
PICTURE = "(uint8[batch,S,S,3] CANVAS) => (float[batch,3,S,S] EMBEDDING)"
REFUSED = {
    "an empty file": (b"", "it is empty"),
    "no ONNX": (b"junk" * 100, "parse the ONNX model"),
    "half a file": (model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)")[:-20], "encode_text: .* refuses the graph"),
    "an unknown operator": (
        model(TEXT, "a = Cast<to=1>(TOKENS) EMBEDDING = ours.Frobnicate(a)"),
        "Frobnicate",
    ),
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
def test_refused_in_one_line(ahead, graph, message):
    with pytest.raises(PlanError, match=message) as caught:
        compile_graph(graph, "encode_text", SPEC, LIMITS, ahead)
    assert "\n" not in str(caught.value)


def test_a_canvas_must_be_cast_before_anything_else(ahead):
    """Why ``resample`` casts first."""
    spec = ModelSpec((CANVAS,), (EMBEDDING,))
    first = model(PICTURE, "a = Cast<to=1>(CANVAS) EMBEDDING = Transpose<perm=[0,3,1,2]>(a)")
    assert compile_graph(first, "fit", spec, LIMITS, ahead).content
    last = model(PICTURE, "a = Transpose<perm=[0,3,1,2]>(CANVAS) EMBEDDING = Cast<to=1>(a)")
    with pytest.raises(PlanError, match=r"Transpose.*UInt8") as caught:
        compile_graph(last, "fit", spec, LIMITS, ahead)
    assert "cudaError" not in str(caught.value)


def test_layers_have_the_dtypes_of_the_graph(ahead):
    graph = model(TEXT, "a = Cast<to=10>(TOKENS) b = Mul(a, a) EMBEDDING = Cast<to=1>(b)")
    plan = compile_graph(graph, "encode_text", SPEC, LIMITS, ahead)
    assert plan.layers == {"FLOAT": 1, "HALF": 2}


def test_progress_is_told_and_an_interrupt_ends_the_build(ahead):
    graph = model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)")
    lines: list[str] = []
    compile_graph(graph, "encode_text", SPEC, LIMITS, ahead, lines.append, seconds=0.0)
    assert any("Building engine: 1 of" in line for line in lines)

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_graph(graph, "encode_text", SPEC, LIMITS, ahead, interrupt, seconds=0.0)


def test_timings_are_kept_one_file_a_version_and_a_damaged_one_is_replaced(tmp_path):
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


@pytest.mark.parametrize("leaf", TENSORS)
def test_the_limits_are_those_of_the_configs(leaf):
    assert limits_of(ROOT / "model_repository", leaf, 640) == Limits(batch=(1, 8, 64), canvas=(448, 768, 768))


def test_limits_of_other_configs(tmp_path):
    assert limits_of(tmp_path, "detect", 256) == Limits(canvas=(256, 768, 768))
    for leaf, text in {
        "detect": "max_batch_size: 4",
        "decode": 'parameters { key: "canvases" value: { string_value: "320 1024" } }',
    }.items():
        (tmp_path / leaf).mkdir()
        (tmp_path / leaf / "config.pbtxt").write_text(text)
    assert limits_of(tmp_path, "detect", 640) == Limits(batch=(1, 4, 4), canvas=(320, 1024, 1024))
    (tmp_path / "detect" / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(UsageError, match=r"detect/config\.pbtxt cannot be read") as caught:
        limits_of(tmp_path, "detect", 640)
    assert "\n" not in str(caught.value)


def test_export_to_plans(tmp_path, request_arguments, ahead):
    """From weights to plans in place of graphs; the second run does nothing."""
    out, lines = tmp_path / "model_repository", []
    (out / "detect" / "1").mkdir(parents=True)
    (out / "detect" / "1" / "model.onnx").write_bytes(b"an older export")
    request = make_request(**request_arguments, format="tensorrt")
    manifest = build(request, out, say=lines.append, compiler=ahead)
    for leaf in TENSORS:
        assert [file.name for file in (out / leaf / "1").iterdir()] == ["model.plan"]
        entry = manifest["leaves"][leaf]
        assert entry["plan"]["builder"] == f"tensorrt_rtx {trt.__version__} for SM89"
        assert entry["plan"]["parity"] == "not run"
        assert entry["parity"]
    assert manifest["leaves"]["detect"]["plan"]["tensors"]["CANVAS"]["shapes"][0] == [1, 256, 256, 3]
    assert repository.is_complete(out, manifest)
    build(request, out, say=lines.append)
    assert "nothing to do" in lines[-1]
    (out / "detect" / "1" / "model.plan").write_bytes(b"damaged")
    assert not repository.is_complete(out, manifest)


def test_a_graph_replaces_a_plan_and_leaves_the_code(tmp_path):
    for before, after in (("model.plan", "model.onnx"), ("model.onnx", "model.plan")):
        home = tmp_path / before / "detect" / "1"
        home.mkdir(parents=True)
        (home / before).write_text("old")
        (home / "notes.txt").write_text("kept")
        with staging(tmp_path / before) as staged:
            (staged / "detect").mkdir()
            (staged / "detect" / after).write_text("new")
            put_in_place(staged, tmp_path / before, 1, {"detect": {}}, b"{}")
        assert {file.name: file.read_text() for file in home.iterdir()} == {after: "new", "notes.txt": "kept"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_tensorrt_or_a_gpu_one_line_says_where_to_go(tmp_path, request_arguments, capsys):
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
def test_a_plan_for_another_machine_is_refused_in_one_line(ahead):
    plan = compile_graph(model(TEXT, "EMBEDDING = Cast<to=1>(TOKENS)"), "encode_text", SPEC, LIMITS, ahead)
    with pytest.raises(PlanError, match="encode_text: the plan does not load") as caught:
        Engine(trt, "encode_text", SPEC, plan.content)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_full_size(ahead):
    """The production default, ViT-B-32 and YOLO-World-S, with random weights."""
    encoder = load_encoder(resolve_encoder("ViT-B-32", random=True))
    detector = load_detector(resolve_detector("yolo-world-s", random=True))
    photos = example_photos(640)
    prompt, mask = torch.nn.functional.normalize(torch.randn(8, 1, 512), dim=-1), torch.ones(8, 1, dtype=torch.int32)
    settings = make_request("yolo-world-s", "ViT-B-32", threshold=0.2, random_weights=True).settings
    leaves = [
        plan_detect(detector, photos, prompt, mask),
        *plan_pixels(settings, encoder, photos),
        *plan_encoders(encoder, photos),
    ]
    for leaf in leaves:
        graph = export_graph(leaf.module, list(leaf.inputs.values()), LEAVES[leaf.name]).SerializeToString()
        assert compile_graph(graph, leaf.name, LEAVES[leaf.name], Limits(), ahead).content
