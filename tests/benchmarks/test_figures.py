"""Figures from requests that were made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from benchmarks import figures
from benchmarks.figures import Part
from benchmarks.judge import percentiles
from benchmarks.runs import MISSED, OK, Request, Run

START = 1000.0
NAN = math.nan


def run_of(seconds: float, *steps: tuple[float, float]) -> Run:
    return Run("run", "open", "steps", START, seconds, steps, "command", "target", {}, {})


def request(at: float, ms: float | None, outcome: str = OK, items: int = 1) -> Request:
    """One that was to be sent ``at`` seconds after the start, and was answered so many ms later."""
    scheduled = START + at
    done = None if ms is None else scheduled + ms / 1000
    return Request(scheduled, None if outcome == MISSED else scheduled, done, "vlclip", "product_image", items, outcome)


def part(offered: float, p99: float, achieved: float | None = None) -> Part:
    achieved = offered if achieved is None else achieved
    return Part(0, 10, offered, offered, achieved, achieved, {OK: 10}, p99, p99, p99)


@pytest.mark.parametrize(
    ("seconds", "expected_ms"),
    [
        pytest.param([], [NAN, NAN, NAN], id="none"),
        pytest.param([0.3], [300, 300, 300], id="one"),
        pytest.param([n / 1000 for n in range(100, 0, -1)], [50, 95, 99], id="a hundred"),
        pytest.param([0.001] * 98 + [2.0] * 2, [1, 1, 2000], id="two slow ones are the p99 of a hundred"),
    ],
)
def test_percentiles_are_latencies_that_occurred(seconds: Sequence[float], expected_ms: Sequence[float]) -> None:
    assert percentiles(seconds) == pytest.approx(expected_ms, nan_ok=True)


def test_nothing_asked_has_parts_without_figures():
    first, second = figures.steps(run_of(20, (0, 5), (10, 8)), [])
    assert (first.planned, second.planned) == (5, 8)
    assert first.requests == first.offered == first.achieved == 0
    assert math.isnan(first.p50)
    assert math.isnan(figures.failed_share(first.outcomes))


def test_a_request_counts_where_it_was_due_and_its_answer_where_it_came():
    asked = [
        request(1, 20, items=4),
        request(9.5, 1000),
        request(10.5, 40),
        request(11, 5, outcome="UNAVAILABLE"),
        request(12, None, outcome=MISSED),
        request(19.9, 500),
    ]
    first, second = figures.steps(run_of(20, (0, 0.2), (10, 0.4)), asked)
    assert (first.offered, first.achieved, first.items) == pytest.approx((0.2, 0.1, 0.4))
    assert (second.offered, second.achieved, second.items) == pytest.approx((0.4, 0.2, 0.2))
    assert first.p99 == pytest.approx(1000)
    assert second.outcomes == {OK: 2, "UNAVAILABLE": 1, MISSED: 1}
    assert second.p50 == pytest.approx(40), "what failed fast does not make it look fast"
    assert figures.failed_share(second.outcomes) == 0.5
    assert figures.failed_share(second.outcomes, MISSED) == 0.25


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([], None, id="no step"),
        pytest.param([part(10, NAN, 0)], None, id="nothing answered"),
        pytest.param([part(10, 50, 9)], None, id="the lowest step stays behind"),
        pytest.param([part(10, 50), part(20, 60), part(40, 70)], 40, id="never reached"),
        pytest.param([part(40, 900), part(10, 50), part(20, 150)], 20, id="latency leaves the ground"),
        pytest.param([part(10, 50), part(20, 60), part(40, 70, 37)], 20, id="answers stay behind"),
        pytest.param([part(10, 50), part(20, 900), part(40, 70)], 10, id="a lucky step beyond it does not count"),
        pytest.param([part(10, 50), part(20, NAN, 0)], 10, id="nothing answered beyond it"),
    ],
)
def test_the_knee(parts: Sequence[Part], expected: float | None) -> None:
    found = figures.knee(parts)
    assert (found.offered if found else None) == expected


@pytest.mark.parametrize(
    ("seconds", "count", "expected"),
    [
        pytest.param(10, 0, [10], id="nothing asked"),
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
    asked = [request(seconds * n / count, 1) for n in range(count)]
    found = figures.timeline(run_of(seconds, (0, 10)), asked)
    assert [part.seconds for part in found] == pytest.approx(expected)
    assert sum(part.requests for part in found) == count


def test_requests_in_groups():
    asked = [request(0, 10), request(1, 20), request(2, 5, "UNAVAILABLE"), request(3, None, MISSED)]
    found = figures.group(asked, lambda one: one.outcome)
    assert [(one.name, one.requests, one.share) for one in found] == [
        (OK, 2, 0.5),
        ("UNAVAILABLE", 1, 0.25),
        (MISSED, 1, 0.25),
    ]
    assert found[0].longest == pytest.approx(20)
    assert found[1].p50 == pytest.approx(5)
    assert math.isnan(found[2].p50)
    assert figures.group([], lambda one: one.outcome) == []


def test_the_spectrum_ends_at_the_slowest():
    inverse, ms = figures.spectrum([n / 1000 for n in range(1000, 0, -1)])
    assert (inverse[0], ms[0]) == (1, 1)
    assert (inverse[-1], ms[-1]) == pytest.approx((1000, 1000))
    assert ms[abs(inverse - 100).argmin()] == pytest.approx(990, abs=2)
    assert all(len(values) == 0 for values in figures.spectrum([]))
