"""What is given to `make` reaches `python -m export`, and nothing else does: the defaults live there alone."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from export.__main__ import parser

ROOT = Path(__file__).resolve().parents[1]


def models_command(*variables: str, target: str = "models") -> list[str]:
    """The arguments that `make models` would give, with everything taken as installed."""
    make = ["make", "--dry-run", "--assume-old=.venv/.dev", target, *variables]
    # Not the environment of the make that may run these tests: it would say which folder it enters.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(make, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout)
    return words[words.index("export") + 1 :]


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


def test_engines_are_plans_whatever_format_is_given() -> None:
    command = models_command("DETECTOR=yolo-world-s", "FORMAT=onnx", "MODELS=/models", target="engines")
    parsed = parser().parse_args(command)
    assert (parsed.format, parsed.detector, parsed.out) == ("tensorrt", "yolo-world-s", Path("/models"))
