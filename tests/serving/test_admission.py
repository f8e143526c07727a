"""How long admission expects a request to wait, judged by the text of Triton's metrics."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from serving.admission import Admission, Model
from serving.repository.profiles import read_config
from serving.repository.specs import PIPELINES
from serving.server.api import is_refusal
from tests.model_repository.test_configs import FIRST, FOLDERS


def metrics(**models: tuple[float, ...]) -> str:
    """The text for models with so many pending requests, finished items and the seconds that these took.

    The items were finished one at a time or, with a fourth number, in so many batches of one request each.
    """
    lines = ["# TYPE nv_inference_count counter"]
    for model, (pending, items, seconds, *batches) in models.items():
        (runs,) = batches or [items]
        lines.append(f'nv_inference_pending_request_count{{gpu_uuid="GPU-1",model="{model}",version="1"}} {pending}')
        for what, value in {"count": items, "exec_count": runs, "request_success": runs}.items():
            lines.append(f'nv_inference_{what}{{model="{model}",version="1"}} {value}')
        lines.append(f'nv_inference_compute_infer_duration_us{{model="{model}",version="1"}} {1e6 * seconds:.0f}')
    return "\n".join(lines) + "\n"


def after(*readings: str, models: tuple[str, ...] = ("detect",), apart: float = 0.1) -> Admission:
    """Admission that has read these metrics, one after the other."""
    clock = SimpleNamespace(seconds=100.0)
    admission = Admission(0.5, {name: Model() for name in models}, lambda: clock.seconds)
    for reading in readings:
        clock.seconds += apart
        admission.update(reading)
    return admission


def test_without_metrics_everything_is_accepted() -> None:
    admission = after()
    assert [admission.refusal(64) for _ in range(50)] == [None] * 50


def test_a_config_without_a_bound_has_no_admission() -> None:
    assert Admission.open({}) is None


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([metrics(detect=(0, 0, 0))], 0.0, id="at first"),
        pytest.param([metrics(detect=(0, 10, 1))], 0.0, id="idle"),
        pytest.param([metrics(detect=(5, 0, 0))], 0.0, id="nothing finished yet"),
        pytest.param([metrics(detect=(5, 10, 1))], (5 + 1) * 0.1, id="busy"),
        pytest.param([metrics(detect=(5, 40, 4, 2))], (5 + 20) * 0.1, id="with a batch"),
        pytest.param([metrics(detect=(0, 10, 1)), metrics(detect=(5, 10, 1))], (5 + 1) * 0.1, id="after a pause"),
        pytest.param([metrics(detect=(9, 50, 5)), metrics(detect=(5, 2, 0.2))], (5 + 1) * 0.1, id="after a restart"),
    ],
)
def test_wait_is_pending_items_times_seconds_per_item(readings: list[str], expected: float) -> None:
    assert after(*readings).wait() == pytest.approx(expected)


def test_recent_speed_counts_most() -> None:
    slow, fast = metrics(detect=(1, 10, 10)), metrics(detect=(1, 1010, 20))
    assert after(slow, fast, apart=0.9).wait() < 0.1 < after(fast.replace("1010", "10"), apart=0.9).wait()


def test_batches_of_different_sizes_are_not_overestimated() -> None:
    """100 items are finished in 0.2 s: one batch of 91 and nine of one, with 2 ms per item."""
    begin, end = metrics(detect=(20, 0, 0)), metrics(detect=(20, 100, 0.002 * (91 * 91 + 9), 10))
    end = re.sub(r"(request_success.*) 10$", r"\1 100", end, flags=re.MULTILINE)
    assert after(begin, end, apart=0.2).wait() == pytest.approx((20 + 10) * 0.002)


def test_models_ahead_add_up_and_others_do_not_count() -> None:
    reading = metrics(detect=(5, 10, 1), crop=(1, 10, 2), enrich=(9, 1, 9))
    assert after(reading, models=("detect", "crop")).wait() == pytest.approx(6 * 0.1 + 2 * 0.2)


def test_pending_requests_have_the_size_of_the_last_ones() -> None:
    admission = after(metrics(detect=(0, 100, 0.1)))
    for size in (1, 1, 30, 34):
        assert admission.refusal(size) is None
    admission.update(metrics(detect=(2, 100, 0.1)))
    assert admission.wait() == pytest.approx((64 + 1) * 0.001)


def test_requests_accepted_since_the_last_reading_count() -> None:
    admission = after(metrics(detect=(1, 10, 0.1)))
    refusals = [admission.refusal(1) for _ in range(60)]
    accepted = refusals.index(next(filter(None, refusals)))
    assert 47 <= accepted <= 50
    assert refusals[accepted] == "overloaded: 0.5 s of work are waiting, 0.5 s at most: try again later"


def test_the_first_request_is_accepted_however_slow_the_model_is() -> None:
    admission = after(metrics(detect=(0, 10, 90)))
    assert [admission.refusal(1) is None for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(("work", "age", "wait"), [(9.0, 1.1, 0), (0.9, 0.0, 0.9), (0.9, 0.6, 0.3), (0.9, 0.95, 0)])
def test_work_is_done_while_metrics_grow_old_and_old_ones_are_ignored(work: float, age: float, wait: float) -> None:
    clock = SimpleNamespace(seconds=100.0)
    admission = Admission(0.5, {"detect": Model()}, lambda: clock.seconds)
    admission.update(metrics(detect=(8, 1, work / 9)))
    assert admission.wait() == pytest.approx(work)
    clock.seconds += age
    assert admission.wait() == pytest.approx(wait)


@pytest.mark.parametrize(
    "details", ["overloaded: 9 s of work are waiting", "[request id: 1] Exceeds maximum queue size"]
)
def test_refusals_of_both_servers_are_known(details: str) -> None:
    assert is_refusal(ValueError(f"/v2/models/ground/infer answers 503: in ensemble 'ground', {details}"))


@pytest.mark.parametrize("profile", ["embedded-cpu", "embedded-gpu"])
@pytest.mark.parametrize("first", FIRST)
def test_all_models_ahead_are_watched(first: str, profile: str) -> None:
    pipelines = [read_config(FOLDERS[name] / name, profile) for name in PIPELINES]
    steps = [[step.model_name for step in pipeline.ensemble_scheduling.step] for pipeline in pipelines]
    ahead = {leaf for leaves in steps if leaves[0] == first for leaf in leaves}
    config = read_config(FOLDERS[first] / first, profile)
    assert set(config.parameters["ahead"].string_value.split()) == ahead
