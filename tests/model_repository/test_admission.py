"""How long `admission` expects a request to wait, from what Triton's metrics say."""

from __future__ import annotations

import importlib.util
import sys
import time

import pytest

from deploy.serve import ROOT
from export.specs import PIPELINES
from tests.model_repository.test_configs import MODELS, read

NOWHERE = "127.0.0.1:1"

spec = importlib.util.spec_from_file_location("admission", MODELS / "decode" / "1" / "admission.py")
assert spec
assert spec.loader
admission = importlib.util.module_from_spec(spec)
sys.modules["admission"] = admission
spec.loader.exec_module(admission)


def metrics(**models: tuple[int, ...]) -> str:
    """As Triton writes them: pending requests, finished items and, if they were not single, batches of each model."""
    lines = ["# TYPE nv_inference_count counter"]
    for model, (pending, finished, *batches) in models.items():
        lines.append(f'nv_inference_exec_count{{model="{model}",version="1"}} {(batches or [finished])[0]}')
        lines.append(f'nv_inference_count{{model="{model}",version="1"}} {finished}')
        lines.append(f'nv_inference_pending_request_count{{gpu_uuid="GPU-1",model="{model}",version="1"}} {pending}')
    return "\n".join(lines) + "\n"


def make(*models: str) -> admission.Admission:  # type: ignore[name-defined]
    return admission.Admission(0.5, {name: admission.Model() for name in models}, NOWHERE)


def seen(*readings: str, models: tuple[str, ...] = ("detect",), apart: float = 0.1) -> admission.Admission:  # type: ignore[name-defined]
    one, now = make(*models), time.monotonic()
    for i, reading in enumerate(readings):
        one.see(reading, now - apart * (len(readings) - 1 - i))
    return one


def test_without_metrics_everything_is_accepted() -> None:
    one = make("detect")
    assert [one.refusal(64) for _ in range(50)] == [None] * 50


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([metrics(detect=(0, 0))], 0.0),
        ([metrics(detect=(0, 0)), metrics(detect=(0, 10))], 0.0),
        ([metrics(detect=(9, 0)), metrics(detect=(5, 4))], (5 + 1) * 0.1 / 4),
        ([metrics(detect=(9, 0, 0)), metrics(detect=(5, 40, 2))], (5 + 20) * 0.1 / 40),
        ([metrics(detect=(9, 0)), metrics(detect=(5, 0))], 5 * 0.1),
        ([metrics(detect=(9, 0)), metrics(detect=(0, 4)), metrics(detect=(5, 9))], (5 + 1) * 0.1 / 4),
        ([metrics(detect=(9, 50)), metrics(detect=(5, 0))], 5 * 0.1),
    ],
    ids=[
        "at first",
        "idle",
        "busy",
        "busy with a batch",
        "nothing finished yet",
        "speed is measured while busy",
        "after a restart",
    ],
)
def test_wait_is_what_is_pending_times_what_it_takes(readings: list[str], expected: float) -> None:
    assert seen(*readings).wait() == pytest.approx(expected)


def test_models_ahead_add_up_and_others_do_not_count() -> None:
    readings = [metrics(detect=(9, 0), crop=(9, 0), enrich=(9, 0)), metrics(detect=(5, 4), crop=(1, 10), enrich=(9, 1))]
    assert seen(*readings, models=("detect", "crop")).wait() == pytest.approx(6 * 0.1 / 4 + 2 * 0.1 / 10)


def test_batches_wait_longer_than_single_items() -> None:
    one = seen(metrics(detect=(9, 0)), metrics(detect=(2, 100)))
    for size in (1, 1, 30, 34):
        one._sizes.append(size)
    assert one.wait() == pytest.approx((64 + 1) * 0.1 / 100)


def test_what_was_accepted_since_the_metrics_counts_too() -> None:
    one = seen(metrics(detect=(9, 0)), metrics(detect=(1, 10)))
    refusals = [one.refusal(1) for _ in range(60)]
    accepted = refusals.index(next(filter(None, refusals)))
    assert 47 <= accepted <= 50
    assert refusals[accepted] == "overloaded: 0.5 s of work are waiting, 0.5 s at most: try again later"


def test_a_wrong_speed_does_not_shut_the_door() -> None:
    one = seen(metrics(detect=(9, 0)), metrics(detect=(0, 0)), apart=0.9)
    assert [one.refusal(1) is None for _ in range(6)] == [True] * 4 + [False] * 2


def test_old_metrics_say_nothing() -> None:
    one, long_ago = make("detect"), time.monotonic() - 10
    one.see(metrics(detect=(99, 0)), long_ago - 0.1)
    one.see(metrics(detect=(99, 1)), long_ago)
    assert one.wait() == 0


@pytest.mark.parametrize("first", ["decode", "tokenize"])
def test_all_that_is_ahead_is_watched(first: str) -> None:
    steps = [[step.model_name for step in read(name).ensemble_scheduling.step] for name in PIPELINES]
    ahead = {leaf for leaves in steps if leaves[0] == first for leaf in leaves}
    assert set(read(first).parameters["ahead"].string_value.split()) == ahead


def test_the_code_is_one() -> None:
    for leaf in ("tokenize", "tokenize_prompt"):
        assert (MODELS / leaf / "1" / "admission.py").resolve() == ROOT / "model_repository/decode/1/admission.py"
