"""The load engine: it sends requests by a schedule or as users who wait, and records each of them.

Open loop: every request is sent at its scheduled time, whether or not earlier ones were answered. Latency counts from
the scheduled time, so a stall of the server, or of this process, shows in it. A request that is due while too many are
in flight is recorded as missed.

Closed loop: each user sends the next request when the last one is answered. A server that stalls receives less.

The engine uses threads. In Locust's process gevent turns them into greenlets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.runs import MISSED, OK, Request
from benchmarks.traffic import Ask

_CLOCK = time.time() - time.perf_counter()


@dataclass(frozen=True)
class Answer:
    """The result of a request: the last fields of :class:`benchmarks.runs.Request`."""

    outcome: str = OK
    fallbacks: int = 0
    refused: int = 0
    error: Exception | None = None


class MissedError(Exception):
    """The load generator could not send a request in time."""


Send = Callable[[Ask], Answer]
"""Sends a request and waits for its answer. An error of the server is an answer too."""


@dataclass(frozen=True)
class User:
    """A user of a closed loop, active from ``begins`` to ``ends`` on the clock of :func:`now`."""

    send: Send
    begins: float = 0.0
    ends: float = float("inf")


@dataclass(frozen=True)
class Engine:
    """``ask`` makes a request from its number; ``record`` receives each request when it is over."""

    ask: Callable[[int], Ask]
    record: Callable[[Request, Answer], None]

    def send_by_schedule(self, arrivals: Iterable[tuple[int, float]], send: Send, max_in_flight: int) -> None:
        """Send requests, as (number, time on the clock of :func:`now`), and wait for the last answer."""
        free = threading.Semaphore(max_in_flight)

        def send_one(ask: Ask, due: float) -> None:
            try:
                self._send(ask, send, due)
            finally:
                free.release()

        with ThreadPoolExecutor(max_in_flight) as senders:
            for number, due in arrivals:
                ask = self.ask(number)
                time.sleep(max(due - now(), 0))
                if free.acquire(blocking=False):
                    senders.submit(send_one, ask, due)
                else:
                    missed = Request(due, None, None, ask.client, ask.pipeline, ask.items, MISSED)
                    self.record(missed, Answer(MISSED, error=MissedError("too many requests are in flight")))

    def send_as_users(self, users: Sequence[User], numbers: Iterable[int]) -> None:
        """Send requests until the numbers end or no user is active any more. Raises what a user's ``send`` raises."""
        left = iter(numbers)
        stopped = threading.Event()

        def act(user: User) -> None:
            stopped.wait(max(user.begins - now(), 0))
            while not stopped.is_set() and now() < user.ends and (number := next(left, None)) is not None:
                self._send(self.ask(number), user.send)

        with ThreadPoolExecutor(len(users)) as threads:
            try:
                for acting in [threads.submit(act, user) for user in users]:
                    acting.result()
            finally:
                stopped.set()

    def _send(self, ask: Ask, send: Send, due: float | None = None) -> None:
        sent = now()
        answer = send(ask)
        done, scheduled = now(), sent if due is None else due
        what, outcome = (ask.client, ask.pipeline, ask.items), (answer.outcome, answer.fallbacks, answer.refused)
        self.record(Request(scheduled, sent, done, *what, *outcome), answer)


def now() -> float:
    """Seconds of the Unix clock, as it was set when this process began. It never jumps."""
    return _CLOCK + time.perf_counter()
