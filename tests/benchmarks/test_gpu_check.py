"""The check of the GPU path: its guard, its comparisons and its plan; and, slowly, all of it on the CPU."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.compare import differences
from benchmarks.gpu_check.notes import Notes, read_notes
from benchmarks.gpu_check.report import Result
from serving.server.gpu import gpu_memories

WRITE = "import json, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(json.dumps({'half': 1})); "
OUTCOMES = {
    "passed": ("pass", "ok"),
    "failed": ("print('no CUDA'); sys.exit(3)", r"exit code 3: no CUDA \(see .*\.log\)"),
    "crashed": ("import os; os.abort()", "exit code -6: it printed nothing .*"),
    "hung": ("time.sleep(60)", "ended after 2 s: .*"),
}


def check_of(out: Path, seconds: float = 60.0) -> gpu_check.Check:
    return gpu_check.Check("cpu", out, time.monotonic() + seconds)


@pytest.mark.parametrize(("code", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
def test_whatever_a_step_does_its_figures_stay(tmp_path: Path, code: str, outcome: str) -> None:
    check, notes = check_of(tmp_path), tmp_path / "notes.json"
    passed = check.guard("step", "mini", [sys.executable, "-c", WRITE + code, str(notes)], 2.0, notes)
    (step,) = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert step["found"] == {"half": 1}
    assert re.fullmatch(outcome, step["outcome"])
    assert passed == (outcome == "ok")
    assert "| mini | step | half | 1 |" in (tmp_path / "gpu.md").read_text()


def test_when_the_time_is_used_up_nothing_is_started(tmp_path: Path) -> None:
    check = check_of(tmp_path, 0.0)
    assert not check.guard("step", "mini", ["/no/such/program"], 5.0)
    assert check.results[0].outcome == "not run: the time is used up"


def test_a_step_that_finds_a_difference_has_not_passed(tmp_path: Path) -> None:
    check = check_of(tmp_path)
    assert not check.record(Result("answers", "mini", "ok", 1.0, {"one by one": {"wrong": ["the cosine is 0.5"]}}))
    assert "| answers | mini | the cosine is 0.5 | 1 |" in (tmp_path / "gpu.md").read_text()


def test_notes_are_on_disk_after_every_change(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes.json")
    assert read_notes(tmp_path / "notes.json") == {}
    notes["a"] = 1
    assert read_notes(tmp_path / "notes.json") == {"a": 1}


def answers(**changed: Any) -> dict[str, np.ndarray]:
    """Four answers, of which ``changed`` replaces the last row."""
    rows = {
        "EMBEDDING": np.tile(np.array([[1.0, 0.0]], np.float32), (4, 1)),
        "BOX": np.tile(np.array([[0, 0, 10, 10]], np.float32), (4, 1)),
        "SCORE": np.full((4, 1), 0.5, np.float32),
        "STATUS": np.zeros((4, 1), np.int32),
    }
    for name, row in changed.items():
        rows[name][-1] = row
    return rows


DIFFERENCES = {
    "equal": ({}, []),
    "another embedding": ({"EMBEDDING": [0.9, 0.0]}, ["the smallest cosine is 0.90000, expected at least 0.999"]),
    "not a number": ({"EMBEDDING": np.nan}, ["the smallest cosine is nan, expected at least 0.999"]),
    "two boxes of one score": ({"BOX": [50, 50, 60, 60], "EMBEDDING": [0.0, 1.0]}, []),
    "another box": ({"BOX": [50, 50, 60, 60], "SCORE": 0.9}, ["1 photos have another box or status"]),
    "another status": ({"STATUS": 2, "SCORE": 0.0}, ["1 photos have another box or status"]),
}


@pytest.mark.parametrize(("changed", "wrong"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_counts_as_a_difference(changed: dict[str, Any], wrong: Sequence[str]) -> None:
    found = differences(answers(**changed), answers())["wrong"]
    assert [text[: len(start)] for text, start in zip(found, wrong, strict=True)] == list(wrong)


@dataclass
class Planned(gpu_check.Check):
    """Writes down what it would run on a GPU. ``fails`` are steps that fail."""

    backends: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    planned: list[str] = field(default_factory=list)

    def guard(self, name: str, model: str, command: Sequence[str], limit: float, notes: Path | None = None) -> bool:
        self.planned.append(f"{name} {model}".strip())
        found = {"its backends": list(self.backends)} if name == "machine" else {}
        self.results.append(Result(name, model, "ok", 0.0, found))
        return name not in self.fails

    @contextmanager
    def server(self, model: str, repository: Path, profile: str) -> Iterator[tuple[str, ...] | None]:
        yield None if "server" in self.fails else ("--url", "x")


MINI = ["export mini", "reference mini", "graphs mini"]
BASE = ["export base", "reference base", "graphs base", "chain base"]
SERVED = [f"{step} base, embedded-gpu" for step in ("answers", "speed", "memory", "dead process")]


@pytest.mark.parametrize(
    ("backends", "fails", "expected"),
    [
        pytest.param(
            (),
            (),
            [*MINI, "answers mini, embedded-gpu", *BASE, *SERVED, "parts base"],
            id="all",
        ),
        pytest.param((), ("server", "graphs"), [*MINI, *BASE, "parts base"], id="no server"),
        pytest.param((), ("export",), ["export mini", "export base"], id="no export"),
    ],
)
def test_the_next_step_runs_whatever_fails(
    tmp_path: Path, backends: tuple[str, ...], fails: tuple[str, ...], expected: list[str]
) -> None:
    check = Planned("cuda", tmp_path, time.monotonic() + 60, backends=backends, fails=fails)
    gpu_check.check_all(check, [])
    assert check.planned == ["machine", "photos", *expected]


def test_in_nvidias_container_its_profiles_are_checked_too(tmp_path: Path) -> None:
    check = Planned("cuda", tmp_path, time.monotonic() + 60, backends=("onnxruntime", "tensorrt"))
    gpu_check.check_all(check, [])
    assert check.planned[-5:] == [
        *(f"{step} base, ngc-onnxruntime-cuda" for step in ("answers", "speed")),
        "export base",
        *(f"{step} base, ngc-tensorrt" for step in ("answers", "speed")),
    ]


@pytest.mark.skipif(gpu_memories() != [], reason="there is a GPU")
def test_without_a_gpu_the_message_names_the_other_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_check.main([])
    assert "no NVIDIA GPU (`nvidia-smi` shows it): use --device cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_everything_but_cuda_passes_on_the_cpu(tmp_path: Path) -> None:
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)]) == 0
    steps = {step["name"]: step for step in json.loads((tmp_path / "gpu.json").read_text())["steps"]}
    names = "machine photos install reference graphs chain parts server answers speed memory"
    assert set(steps) == {*names.split(), "dead process"}
    assert steps["answers"]["found"]["one by one"]["cosine_min"] >= 0.999
    assert steps["dead process"]["found"]["outcomes"]["ok"] > 0
