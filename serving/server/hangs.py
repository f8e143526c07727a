"""Finds the processes that are alive and do not work.

stopped    by a signal, and nobody has let it go on for STOPPED_SECONDS. Triton refuses what its model is asked by then,
           and crashes when it goes on.
hung       requests wait in front of its model and none is finished, while for HANG_SECONDS it has hardly wanted a
           processor, and no disk.

So a process that computes for minutes is not taken for hung, nor one that gets no processor because others have them:
it wants one. Without requests nobody waits, and nothing is found; a probe asks for that reason too. What loops without
end looks like work and is not found either.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from serving.server.api import FAILURES, Api, Queue
from serving.server.stubs import PROCESSES, Stub

LOOK_SECONDS = 1.0
STOPPED_SECONDS = 3.0
HANG_SECONDS = 20.0
IDLE = 0.1
"""The part of the time for which an idle process may want a processor: its heart beats, and on a busy machine waits."""


@dataclass(frozen=True)
class Pulse:
    """What the kernel says of a process."""

    wanted_seconds: float
    """That its threads have computed, or waited for a processor."""
    state: str
    """The letter of `ps`: T is stopped, t held by a debugger, D waits for a disk (a single thread is enough)."""


@dataclass(frozen=True)
class Seen:
    """A process at a look, and when it was last seen to run, and to work or have nothing to do."""

    at: float
    pulse: Pulse
    finished: int
    ran_at: float
    well_at: float


class Hangs:
    """Looks at a Triton and its stubs again and again; ``patience`` is in seconds."""

    def __init__(self, api: Api, patience: float = HANG_SECONDS):
        self._api = api
        self._patience = patience
        self._looked_at = 0.0
        self._seen: dict[int, Seen] = {}

    def find(self, triton: int, stubs: Collection[Stub]) -> dict[int, str]:
        """What is wrong with each process that is to be ended. To be called often: it looks once a second."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return {}
        if now - self._looked_at > 5 * LOOK_SECONDS:
            # We were held up ourselves, maybe with all the others: what was seen before says nothing.
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
        return {pid: why for pid, seen in self._seen.items() if (why := self._judge(seen))}

    def _look(self, pid: int, queue: Queue, now: float) -> Seen | None:
        pulse = read_pulse(pid)
        if pulse is None:
            return None
        before = self._seen.get(pid)
        if before is None:
            return Seen(now, pulse, queue.finished, now, now)
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

    def _judge(self, seen: Seen) -> str | None:
        if seen.at - seen.ran_at >= STOPPED_SECONDS:
            return f"was stopped {seen.at - seen.ran_at:.0f} s ago"
        if seen.at - seen.well_at >= self._patience:
            return f"has been asked in vain for {seen.at - seen.well_at:.0f} s and does nothing"
        return None


def read_pulse(pid: int) -> Pulse | None:
    """None for a process that is gone, or where the kernel does not count."""
    try:
        threads = list(Path(PROCESSES, str(pid), "task").iterdir())
        times = [(thread / "schedstat").read_text().split() for thread in threads]
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    except OSError:
        return None
    nanoseconds = sum(int(computed) + int(waited) for computed, waited, _ in times)
    state = next((state for state in "DtT" if state in states), "S")
    return Pulse(nanoseconds / 1e9, state) if nanoseconds else None
