"""Grounding DINO from a folder to verified graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from export import examples, repository
from export.__main__ import main
from export.build import example_photos, export_leaf, load_prompt_encoder, make_request, plan_detect_phrase
from export.errors import SourceError, UsageError
from export.graph import check_contract
from export.phrases import LONGEST, character_tokenizer
from export.sources import load_detector, load_encoder, resolve_detector
from export.specs import LEAVES
from tests.export.dino import SIDE, make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "dino"
    make_model(encoder_layers=1).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_gives_the_weights_and_the_tokenizer(folder):
    source = resolve_detector("grounding-dino-tiny", str(folder))
    loaded = load_detector(source, SIDE)
    assert loaded.side == SIDE
    saved = make_model(encoder_layers=1).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.tokenizer("a mug.")["input_ids"] == character_tokenizer()("a mug.")["input_ids"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(source.describe()["files"])
    with pytest.raises(UsageError, match="multiple of 32"):
        load_detector(source, 100)


@pytest.mark.parametrize("damage", ["cut", "another model"])
def test_a_damaged_folder(tmp_path, damage):
    model = make_model(encoder_layers=1)
    (model.model.text_backbone if damage == "another model" else model).save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    if damage == "cut":
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match="cannot be loaded" if damage == "cut" else "holds a bert") as caught:
        load_detector(resolve_detector("grounding-dino-tiny", str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_both_graphs_pass_the_gate(folder, encoder_folder, tmp_path):
    """Batches of 1, 3 and 7 with prompts of other lengths, an empty one among them: see ``gate.verify``."""
    request = make_request("grounding-dino-tiny", str(encoder_folder), threshold=0.2, detector_weights=str(folder))
    detector = load_detector(request.detector, SIDE)
    prompts = load_prompt_encoder(request, detector, load_encoder(request.encoder))
    tokens = prompts.tokenizer(examples.TEXTS[: examples.ROWS])
    with torch.no_grad():
        prompt, mask = prompts.module.eval()(tokens)
    assert len(set(mask.sum(dim=1).tolist())) > 4
    leaf = plan_detect_phrase(detector, example_photos(128), prompt, mask)
    entry, symbols = export_leaf(leaf, request.describe(), tmp_path / "detect")
    assert symbols == {"L": LONGEST, "C": 64}
    assert entry["parity"]["logits_relative_max"] < 1e-4
    graph = onnx.load(tmp_path / "detect" / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    check_contract(graph, LEAVES["detect"])
    assert "GridSample" not in {node.op_type for node in graph.graph.node}


@pytest.mark.slow
def test_the_true_size(tmp_path):
    arguments = ["--detector", "grounding-dino-tiny", "--encoder", "mini", "--random-weights", "--out", str(tmp_path)]
    assert main(arguments) == 0
    manifest = repository.read_manifest(tmp_path / "manifest-1.json")
    assert manifest is not None
    assert repository.is_complete(tmp_path, manifest)
    assert manifest["symbols"]["detect"] == {"L": LONGEST, "C": 256}
    assert manifest["leaves"]["detect"]["parity"]["logits_relative_max"] < 1e-3
