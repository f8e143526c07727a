"""What is given to `make` reaches the programs that it calls, and nothing else does: the defaults live there alone."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from benchmarks.load import parser as load_parser
from export.__main__ import parser

ROOT = Path(__file__).resolve().parents[1]


def arguments(target: str, module: str, *variables: str) -> list[str]:
    """Those that `make` would give to a module, with everything taken as installed."""
    installed = [f"--assume-old=.venv/.{extra}" for extra in ("demo", "bench", "dev")]
    make = ["make", "--dry-run", *installed, target, *variables]
    # Not the environment of the make that may run these tests: it would say which folder it enters.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(make, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout)
    return words[words.index(module) + 1 :]


def models_command(*variables: str) -> list[str]:
    return arguments("models", "export", *variables)


def test_only_what_is_set_is_passed_on() -> None:
    assert models_command() == ["--out", "model_repository"]


def test_every_variable_is_an_option() -> None:
    given = {
        "detector": "yolo-world-s",
        "detector_weights": "two words.pt",
        "encoder": "ViT-B-32",
        "pretrained": "openai",
        "checkpoint": "tuned.pt",
        "tokenizer": "folder",
        "format": "onnx",
        "threshold": 0.3,
        "canvas": 512,
        "version": 2,
    }
    command = models_command("MODELS=/tmp/some models", *(f"{name.upper()}={value}" for name, value in given.items()))
    parsed = vars(parser().parse_args(command))
    assert {name: parsed[name] for name in given} == given
    assert parsed["out"] == Path("/tmp/some models")


def test_precision_is_passed_on() -> None:
    assert models_command("PRECISION=fp16")[2:] == ["--precision", "fp16"]


def test_a_rollout_in_one_repository() -> None:
    staged = parser().parse_args(models_command("VERSION=2", "STAGE=1"))
    assert (staged.version, staged.stage) == (2, True)
    assert not parser().parse_args(models_command("VERSION=2")).stage
    command = ["--model-repository", "model_repository", "--version", "2"]
    assert arguments("canary", "benchmarks.canary", "VERSION=2") == command
    promoted = arguments("canary", "benchmarks.canary", "VERSION=2", "PROMOTE=1", "MIN_OVERLAP=0.4")
    assert promoted == [*command, "--min-overlap", "0.4", "--promote"]
    assert arguments("rollback", "export", "VERSION=1") == ["use", "--out", "model_repository", "--version", "1"]


def test_every_variable_of_a_load_test_is_an_option(tmp_path: Path) -> None:
    photos = tmp_path / "some photos"
    photos.mkdir()
    given = {
        "target": "somewhere:8001",
        "metrics": "http://somewhere:8002/metrics",
        "rate": 40.0,
        "users": 8,
        "duration": 60.0,
        "shape": "spike",
        "slo": ["p99=50ms error-rate=0.1%"],
        "mix": "product_text=1",
        "photos": str(photos),
    }
    values = {**given, "slo": "p99=50ms error-rate=0.1%"}
    command = arguments("load", "benchmarks.load", *(f"{name.upper()}={value}" for name, value in values.items()))
    parsed = vars(load_parser().parse_args(command))
    assert {name: parsed[name] for name in given} == given
    assert arguments("load", "benchmarks.load") == []


def test_engines_are_plans_whatever_format_is_given() -> None:
    command = arguments("engines", "export", "DETECTOR=yolo-world-s", "FORMAT=onnx", "MODELS=/models")
    parsed = parser().parse_args(command)
    assert (parsed.format, parsed.detector, parsed.out) == ("tensorrt", "yolo-world-s", Path("/models"))
