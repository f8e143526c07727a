"""The check finds every kind of fault, in one line that names the model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from serving.paths import REPOSITORIES, ROOT
from serving.repository.check import find_problems, find_unlike_graphs, find_unlike_tensors
from serving.repository.profiles import profile_names, read_config
from tests import toys

MODELS, ENSEMBLES = REPOSITORIES


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Copies of our configs, which a test may change."""
    for repository in REPOSITORIES:
        for config in repository.glob("*/config.pbtxt"):
            target = tmp_path / config.relative_to(ROOT)
            target.parent.mkdir(parents=True)
            shutil.copy(config, target)
    return [tmp_path / repository.name for repository in REPOSITORIES]


@pytest.mark.parametrize("profile", [None, *profile_names()])
def test_our_profiles_fit(profile: str | None) -> None:
    assert find_problems(REPOSITORIES, profile) == []


CROP_BOX = '      output_map { key: "BOX" value: "BOX" }\n'


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("crop", "max_batch_size: 64", "max_batch_size", r"^crop: .*crop/config\.pbtxt is no model config: 2:1 : "),
        ("crop", "max_batch_size: 64", "max_batch_size: 64 gpus: 1", 'crop: .*has no field named "gpus"'),
        ("crop", "max_batch_size: 64", "", "crop: max_batch_size is not above 0"),
        ("crop", '"SCORE"', '"SCORES"', r"crop: input is .*SCORES FP32 \[1\], in .*SCORE FP32 \[1\]$"),
        ("crop", '"BOX" data_type: TYPE_FP32', '"BOX" data_type: TYPE_FP16', r"crop: output is .*BOX FP16 \[4\]"),
        ("crop", '"BOX" data_type: TYPE_FP32 dims: [ 4 ]', '"BOX" data_type: TYPE_FP32 dims: [ 5 ]', r"BOX FP32 \[5\]"),
        ("crop", "max_batch_size: 64", "max_batch_size: 8", "^ground: step crop: takes batches of 8, the pipeline"),
        ("ground", '"crop" model', '"cut" model', "ground: step cut: there is no such model"),
        ("ground", 'key: "SCORE" value: "SCORE" }\n      output', 'key: "S" value: "SCORE" }\n      output',
         "ground: step crop: the model takes no S$"),
        ("ground", 'output_map { key: "BOX"', 'output_map { key: "B"', "ground: step crop: the model gives no B$"),
        ("ground", '      input_map { key: "PROMPT_MASK" value: "PROMPT_MASK" }\n', "",
         "ground: step detect: nothing is given for its input PROMPT_MASK"),
        ("ground", 'input_map { key: "PROMPT" value: "PROMPT" }', 'input_map { key: "PROMPT" value: "PROMPTS" }',
         "ground: step detect: no step before it gives PROMPTS"),
        ("ground", 'input_map { key: "CANVAS" value: "CANVAS" }', 'input_map { key: "CANVAS" value: "SIZE" }',
         r"ground: step detect: takes CANVAS UINT8 \[-1, -1, 3\], is given SIZE INT32 \[4\]"),
        ("ground", 'input_map { key: "PROMPT" value: "PROMPT" }', 'input_map { key: "PROMPT" value: "PROMPT_MASK" }',
         r"ground: step detect: takes PROMPT FP32 \[-1, -1\], is given PROMPT_MASK INT32 \[-1\]"),
        ("ground", 'output_map { key: "BOX" value: "BOX" }', 'output_map { key: "BOX" value: "CANVAS_BOX" }',
         "ground: step crop: CANVAS_BOX is given twice"),
        ("ground", CROP_BOX, "", "ground: no step gives the output BOX"),
        ("ground", CROP_BOX, CROP_BOX + '      output_map { key: "PIXELS" value: "PIXELS" }\n',
         "ground: nothing uses PIXELS, and Triton refuses such a pipeline"),
        ("ground", CROP_BOX, '      output_map { key: "PIXELS" value: "BOX" }\n',
         r"ground: its output is BOX FP32 \[4\], the steps give BOX FP32 \[3, -1, -1\]"),
    ],
)  # fmt: skip
def test_fault_in_a_config_is_found(copies: list[Path], file: str, old: str, new: str, problem: str) -> None:
    (config,) = (repository / file / "config.pbtxt" for repository in copies if (repository / file).exists())
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert is_reported(find_problems(copies), problem)


def is_reported(problems: list[str], pattern: str) -> bool:
    """Whether one line matches."""
    return any(re.search(pattern, problem) and "\n" not in problem for problem in problems)


def test_model_of_two_repositories_is_found(copies: list[Path]) -> None:
    shutil.copytree(copies[0] / "crop", copies[1] / "crop")
    assert find_problems(copies) == ["crop: 2 folders have this name, and Triton would load none of them"]


def test_model_without_a_contract_and_contract_without_a_model_are_found(copies: list[Path]) -> None:
    (copies[0] / "enrich").rename(copies[0] / "enrichment")
    assert sorted(find_problems(copies)) == [
        "enrich: serving/repository/specs.py has it, the repositories do not",
        "enriched_text: step enrich: there is no such model",
        "enrichment: serving/repository/specs.py knows no such model",
    ]


