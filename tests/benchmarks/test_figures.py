"""Figures of requests that were made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from benchmarks import figures
from benchmarks.runs import LATE, MISSED, OK, REFUSED, Request, Run, frame

START = 1000.0


def run_of(seconds: float, *steps: tuple[float, float]) -> Run:
    return Run("run", "open", "steps", START, seconds, steps, "command", "target", {}, {})


def request(at: float, ms: float | None, outcome: str = OK, items: int = 1) -> Request:
    """A request that was due ``at`` seconds after the start and was answered ``ms`` later."""
    scheduled = START + at
    done = None if ms is None else scheduled + ms / 1000
    return Request(scheduled, None if outcome == MISSED else scheduled, done, "vlclip", "product_image", items, outcome)


def step(offered: float, p50: float | None, answered: float | None = None) -> dict[str, Any]:
    answered = offered if answered is None else answered
    return {"seconds": 10.0, "requests": 10, "offered": offered, "answered": answered, "p50": p50}


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        pytest.param([], (None, None, None), id="none"),
        pytest.param([300], (300, 300, 300), id="one"),
        pytest.param(range(100, 0, -1), (50, 95, 99), id="a hundred"),
        pytest.param([1] * 98 + [2000] * 2, (1, 1, 2000), id="two slow ones are the p99 of a hundred"),
    ],
)
def test_percentiles_are_latencies_that_occurred(ms: Sequence[float], expected: tuple[float, ...]) -> None:
    whole = figures.whole(run_of(20, (0, 5)), frame(request(1, one) for one in ms))
    assert [whole[name] for name in figures.LATENCIES] == pytest.approx(expected)


def test_a_run_without_requests_has_parts_without_figures() -> None:
    first, second = figures.steps(run_of(20, (0, 5), (10, 8)), frame([])).iter_rows(named=True)
    assert (first["planned"], second["planned"]) == (5, 8)
    assert first["requests"] == first["offered"] == first["answered"] == 0
    assert first["p50"] is first["failed"] is None


def test_a_request_counts_when_it_was_due_and_its_answer_when_it_came() -> None:
    requests = [
        request(1, 20, items=4),
        request(9.5, 1000),
        request(10.5, 40),
        request(11, 5, outcome=REFUSED),
        request(12, None, outcome=MISSED),
        request(13, 5000, outcome=LATE),
        request(19.9, 500),
    ]
    run = run_of(20, (0, 0.2), (10, 0.5))
    first, second = figures.steps(run, frame(requests)).iter_rows(named=True)
    assert [first[name] for name in figures.RATES] == pytest.approx([0.2, 0.1, 0.4])
    assert [second[name] for name in figures.RATES] == pytest.approx([0.5, 0.2, 0.2])
    assert first["p99"] == pytest.approx(1000)
    assert second["p50"] == pytest.approx(40), "a fast refusal does not improve the latency"
    assert [second[name] for name in figures.SHARES] == [0.6, 0.2, 0.2, 0.2]
    assert second["refused p99"] == pytest.approx(5)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([step(10, None, 0)], None, id="nothing answered"),
        pytest.param([step(10, 50, 9)], None, id="the lowest step falls behind"),
        pytest.param([step(10, 50), step(20, 60), step(40, 70)], 40, id="never reached"),
        pytest.param([step(40, 900), step(10, 50), step(20, 150)], 20, id="latency rises"),
        pytest.param([step(10, 50), step(20, 60), step(40, 70, 37)], 20, id="answers fall behind"),
        pytest.param([step(10, 50), step(20, 900), step(40, 70)], 10, id="a lucky step beyond it does not count"),
        pytest.param([step(10, 50), step(20, None, 0)], 10, id="nothing answered beyond it"),
    ],
)
def test_the_knee(parts: list[dict[str, Any]], expected: float | None) -> None:
    found = figures.knee(pl.DataFrame(parts))
    assert (found["offered"] if found else None) == expected


@pytest.mark.parametrize(
    ("seconds", "count", "expected"),
    [
        pytest.param(10, 0, [10], id="no request"),
        pytest.param(10, 40, [10], id="too few for two"),
        pytest.param(10, 1000, [1] * 10, id="a second each"),
        pytest.param(4.7, 1000, [1, 1, 1, 1, 0.7], id="the last may be shorter"),
        pytest.param(4.3, 1000, [1, 1, 1, 1.3], id="but not too short"),
        pytest.param(0.5, 10, [0.5], id="less than a second"),
        pytest.param(3600, 100_000, [60] * 60, id="an hour"),
        pytest.param(86_400, 100_000, [1440] * 60, id="a day"),
    ],
)
def test_intervals_of_a_timeline(seconds: float, count: int, expected: Sequence[float]) -> None:
    requests = frame(request(seconds * n / count, 1) for n in range(count))
    found = figures.timeline(run_of(seconds, (0, 10)), requests)
    assert found["seconds"].to_list() == pytest.approx(expected)
    assert found["requests"].sum() == count


def test_the_spectrum_ends_at_the_slowest() -> None:
    inverse, ms = figures.spectrum(frame(request(0, n) for n in range(1000, 0, -1)))
    assert (inverse[0], ms[0]) == pytest.approx((1, 1))
    assert (inverse[-1], ms[-1]) == pytest.approx((1000, 1000))
    assert ms[abs(inverse - 100).argmin()] == pytest.approx(990, abs=2)
    assert all(len(values) == 0 for values in figures.spectrum(frame([])))
