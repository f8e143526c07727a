"""The figures of a load run, from its requests alone: percentiles, rates, outcomes, and the knee."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.judge import percentiles
from benchmarks.runs import OK, Request, Run

KNEE_MEDIAN = 3.0
"""Times the lowest step's median that the knee's may be; a short step's tail is chance, made by one large batch."""
KNEE_ACHIEVED = 0.95
"""Share of the offered rate that the knee's step must have answered."""
WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
"""Seconds of an interval of the timeline."""
INTERVALS, REQUESTS = 60, 30
"""Of a timeline: at most so many intervals, of so many requests on average, or percentiles would say little."""


@dataclass(frozen=True)
class Part:
    """A stretch of a run. What was not measured is NaN."""

    start: float
    """Seconds from the start of the run."""
    seconds: float
    planned: float
    """Requests a second in an open loop, users in a closed one."""
    offered: float
    """Requests a second that were to be sent in it."""
    achieved: float
    """Requests a second whose good answer came in it."""
    items: float
    """Items a second in those answers."""
    outcomes: Mapping[str, int]
    """Of what was to be sent in it."""
    p50: float
    """Latencies in ms, from the scheduled sending, of the good answers to what was to be sent in it."""
    p95: float
    p99: float

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Group:
    """Requests that have something in common. What was not measured is NaN."""

    name: str
    requests: int
    share: float
    """Of all requests of the run."""
    p50: float
    """Milliseconds from the scheduled sending to the answer, be it good or not."""
    p95: float
    p99: float
    longest: float


def latencies(requests: Sequence[Request]) -> list[float]:
    """Seconds from the scheduled sending to the answer, of those with a good answer."""
    return [request.latency for request in requests if request.outcome == OK and request.latency is not None]


def split(run: Run, requests: Sequence[Request], edges: Sequence[float]) -> list[Part]:
    """The run in parts that begin and end at ``edges``, in seconds from its start."""
    parts = len(edges) - 1
    sent: list[list[Request]] = [[] for _ in range(parts)]
    answered: list[list[Request]] = [[] for _ in range(parts)]
    for request in requests:
        for time, into in ((request.scheduled, sent), (request.done if request.outcome == OK else None, answered)):
            place = -1 if time is None else bisect_right(edges, time - run.started) - 1
            if 0 <= place < parts:
                into[place].append(request)
    return [
        Part(
            start,
            end - start,
            planned_at(run, start),
            len(to_send) / (end - start),
            len(good) / (end - start),
            sum(request.items for request in good) / (end - start),
            Counter(request.outcome for request in to_send),
            *percentiles(latencies(to_send)),
        )
        for start, end, to_send, good in zip(edges, edges[1:], sent, answered, strict=False)
    ]


def planned_at(run: Run, second: float) -> float:
    """Requests a second, or users, that the run's schedule has there."""
    return next((value for at, value in reversed(run.steps) if at <= second), 0.0)


def whole(run: Run, requests: Sequence[Request]) -> Part:
    return split(run, requests, [0.0, run.seconds])[0]


def steps(run: Run, requests: Sequence[Request]) -> list[Part]:
    """One part a step of the schedule."""
    return split(run, requests, sorted({0.0, *(at for at, _ in run.steps if at < run.seconds), run.seconds}))


def timeline(run: Run, requests: Sequence[Request]) -> list[Part]:
    """Parts of the same number of whole seconds; the last may be shorter."""
    least = run.seconds / min(INTERVALS, max(len(requests) / REQUESTS, 1))
    width = next((width for width in WIDTHS if width >= least), math.ceil(least))
    edges = [float(edge) for edge in range(0, math.ceil(run.seconds), width)]
    # A remainder of less than half an interval has too few requests to stand alone.
    if len(edges) > 1 and run.seconds - edges[-1] < width / 2:
        edges.pop()
    return split(run, requests, [*edges, run.seconds])


def knee(parts: Sequence[Part]) -> Part | None:
    """The last step, from the lowest rate upwards, before latency leaves the ground or answers stay behind.

    Its p50 is at most KNEE_MEDIAN times that of the lowest step, and of the N requests that were offered at least
    KNEE_ACHIEVED, less √N for chance at the borders of short steps, were answered in its time; both hold for every step
    below it. None where the lowest step already fails.
    """
    found = None
    by_rate = sorted((part for part in parts if part.requests), key=lambda part: part.offered)
    for part in by_rate:
        # Written so that a NaN fails.
        chance = math.sqrt(part.requests) / part.seconds
        if not (part.p50 <= KNEE_MEDIAN * by_rate[0].p50 and part.achieved >= KNEE_ACHIEVED * part.offered - chance):
            break
        found = part
    return found


def group(requests: Sequence[Request], key: Callable[[Request], str]) -> list[Group]:
    """The most frequent first."""
    groups: dict[str, list[float]] = {}
    count: Counter[str] = Counter()
    for request in requests:
        count[key(request)] += 1
        groups.setdefault(key(request), []).extend([] if request.latency is None else [request.latency])
    return [
        Group(name, n, n / len(requests), *percentiles(groups[name], (50, 95, 99, 100)))
        for name, n in count.most_common()
    ]


def failed_share(outcomes: Mapping[str, int], kind: str | None = None) -> float:
    """Of the requests, those that had no good answer, or those of one kind. NaN if there was none at all."""
    total = sum(outcomes.values())
    count = total - outcomes.get(OK, 0) if kind is None else outcomes.get(kind, 0)
    return count / total if total else math.nan


def spectrum(latencies: Sequence[float], points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """The distribution up to its last request: 1 / (1 - quantile) from 1 to N, evenly on a log scale, and ms there."""
    if not len(latencies):
        return np.empty(0), np.empty(0)
    inverse = np.geomspace(1, len(latencies), points)
    rank = np.minimum(np.ceil((1 - 1 / inverse) * len(latencies)).astype(int), len(latencies) - 1)
    return inverse, 1e3 * np.sort(np.asarray(latencies))[rank]
