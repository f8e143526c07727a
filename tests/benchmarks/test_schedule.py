"""Shapes of a load, and Poisson schedules with the right rate and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.schedule import draw_poisson, shape_steps, user_spans


def test_rate_and_gaps_are_those_of_a_poisson_process() -> None:
    arrivals = draw_poisson([(0, 50)], 400, 0, seed=3)
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(20_000, abs=4 * 20_000**0.5)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 400
    # An exponential distribution: P(gap > t) = exp(-rate · t), within Kolmogorov and Smirnov's bound of 0.1 %.
    expected = 1 - np.exp(-50 * np.sort(gaps))
    seen = np.arange(1, len(gaps) + 1) / len(gaps)
    assert np.abs(expected - seen).max() < 1.95 / len(gaps) ** 0.5


def test_a_schedule_depends_on_the_seed() -> None:
    assert np.array_equal(draw_poisson([(0, 20)], 10, 1, 7), draw_poisson([(0, 20)], 10, 1, 7))
    assert not np.array_equal(draw_poisson([(0, 20)], 10, 1, 7)[:50], draw_poisson([(0, 20)], 10, 1, 8)[:50])


def test_each_step_has_its_rate_and_the_warm_up_that_of_the_first() -> None:
    arrivals = draw_poisson([(0, 100), (20, 400), (30, 0), (40, 200)], 60, 10, seed=5)
    counts, _ = np.histogram(arrivals, [-10, 0, 20, 30, 40, 60])
    for count, expected in zip(counts, [1000, 2000, 4000, 0, 4000], strict=True):
        assert count == pytest.approx(expected, abs=4 * expected**0.5)


@pytest.mark.parametrize(
    ("loop", "shape", "steps"),
    [
        ("open", "steady", [(0, 40)]),
        ("open", "soak", [(0, 40)]),
        ("open", "spike", [(0, 40), (24, 120), (36, 40)]),
        ("open", "steps", [(7.5 * n, 10 + 30 / 7 * n) for n in range(8)]),
        ("open", "overload", [(0, 32), (15, 40), (30, 80), (45, 32)]),
        ("closed", "steps", [(60 / 7 * n, users) for n, users in enumerate([1, 2, 4, 8, 16, 32, 40])]),
        ("closed", "spike", [(0, 40), (24, 120), (36, 40)]),
    ],
)  # fmt: skip
def test_shapes(loop: str, shape: str, steps: list[tuple[float, float]]) -> None:
    found = shape_steps(loop, shape, 40, 60, spike=3)
    assert np.array(found) == pytest.approx(np.array(steps))


@pytest.mark.parametrize(
    ("steps", "spans"),
    [
        pytest.param([(0, 2)], [(-math.inf, 12)] * 2, id="steady"),
        pytest.param([(0, 0.4)], [(-math.inf, 12)], id="one at least"),
        pytest.param([(0, 1), (3, 2), (6, 4)], [(-math.inf, 12), (3, 12), (6, 12), (6, 12)], id="steps"),
        pytest.param([(0, 1), (5, 3), (7, 1)], [(-math.inf, 12), (5, 7), (5, 7)], id="spike"),
    ],
)
def test_users_come_and_go(steps: list[tuple[float, float]], spans: list[tuple[float, float]]) -> None:
    assert user_spans(steps, 12) == spans
