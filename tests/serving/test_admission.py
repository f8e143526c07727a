"""How long `admission` expects a request to wait, from what Triton's metrics say."""

from __future__ import annotations

import re
import time

import pytest

from serving import admission
from serving.repository.specs import PIPELINES
from tests.model_repository.test_configs import read

NOWHERE = "127.0.0.1:1"


def metrics(**models: tuple[float, ...]) -> str:
    """As Triton writes them: pending requests, finished items and the seconds they took, one by one; or, with a fourth
    number, in so many batches of one request each.
    """
    lines = ["# TYPE nv_inference_count counter"]
    for model, (pending, items, seconds, *batches) in models.items():
        (runs,) = batches or [items]
        lines.append(f'nv_inference_pending_request_count{{gpu_uuid="GPU-1",model="{model}",version="1"}} {pending}')
        for what, value in {"count": items, "exec_count": runs, "request_success": runs}.items():
            lines.append(f'nv_inference_{what}{{model="{model}",version="1"}} {value}')
        lines.append(f'nv_inference_compute_infer_duration_us{{model="{model}",version="1"}} {1e6 * seconds:.0f}')
    return "\n".join(lines) + "\n"


def make(*models: str) -> admission.Admission:
    return admission.Admission(0.5, {name: admission.Model() for name in models}, NOWHERE)


def seen(*readings: str, models: tuple[str, ...] = ("detect",), apart: float = 0.1) -> admission.Admission:
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
        ([metrics(detect=(0, 0, 0))], 0.0),
        ([metrics(detect=(0, 10, 1))], 0.0),
        ([metrics(detect=(5, 0, 0))], 0.0),
        ([metrics(detect=(5, 10, 1))], (5 + 1) * 0.1),
        ([metrics(detect=(5, 40, 4, 2))], (5 + 20) * 0.1),
        ([metrics(detect=(0, 10, 1)), metrics(detect=(5, 10, 1))], (5 + 1) * 0.1),
        ([metrics(detect=(9, 50, 5)), metrics(detect=(5, 2, 0.2))], (5 + 1) * 0.1),
    ],
    ids=["at first", "idle", "nothing finished yet", "busy", "with a batch", "after a pause", "after a restart"],
)
def test_wait_is_what_is_pending_times_what_it_takes(readings: list[str], expected: float) -> None:
    assert seen(*readings).wait() == pytest.approx(expected)


def test_speed_follows_what_was_last() -> None:
    slow, fast = metrics(detect=(1, 10, 10)), metrics(detect=(1, 1010, 20))
    assert seen(slow, fast, apart=0.9).wait() < 0.1 < seen(fast.replace("1010", "10"), apart=0.9).wait()


def test_batches_of_very_different_sizes_do_not_make_it_slow() -> None:
    """In 0.2 s, 100 items were finished: one batch of 91 and nine of one, each item at 2 ms."""
    one, now = make("detect"), time.monotonic()
    begin, end = metrics(detect=(20, 0, 0)), metrics(detect=(20, 100, 0.002 * (91 * 91 + 9), 10))
    end = re.sub(r"(request_success.*) 10$", r"\1 100", end, flags=re.MULTILINE)
    one.see(begin, now - 0.2)
    one.see(end, now)
    assert one.wait() == pytest.approx((20 + 10) * 0.002)


def test_models_ahead_add_up_and_others_do_not_count() -> None:
    reading = metrics(detect=(5, 10, 1), crop=(1, 10, 2), enrich=(9, 1, 9))
    assert seen(reading, models=("detect", "crop")).wait() == pytest.approx(6 * 0.1 + 2 * 0.2)


def test_batches_wait_longer_than_single_items() -> None:
    one = seen(metrics(detect=(2, 100, 0.1)))
    for size in (1, 1, 30, 34):
        one._sizes.append(size)
    assert one.wait() == pytest.approx((64 + 1) * 0.001)


def test_what_was_accepted_since_the_metrics_counts_too() -> None:
    one = seen(metrics(detect=(1, 10, 0.1)))
    refusals = [one.refusal(1) for _ in range(60)]
    accepted = refusals.index(next(filter(None, refusals)))
    assert 47 <= accepted <= 50
    assert refusals[accepted] == "overloaded: 0.5 s of work are waiting, 0.5 s at most: try again later"


def test_the_first_is_accepted_however_slow_the_model() -> None:
    one = seen(metrics(detect=(0, 10, 90)))
    assert [one.refusal(1) is None for _ in range(3)] == [True, False, False]


def test_old_metrics_say_nothing() -> None:
    one, long_ago = make("detect"), time.monotonic() - 10
    one.see(metrics(detect=(99, 0, 0)), long_ago - 0.1)
    one.see(metrics(detect=(99, 1, 9)), long_ago)
    assert one.wait() == 0


@pytest.mark.parametrize("first", ["decode", "tokenize"])
def test_all_that_is_ahead_is_watched(first: str) -> None:
    steps = [[step.model_name for step in read(name).ensemble_scheduling.step] for name in PIPELINES]
    ahead = {leaf for leaves in steps if leaves[0] == first for leaf in leaves}
    assert set(read(first).parameters["ahead"].string_value.split()) == ahead
