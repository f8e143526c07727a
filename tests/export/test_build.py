"""From weights to a model repository, all or nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from export import gate
from export.__main__ import main
from export.build import build, load_prompt_encoder, make_request
from export.errors import ExportError, SourceError, UsageError
from export.examples import SIZES_WH, TEXTS, canvases, pictures
from export.graph import check_contract
from export.leaves import detect_leaf, example_photos, leaves_of
from export.load_detector import load_detector
from export.load_encoder import load_encoder
from export.place import put_in_place, staging
from export.reference import Reference
from export.sources import resolve_detector
from serving.repository.manifest import ARTEFACTS, Manifest, require_version
from serving.repository.specs import CANVASES, LEAVES, Status
from serving.repository.versions import version_of, words_of
from tests.export.test_place import served_version

GRAPHS = ["encode_prompt", "detect", "crop", "fit", "encode_image", "encode_text"]


@dataclass(frozen=True)
class Served:
    """The artefacts of a repository, run as the server would."""

    root: Path

    def run(self, leaf: str, *inputs: np.ndarray) -> list[np.ndarray]:
        path = self.root / leaf / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in LEAVES[leaf].inputs]
        results: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
        return results

    def tokens(self, leaf: str, texts: list[str]) -> np.ndarray:
        tokenizer = Tokenizer.from_file(str(self.root / leaf / "1" / "tokenizer.json"))
        return np.array([encoding.ids for encoding in tokenizer.encode_batch(texts)], np.int64)


@pytest.mark.parametrize("leaf", GRAPHS)
def test_graphs_keep_the_contract_and_say_where_they_come_from(exported: Path, leaf: str) -> None:
    model = onnx.load(exported / leaf / "1" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    check_contract(model, LEAVES[leaf])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["leaf"] == leaf
    assert json.loads(metadata["parity"])
    assert model.opset_import[0].version == 18
    assert str(Path.cwd()).encode() not in model.SerializeToString()
    # TensorRT 10.14 and 11.1 compile deformable attention through GridSample wrongly.
    assert "GridSample" not in {node.op_type for node in model.graph.node}


def test_manifest(exported: Path, encoder_folder: Path) -> None:
    manifest = Manifest.read(exported / "manifest-1.json")
    assert manifest is not None
    assert manifest.is_complete(exported)
    assert set(manifest.leaves) == set(ARTEFACTS)
    assert manifest.leaves["encode_image"].parity["cosine_min"] > 0.999999
    assert manifest.leaves["detect"].parity["score_difference_max"] < 1e-5
    assert manifest.symbols["encode_image"] == {"R": 64, "D": 512}
    files = manifest.request.encoder["files"]
    assert isinstance(files, dict)
    assert "open_clip_model.safetensors" in files


def test_the_chain_equals_the_reference(exported: Path, encoder_folder: Path) -> None:
    """Photo and product type in, embedding out; against PIL, open_clip and PyTorch for the box that came back."""
    served = Served(exported)
    images = pictures()
    canvas, size, _ = canvases(images, 640)
    decoded = np.zeros((len(images), 1), np.int32)
    prompt, mask = served.run("encode_prompt", served.tokens("tokenize_prompt", TEXTS[: len(images)]))
    canvas_box, score = served.run("detect", canvas, size, prompt, mask)
    pixels, box, status, _ = served.run("crop", canvas, size, decoded, canvas_box, score)
    embedding, *_ = served.run("encode_image", pixels, status)

    reference = Reference(str(encoder_folder))
    expected = reference.embed(images, list(box))
    assert gate.cosines(embedding, expected).min() > 0.999
    assert status[1] == 1
    assert score[1] == 0.0
    assert box[1].tolist() == [0.0, 0.0, *SIZES_WH[1]]

    fitted, status = served.run("fit", canvas, size, decoded)
    plain, *_ = served.run("encode_image", fitted, status)
    assert status.tolist() == [[Status.WHOLE_IMAGE]] * len(images)
    assert gate.cosines(plain, reference.embed(images)).min() > 0.999

    texts, version = served.run("encode_text", served.tokens("tokenize", TEXTS))
    assert gate.cosines(texts, reference.embed_texts(TEXTS)).min() > 0.99999
    assert version.tolist() == [[*words_of(version_of("product_text", require_version(exported, 1).digests))]] * len(
        TEXTS
    )


def test_a_batch_of_32_equals_single_rows(exported: Path) -> None:
    served = Served(exported)
    images = (pictures() * 5)[:32]
    canvas, size, _ = canvases(images, 256)
    prompt, mask = served.run("encode_prompt", served.tokens("tokenize_prompt", (TEXTS * 4)[:32]))
    _, scores = served.run("detect", canvas, size, prompt, mask)
    for row in (0, 13, 31):
        one = slice(row, row + 1)
        _, score = served.run("detect", canvas[one], size[one], prompt[one], mask[one])
        assert score[0, 0] == pytest.approx(scores[row, 0], abs=1e-5)


def test_a_second_run_does_nothing(exported: Path, request_arguments: dict[str, Any]) -> None:
    lines: list[str] = []
    before = (exported / "detect" / "1" / "model.onnx").stat().st_mtime_ns
    build(make_request(**request_arguments), exported, say=lines.append)
    assert len(lines) == 1
    assert "nothing to do" in lines[0]
    assert (exported / "detect" / "1" / "model.onnx").stat().st_mtime_ns == before


def test_what_is_staged_is_served_once_it_is_exported_without(
    exported: Path, request_arguments: dict[str, Any], tmp_path: Path
) -> None:
    out, lines = shutil.copytree(exported, tmp_path / "model_repository", symlinks=True), list[str]()
    manifest = replace(require_version(out, 1), version=2)
    with staging(out) as staged:
        for leaf in manifest.leaves:
            shutil.copytree(out / leaf / "1", staged / leaf, ignore=shutil.ignore_patterns("*.py"))
        put_in_place(staged, out, manifest, serve=False)
    request = make_request(**request_arguments)
    build(request, out, version=2, say=lines.append, stage=True)
    assert "nothing to do" in lines[0]
    assert lines[1] == f"{out} still serves version 1. Next:"
    assert lines[-2] == f"  python -m export use --out {out} --version 2"
    assert served_version(out) == 1
    build(request, out, version=2, say=lines.append)
    assert "now the one that is served" in lines[-1]
    assert served_version(out) == 2


def test_the_gate_uses_the_canvases_that_are_served(request_arguments: dict[str, Any]) -> None:
    request = make_request(**request_arguments)
    detector, encoder = load_detector(request.detector), load_encoder(request.encoder)
    leaves = leaves_of(request.settings, detector, encoder, load_prompt_encoder(request, detector, encoder))
    inputs = {leaf.name: [case.inputs for case in leaf.cases] for leaf in leaves}
    for leaf in ("detect", "crop", "fit"):
        assert [case["CANVAS"].shape[1] for case in inputs[leaf]] == [*CANVASES]


def test_a_detector_of_another_width_is_refused(detector_file: Path) -> None:
    loaded = load_detector(resolve_detector(str(detector_file)))
    prompt, mask = torch.zeros(8, 1, 640), torch.ones(8, 1, dtype=torch.int32)
    with pytest.raises(UsageError, match="--prompt-encoder"):
        detect_leaf(loaded, [example_photos(64)], prompt, mask)


REFUSED = {
    "unknown detector": ({"detector": "yolo-wrld-s"}, UsageError, "did you mean 'yolo-world-s'"),
    "unknown encoder": ({"encoder": "ViT-B32"}, UsageError, "did you mean 'ViT-B-32'"),
    "unknown tag": ({"encoder": "ViT-B-32", "pretrained": "openia"}, UsageError, "did you mean 'openai'"),
    "no tag": ({"encoder": "ViT-B-16"}, UsageError, "--pretrained TAG"),
    "missing detector file": ({"detector": "nowhere/best.pt"}, SourceError, "no such file: nowhere"),
    "missing encoder folder": ({"encoder": "nowhere/clip"}, SourceError, "no such file: nowhere"),
    "missing checkpoint": ({"encoder": "ViT-B-32", "checkpoint": "nowhere.pt"}, SourceError, "nowhere.pt"),
    "threshold": ({"threshold": 1.5}, UsageError, "between 0 and 1"),
    "no published weights": ({"detector": "yolo-world-n"}, UsageError, "--detector-weights"),
    "a prompt encoder too many": ({"detector": "grounding-dino-tiny"}, UsageError, "leave out --prompt-encoder"),
    "another grounding dino": ({"detector": "grounding-dino-tny"}, UsageError, "did you mean 'grounding-dino-tiny'"),
    "missing detector folder": (
        {"detector": "grounding-dino-tiny", "detector_weights": "nowhere/dino"},
        SourceError,
        r"no such file: nowhere/dino/config\.json",
    ),
}


@pytest.mark.parametrize(("changed", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_impossible_requests_are_refused_before_loading(
    request_arguments: dict[str, Any], changed: dict[str, Any], kind: type[ExportError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        make_request(**{**request_arguments, **changed})
    assert "\n" not in str(caught.value)


def test_show(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--out", str(exported)]) == 0
    shown = capsys.readouterr().out
    assert "320 px" in shown
    assert all(leaf in shown for leaf in ARTEFACTS)
    assert main(["show", "--out", str(exported / "nothing")]) == 0
