"""Poisson schedules have the right rate, the right gaps, and follow the steps of a shape."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.schedule import draw_poisson, level_at, shape_steps


def test_rate_and_gaps_are_those_of_a_poisson_process():
    arrivals = draw_poisson([(0, 50)], 400, 0, seed=3)
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(20_000, abs=4 * 20_000**0.5)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 400
    # An exponential distribution: P(gap > t) = exp(-rate · t), here within Kolmogorov and Smirnov's 0.1 % bound.
    expected = 1 - np.exp(-50 * np.sort(gaps))
    seen = np.arange(1, len(gaps) + 1) / len(gaps)
    assert np.abs(expected - seen).max() < 1.95 / len(gaps) ** 0.5


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another():
    assert np.array_equal(draw_poisson([(0, 20)], 10, 1, 7), draw_poisson([(0, 20)], 10, 1, 7))
    assert not np.array_equal(draw_poisson([(0, 20)], 10, 1, 7)[:50], draw_poisson([(0, 20)], 10, 1, 8)[:50])


def test_each_step_has_its_rate_and_the_warm_up_that_of_the_first():
    arrivals = draw_poisson([(0, 100), (20, 400), (30, 0), (40, 200)], 60, 10, seed=5)
    counts, _ = np.histogram(arrivals, [-10, 0, 20, 30, 40, 60])
    for count, expected in zip(counts, [1000, 2000, 4000, 0, 4000], strict=True):
        assert count == pytest.approx(expected, abs=4 * expected**0.5)


def test_every_nth_arrival_of_a_schedule_adds_up_to_its_rate():
    arrivals = draw_poisson([(0, 90)], 100, 0, seed=1)
    shares = [arrivals[worker::3] for worker in range(3)]
    assert [len(share) for share in shares] == pytest.approx([3000] * 3, abs=150)
    assert np.array_equal(np.sort(np.concatenate(shares)), arrivals)


@pytest.mark.parametrize(
    ("shape", "second", "level"),
    [
        ("steady", 0, 40),
        ("steady", 59, 40),
        ("soak", 30, 40),
        ("steps", 0, 10),
        ("steps", 59, 40),
        ("spike", 23, 40),
        ("spike", 25, 120),
        ("spike", 37, 40),
        ("spike", -2, 40),
    ],
)
def test_shapes(shape, second, level):
    assert level_at(shape_steps("open", shape, 40, 60, 3), second) == level


def test_steps_rise_evenly():
    levels = [level for _, level in shape_steps("open", "steps", 40, 80, 3)]
    assert len(levels) == 8
    assert np.allclose(np.diff(levels), 30 / 7)


@pytest.mark.parametrize(
    ("most", "levels"),
    [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])],
)
def test_users_double(most, levels):
    steps = shape_steps("closed", "steps", most, 12, 3)
    assert [users for _, users in steps] == levels
    assert np.allclose(np.diff([at for at, _ in steps]), 12 / len(levels))
