"""Finds processes that are alive but make no progress.

stopped    A signal stopped the process, and nothing continued it within STOPPED_SECONDS. By then Triton refuses
           requests for its model, and crashes when the process continues.
hung       Requests wait for the model and none finishes, while for HANG_SECONDS the process has hardly wanted a
           processor and has not waited for a disk.

A process that computes for minutes is not taken for hung, nor is one that gets no processor because other processes
use them all: it wants one. Without requests nothing waits and nothing is found; therefore a probe sends requests. A
process in an endless loop looks like one that works, and is not found either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from serving.server.api import FAILURES, Api, Queue
from serving.server.limits import HANG_SECONDS, STOPPED_SECONDS
from serving.server.stubs import PROCESSES, Stub

LOOK_SECONDS = 1.0
IDLE = 0.1
"""CPU share up to which a process counts as idle. Its heartbeat needs some, and may have to wait for a CPU."""


@dataclass(frozen=True)
class Pulse:
    """What the kernel knows about a process."""

    wanted_seconds: float
    """For how long its threads have computed or waited for a processor, in total."""
    state: str
    """The letter of `ps`: T for stopped, t for held by a debugger, D for waiting for a disk (any thread), else S."""


def read_pulse(pid: int) -> Pulse | None:
    """None if the process is gone, or the kernel does not count."""
    try:
        threads = list(Path(PROCESSES, str(pid), "task").iterdir())
        times = [(thread / "schedstat").read_text().split() for thread in threads]
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    except OSError:
        return None
    nanoseconds = sum(int(computed) + int(waited) for computed, waited, _ in times)
    state = next((state for state in "DtT" if state in states), "S")
    return Pulse(nanoseconds / 1e9, state) if nanoseconds else None


@dataclass(frozen=True)
class Seen:
    """The state of a process at one check. ``ran_at`` and ``well_at`` are when it last ran, and when it last made
    progress or had no requests."""

    at: float
    pulse: Pulse
    finished: int
    ran_at: float
    well_at: float


class Hangs:
    """Looks at a Triton and its stubs again and again. ``clock`` returns seconds, ``read`` the pulse of a process."""

    def __init__(
        self,
        api: Api,
        *,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[int], Pulse | None] = read_pulse,
    ):
        self._api = api
        self._clock = clock
        self._read = read
        self._looked_at = float("-inf")
        self._seen: dict[int, Seen] = {}

    def find(self, triton: int, stubs: Collection[Stub]) -> dict[int, str]:
        """The processes to kill, by pid, and why. Call this often: it looks once a second."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return {}
        if now - self._looked_at > 5 * LOOK_SECONDS:
            # We did not run ourselves, and maybe the other processes did not either: what was seen before is void.
            self._seen.clear()
        self._looked_at = now
        queues = {triton: Queue()}
        try:
            known = self._api.queues()
            queues |= {stub.pid: known.get((stub.model, stub.version), Queue()) for stub in stubs}
        except TimeoutError:
            queues = {triton: Queue(waiting=1), **{stub.pid: Queue() for stub in stubs}}
        except FAILURES:
            pass
        self._seen = {pid: seen for pid, queue in queues.items() if (seen := self._look(pid, queue, now))}
        return {pid: why for pid, seen in self._seen.items() if (why := judge(seen))}

    def _look(self, pid: int, queue: Queue, now: float) -> Seen | None:
        pulse = self._read(pid)
        if pulse is None:
            return None
        before = self._seen.get(pid)
        if before is None:
            return Seen(now, pulse, queue.finished, now, now)
        # Less than before if a thread has ended since.
        wanted = abs(pulse.wanted_seconds - before.pulse.wanted_seconds)
        is_well = (
            queue.waiting == 0
            or queue.finished != before.finished
            or wanted >= IDLE * (now - before.at)
            or pulse.state in "Dt"
        )
        return Seen(
            at=now,
            pulse=pulse,
            finished=queue.finished,
            ran_at=now if pulse.state != "T" or wanted else before.ran_at,
            well_at=now if is_well else before.well_at,
        )


def judge(seen: Seen) -> str | None:
    """Why the process must be killed, or None if it is healthy."""
    if seen.at - seen.ran_at >= STOPPED_SECONDS:
        return f"was stopped {seen.at - seen.ran_at:.0f} s ago"
    if seen.at - seen.well_at >= HANG_SECONDS:
        return f"has had requests for {seen.at - seen.well_at:.0f} s and does nothing"
    return None
