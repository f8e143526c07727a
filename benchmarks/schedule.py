"""The shapes of a load over time, and Poisson schedules drawn from them.

A shape consists of steps, (second from the start, level), in order. The level is requests a second in an open loop and
users in a closed one, and holds until the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np

Steps = Sequence[tuple[float, float]]
SECONDS = {"steady": 60.0, "steps": 80.0, "spike": 60.0, "soak": 3600.0, "overload": 80.0}
"""The shapes, and their default duration."""
RISING = [0.25 + 0.75 * step / 7 for step in range(8)]
"""The steps of an open loop, as parts of its level."""
OVERLOAD = (0.8, 1.0, 2.0, 0.8)
"""The steps of an overload, as multiples of the capacity. The last one shows whether the server recovers."""


def shape_steps(loop: str, shape: str, level: float, seconds: float, spike: float) -> list[tuple[float, float]]:
    """The steps of a shape.

    steady, soak   the level all the time
    steps          open: 8 equal steps from a quarter of the level up to it; closed: 1, 2, 4, … users up to it
    spike          ``spike`` times the level in the middle fifth
    overload       0.8, 1, 2 and again 0.8 times the level
    """
    if shape == "spike":
        return [(0.0, level), (0.4 * seconds, spike * level), (0.6 * seconds, level)]
    levels = [level]
    if shape == "steps" and loop == "closed":
        levels = [*takewhile(lambda users: users < level, (2.0**n for n in count())), level]
    elif shape in ("steps", "overload"):
        levels = [part * level for part in (RISING if shape == "steps" else OVERLOAD)]
    return [(seconds * n / len(levels), value) for n, value in enumerate(levels)]


def user_spans(steps: Steps, seconds: float) -> list[tuple[float, float]]:
    """When each user of a closed loop is active: (first second, last second), the longest active user first.

    The levels may rise and then fall. A user who is active in the first step also takes part in the warm-up.
    """
    ends = [*(at for at, _ in steps[1:]), seconds]
    spans = []
    for user in range(max(max(1, round(level)) for _, level in steps)):
        active = [(at, end) for (at, level), end in zip(steps, ends, strict=True) if max(1, round(level)) > user]
        spans.append((active[0][0] if active[0][0] > 0 else -np.inf, active[-1][1]))
    return spans


def draw_poisson(steps: Steps, seconds: float, warm_up: float, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Arrivals of a Poisson process whose rate follows the steps: ascending seconds from the start, float64 [N].

    The arrivals of the warm-up are below 0 and have the rate of the first step. The process is drawn with rate 1 on the
    axis of the expected number of arrivals, which is then mapped to seconds.
    """
    starts, rates = zip((-warm_up, steps[0][1]), *steps, strict=True)
    edges = np.array([*starts, seconds])
    expected = np.concatenate([[0.0], np.cumsum(np.diff(edges) * rates)])
    total = expected[-1]
    gaps = np.random.default_rng(seed).exponential(size=int(total + 10 * total**0.5 + 20))
    arrivals = np.cumsum(gaps)
    return np.asarray(np.interp(arrivals[arrivals < total], expected, edges))