@pytest.mark.parametrize(
    ("name", "model", "fragment", "problem"),
    [
        ("mine", "detector", "", r"^detector: .*detector\.pbtxt is for no model$"),
        ("mine", "crop", "max_batch_size: 65", "^crop: .*raises max_batch_size"),
        ("mine", "crop", "dynamic_batching { preferred_batch_size: 65 }", "^crop: prefers batches of 65, and takes 64"),
        ("mine", "crop", "max_batch_size: 32", "product_image: step crop: takes batches of 32, the pipeline of 64"),
        ("mine", "ground", "ensemble_scheduling { max_inflight_requests: 2 }", "^ground: .*does not know .*with ngc$"),
        ("mine", "decode", "dynamic_batching { default_queue_policy { max_queue_size: 2 } }", "^decode: .*can hang"),
        ("mine", "ground", 'ensemble_scheduling { step [ { model_name: "fit" } ] }', "^ground: step fit: nothing is"),
        ("ngc-mine", "tokenize_prompt", 'input [ { name: "DECODED" data_type: TYPE_INT32 dims: 1 } ]',
         "^ground: step tokenize_prompt: nothing is given for its input DECODED"),
    ],
)  # fmt: skip
def test_fault_in_a_profile_is_found(tmp_path: Path, name: str, model: str, fragment: str, problem: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{model}.pbtxt").write_text(fragment)
    assert is_reported(find_problems(REPOSITORIES, tmp_path / name), problem)


GRAPH = toys.GRAPHS["encode_image"]


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (GRAPH.replace("PIXELS", "PIXEL"), "takes no PIXELS"),
        (GRAPH.replace("PIXELS", "PIXEL"), "takes PIXEL, which the config does not have"),
        (GRAPH.replace("EMBEDDING", "EMBEDDINGS"), "gives no EMBEDDING"),
        (GRAPH.replace("[B,3,R,R]", "[B,4,R,R]"), r"takes PIXELS .*4.* the config PIXELS FP32 \[3, -1, -1\]"),
        (GRAPH.replace("[B,3,R,R]", "[8,3,R,R]").replace("[B", "[8"), "takes PIXELS only in batches of 8"),
        (GRAPH.replace("[B,3,R,R]", "[B,3,P]").replace("axes=[2,3]", "axes=[2]"), r"takes PIXELS .*'P'\], the config"),
        (
            GRAPH.replace("(float[B,D] EMB", "(double[B,D] EMB").replace("EMBEDDING = Mul(unit, keep)",
            "float = Mul(unit, keep) EMBEDDING = Cast<to=11>(float)"), r"gives EMBEDDING tensor\(double\)",
        ),
    ],
)  # fmt: skip
def test_graph_unlike_its_config_is_found(tmp_path: Path, graph: str, problem: str) -> None:
    onnx.save(toys.to_onnx("encode_image", graph), tmp_path / "model.onnx")
    found = list(find_unlike_tensors(tmp_path / "model.onnx", read_config(MODELS / "encode_image")))
    assert is_reported(found, problem)


def test_graphs_that_are_served_are_opened(tmp_path: Path) -> None:
    models = toys.build(MODELS, tmp_path / "models")
    assert is_reported(find_unlike_graphs([models, ENSEMBLES]), "holds no export: run `make models`")
    toys.place_version(models, 2)
    assert find_unlike_graphs([models, ENSEMBLES]) == []
    (models / "crop" / "2" / "model.onnx").write_bytes(b"broken")
    (models / "tokenize" / "2" / "tokenizer.json").unlink()
    crop, tokenize = sorted(find_unlike_graphs([models, ENSEMBLES]))
    assert "crop/2/model.onnx is no graph" in crop
    assert tokenize.endswith("tokenize/2/tokenizer.json is missing")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param("max_batch_size: 64", "max_batch_size: 64", None, id="whole"),
        pytest.param("max_batch_size: 64", "max_batch_size: 32", "ground: step crop: takes", id="a smaller batch"),
        pytest.param("max_batch_size: 64", "nonsense", "crop: ", id="no config"),
        pytest.param("TYPE_UINT8", "TYPE_FP16", "crop: input is ", id="a type that no graph has"),
    ],
)
def test_exit_code_says_whether_there_are_problems(tmp_path: Path, old: str, new: str, told: str | None) -> None:
    models = toys.build(MODELS, tmp_path / "models")
    toys.place_version(models, 1)
    config = models / "crop" / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    command = [sys.executable, "-m", "serving.repository.check", "--model-repository", str(models)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if told else 0), done.stderr
    assert not told or any(line.startswith(told) for line in done.stderr.splitlines()), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("Configs, pipelines and graphs fit, in embedded-cpu") == (not told)


def test_a_folder_without_models_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.repository.check", f"--model-repository={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: {tmp_path} holds no models: expected a folder with */config.pbtxt\n")
