"""`make` lists its targets and passes its variables on as options; the programs hold the defaults."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.load import parser as load_parser
from export.__main__ import parse as parse_export
from serving.paths import ROOT

OUT = ["--out", "model_repository"]
SERVED = ["--model-repository", "model_repository"]
PORTS = ["--http-port", "90", "--grpc-port", "$((90 + 1))", "--metrics-port", "$((90 + 2))"]
SERVE = [".venv/bin/python", "-m", "serving"]


def make(*arguments: str) -> str:
    # Without the variables of a make that runs these tests, which would add lines to the output.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def arguments(target: str, module: str, *variables: str) -> list[str]:
    """The arguments that `make` would give to a module if everything were installed."""
    installed = [f"--assume-old=.venv/.{extra}" for extra in ("demo", "bench", "dev")]
    words = shlex.split(make("--dry-run", *installed, target, *variables))
    return words[words.index(module) + 1 :]


def test_make_lists_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    expected = {*" ".join(targets).split()} - {"help", "install-mini"}
    assert {*re.findall(r"^  make ([a-z-]+) ", make(), re.MULTILINE)} == expected


@pytest.mark.parametrize(
    ("target", "module", "variables", "expected"),
    [
        ("models", "export", "", OUT),
        ("models", "export", "PRECISION=fp16", [*OUT, "--precision", "fp16"]),
        ("models", "export", "VERSION=2 STAGE=1", [*OUT, "--version", "2", "--stage"]),
        ("models", "export", "STAGE=0 FORCE=no VERSION= MODELS=", OUT),
        ("models", "export", "FORCE=1", [*OUT, "--force"]),
        ("gpu-check", "benchmarks.gpu_check", "", []),
        ("gpu-check", "benchmarks.gpu_check", "DEVICE=cpu MODELS=mine", ["--device", "cpu", "--models", "mine"]),
        ("canary", "benchmarks.canary", "VERSION=2", [*SERVED, "--version", "2"]),
        ("canary", "benchmarks.canary", "VERSION=2 PROMOTE=0", [*SERVED, "--version", "2"]),
        ("serve", "serving", "MODELS= PROFILE=", ["start", *SERVED]),
        ("canary", "benchmarks.canary", "MIN_OVERLAP=0.4 PROMOTE=1", [*SERVED, "--min-overlap", "0.4", "--promote"]),
        (
            "calibrate",
            "export",
            "PHOTOS=/tmp MAX_FALSE=0.1 STAGE=1",
            ["calibrate", *OUT, "--photos", "/tmp", "--max-false", "0.1", "--stage"],
        ),
        ("rollback", "export", "VERSION=1", ["use", *OUT, "--version", "1"]),
        ("load", "benchmarks.load", "", []),
        ("serve", "serving", "PROFILE=tuned", ["start", *SERVED, "--profile", "tuned"]),
        ("serve", "serving", "PORT=90", ["start", *SERVED, *PORTS]),
        ("serve", "export.install", "MODELS=typo", ["--if-missing", *SERVE, "start", "--model-repository", "typo"]),
    ],
)
def test_variables_become_options(target: str, module: str, variables: str, expected: list[str]) -> None:
    assert arguments(target, module, *variables.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rollback", "Name the version to serve: make rollback VERSION=1"),
        ("rollback VERSION=", "Name the version to serve: make rollback VERSION=1"),
        ("canary PROMOTE=1", "Name the version to compare: make canary VERSION=2"),
        ("calibrate PHOTOS=", "Name the folder of your photos: make calibrate PHOTOS=folder"),
    ],
)
def test_a_variable_that_is_needed_is_named(arguments: str, message: str) -> None:
    installed = [f"--assume-old=.venv/.{extra}" for extra in ("demo", "dev")]
    done = subprocess.run(["make", *installed, *arguments.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == message


def test_every_variable_of_an_export_is_an_option() -> None:
    given = {
        "detector": "yolo-world-s",
        "detector_weights": "two words.pt",
        "encoder": "ViT-B-32",
        "pretrained": "openai",
        "checkpoint": "tuned.pt",
        "activation": "gelu",
        "tokenizer": "folder",
        "format": "onnx",
        "threshold": 0.3,
        "version": 2,
    }
    variables = ["MODELS=/tmp/some models", *(f"{name.upper()}={value}" for name, value in given.items())]
    parsed = vars(parse_export(arguments("models", "export", *variables)))
    assert {name: parsed[name] for name in given} == given
    assert parsed["out"] == Path("/tmp/some models")


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


def test_engines_are_plans_whatever_format_is_given() -> None:
    command = arguments("engines", "export", "DETECTOR=yolo-world-s", "FORMAT=onnx", "MODELS=/models")
    parsed = parse_export(command)
    assert (parsed.format, parsed.detector, parsed.out) == ("tensorrt", "yolo-world-s", Path("/models"))
