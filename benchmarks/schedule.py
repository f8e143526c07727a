"""When to send: the shapes of a load, and Poisson schedules drawn ahead.

A shape is made of steps: (second from the start, level) in order, where a level is requests a second of an open loop
or users of a closed one, and holds until the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, takewhile

import numpy as np

Steps = Sequence[tuple[float, float]]
SECONDS = {"steady": 60.0, "steps": 80.0, "spike": 60.0, "soak": 3600.0}
"""The shapes, and how long they last by default."""
STEPS = 8
"""Of an open loop."""


def shape_steps(loop: str, shape: str, level: float, seconds: float, spike: float) -> list[tuple[float, float]]:
    """steady, soak   the level all the time
    steps          open: from a quarter of the level up to it, in 8 equal steps; closed: 1, 2, 4, … users up to it
    spike          ``spike`` times the level during the middle fifth
    """
    if shape == "steps" and loop == "closed":
        levels = [*takewhile(lambda users: users < level, (2.0**n for n in count())), level]
        return [(seconds * n / len(levels), users) for n, users in enumerate(levels)]
    if shape == "steps":
        part = [0.25 + 0.75 * step / (STEPS - 1) for step in range(STEPS)]
        return [(seconds * step / STEPS, level * part[step]) for step in range(STEPS)]
    if shape == "spike":
        return [(0.0, level), (0.4 * seconds, spike * level), (0.6 * seconds, level)]
    return [(0.0, level)]


def level_at(steps: Steps, second: float) -> float:
    """The level at a time; before the start, the first."""
    return next((level for at, level in reversed(steps) if at <= second), steps[0][1])


def draw_poisson(steps: Steps, seconds: float, warm_up: float, seed: int) -> np.ndarray:
    """Arrivals of a Poisson process whose rate follows the steps: seconds from the start, ascending, float64 [N].

    Those of the warm-up, at the rate of the first step, are below 0. Drawn as arrivals of rate 1 on the axis of the
    arrivals expected so far, which maps back to seconds.
    """
    starts, rates = zip((-warm_up, steps[0][1]), *steps, strict=True)
    edges = np.array([*starts, seconds])
    expected = np.concatenate([[0.0], np.cumsum(np.diff(edges) * rates)])
    total = expected[-1]
    gaps = np.random.default_rng(seed).exponential(size=int(total + 10 * total**0.5 + 20))
    arrivals = np.cumsum(gaps)
    return np.interp(arrivals[arrivals < total], expected, edges)
