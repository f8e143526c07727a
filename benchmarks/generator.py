"""What one process of the load generator does: it sends its share of a plan and takes down what became of it.

Open loop: every arrival of the schedule is sent when it is due, whether others were answered or not, and its latency
counts from there: a server that stalls keeps nobody from asking, and a generator that is late counts against it. Where
too many requests are in flight already, one is missed, and taken down as such. Closed loop: users ask again when they
have their answer, so a server that stalls is asked less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gevent
import psutil

from benchmarks.callers import Answer, Callers
from benchmarks.runs import MISSED, Request
from benchmarks.schedule import Steps, draw_poisson
from benchmarks.traffic import Ask, Traffic, drawn_photos

_CLOCK = time.time() - time.perf_counter()
IDLE_SECONDS = 0.1
"""What a user waits who has nothing more to do."""


@dataclass(frozen=True)
class Plan:
    """What all processes are told."""

    url: str
    loop: str
    shape: str
    steps: Steps
    seconds: float
    warm_up: float
    """Seconds before the start, which are sent but not taken down."""
    deadline: float
    """Seconds from the sending of a request for its answer."""
    max_in_flight: int
    """Of all processes together, in an open loop."""
    seed: int
    mix: str
    batches: str
    clients: str
    photos: str
    """A folder; empty for drawn ones."""
    processes: Sequence[str]
    """Their names; each sends every n-th request of the one schedule."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Report = Callable[[Ask, float | None, Answer], None]
"""(request, seconds from the scheduled sending or none, what it came to): for Locust's own statistics."""


class MissedError(Exception):
    """A request that the generator could not send in time."""


class Generator:
    """The share of the process ``name``; its clock runs from here."""

    def __init__(self, plan: Plan, name: str, report: Report) -> None:
        self.plan = plan
        self._report = report
        self._share, self._of = plan.processes.index(name), len(plan.processes)
        self._traffic = Traffic(
            Path(plan.photos) if plan.photos else drawn_photos(), plan.seed, plan.mix, plan.batches, plan.clients
        )
        is_open = plan.loop == "open"
        arrivals = draw_poisson(plan.steps, plan.seconds, plan.warm_up, plan.seed) if is_open else []
        self._arrivals = list(enumerate(arrivals))[self._share :: self._of][::-1]
        self._asked = 0
        self._max_in_flight = -(-plan.max_in_flight // self._of)
        self._callers = Callers(plan.url, plan.deadline)
        self._requests: list[Request] = []
        self._process = psutil.Process()
        self.in_flight = 0
        self._cpu_before = self._cpu_seconds()
        self._begun = now()
        self.started = self._begun + plan.warm_up
        """The second 0 of the plan."""

    @property
    def finished(self) -> bool:
        return now() >= self.started + self.plan.seconds and not self._arrivals and not self.in_flight

    def send_next(self) -> None:
        """A user's task: in an open loop, to wait for the next arrival and send it; in a closed one, to ask once."""
        if self.plan.loop == "closed" and now() < self.started + self.plan.seconds:
            ask = self._traffic.ask(self._share + self._of * self._asked)
            self._asked += 1
            self._send(ask, None)
        elif self._arrivals:
            number, second = self._arrivals.pop()
            ask = self._traffic.ask(number)
            due = self.started + float(second)
            gevent.sleep(max(due - now(), 0))
            if self.in_flight < self._max_in_flight:
                gevent.spawn(self._send, ask, due)
                gevent.sleep(0)
            else:
                self._take_down(ask, due, None, None, Answer(MISSED, error=MissedError("too many are in flight")))
        else:
            gevent.sleep(IDLE_SECONDS)

    def take_requests(self) -> list[list[Any]]:
        """What was taken down since the last call: fields of ``runs.Request``."""
        requests, self._requests = self._requests, []
        return [list(vars(request).values()) for request in requests]

    def usage(self) -> dict[str, float]:
        """When it started, and what this process itself has used since it began: seconds of CPU, and of the clock."""
        return {
            "started": self.started,
            "cpu_seconds": self._cpu_seconds() - self._cpu_before,
            "seconds": now() - self._begun,
        }

    def close(self) -> None:
        self._callers.close()

    def _send(self, ask: Ask, due: float | None) -> None:
        self.in_flight += 1
        try:
            sent = now()
            answer = self._callers.send(ask)
            self._take_down(ask, sent if due is None else due, sent, now(), answer)
        finally:
            self.in_flight -= 1

    def _take_down(self, ask: Ask, due: float, sent: float | None, done: float | None, answer: Answer) -> None:
        request = Request(
            due,
            sent,
            done,
            ask.client,
            ask.pipeline,
            ask.items,
            answer.outcome,
            answer.fallbacks,
            answer.refused,
        )
        if self.started <= due < self.started + self.plan.seconds:
            self._requests.append(request)
        self._report(ask, request.latency, answer)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def now() -> float:
    """Seconds of the Unix clock, as it stood when the process began: it never steps."""
    return _CLOCK + time.perf_counter()


