"""Which processes are taken for stopped or hung: judged from invented pulses, at invented times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from serving.server.api import Api, Queue
from serving.server.hangs import Hangs, Pulse, read_pulse
from serving.server.limits import HANG_SECONDS, STOPPED_SECONDS
from serving.server.stubs import Stub
from tests.asking import until

TRITON, STUB = 100, Stub(101, "detect", 1, "region")
LONG = 10 * int(HANG_SECONDS)


@dataclass
class World(Api):
    """A Triton with one stub, at one moment. Each of the functions takes the time in seconds."""

    wanted: Callable[[float], float] = lambda now: 0.01 * now
    state: str = "S"
    waiting: int = 1
    finished: Callable[[float], int] = lambda now: 7
    answers: bool = True
    exists: bool = True
    now: float = field(default=0.0, init=False)

    def queues(self, timeout: float = 1.0) -> dict[tuple[str, int], Queue]:
        if not self.answers:
            raise TimeoutError
        return {("detect", 1): Queue(self.waiting, self.finished(self.now))}

    def read(self, pid: int) -> Pulse | None:
        if pid == TRITON:
            return Pulse(0.01 * self.now, "S")
        return Pulse(self.wanted(self.now), self.state) if self.exists else None

    def find(self, hangs: Hangs, seconds: int, step: float = 1.0) -> tuple[float, dict[int, str]]:
        """Look again and again for some seconds. Return when something was found, and what."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if found := hangs.find(TRITON, [STUB]):
                return self.now, found
        return self.now, {}


@pytest.mark.parametrize(
    ("world", "after", "why"),
    [
        pytest.param(World(), HANG_SECONDS, "has had requests for 20 s and does nothing", id="hangs"),
        pytest.param(World(state="T", wanted=lambda _: 1.0), STOPPED_SECONDS, "was stopped 3 s ago", id="is stopped"),
    ],
)
def test_a_process_that_does_not_work_is_found(world: World, after: float, why: str) -> None:
    # The first look is after 1 s.
    assert world.find(Hangs(world, clock=lambda: world.now, read=world.read), LONG) == (1 + after, {STUB.pid: why})


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(waiting=0), id="has no requests"),
        pytest.param(World(finished=int), id="finishes requests"),
        pytest.param(World(wanted=lambda now: now), id="computes, or wants a processor and gets none"),
        pytest.param(World(wanted=lambda now: -now), id="ends threads that computed"),
        pytest.param(World(state="D"), id="waits for a disk"),
        pytest.param(World(state="t"), id="is held by a debugger"),
        pytest.param(World(exists=False), id="is gone"),
    ],
)
def test_a_process_that_may_work_is_not_found(world: World) -> None:
    assert world.find(Hangs(world, clock=lambda: world.now, read=world.read), LONG) == (LONG, {})


def test_a_triton_that_does_not_answer_is_found_and_its_stubs_are_not() -> None:
    world = World(answers=False)
    _, found = world.find(Hangs(world, clock=lambda: world.now, read=world.read), LONG)
    assert found.keys() == {TRITON}


def test_nothing_is_found_if_we_did_not_run_ourselves() -> None:
    world = World()
    hangs = Hangs(world, clock=lambda: world.now, read=world.read)
    assert world.find(hangs, int(HANG_SECONDS) - 2)[1] == {}
    assert world.find(hangs, LONG, step=10)[1] == {}
    assert world.find(hangs, LONG)[1].keys() == {STUB.pid}


def test_the_pulse_of_a_process() -> None:
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            until(lambda: read_pulse(process.pid))
            first = read_pulse(process.pid)
            assert first
            assert first.state == "S"
            until(lambda: (now := read_pulse(process.pid)) and now.wanted_seconds > first.wanted_seconds + 0.1)
            os.kill(process.pid, signal.SIGSTOP)
            until(lambda: (now := read_pulse(process.pid)) and now.state == "T")
        finally:
            process.kill()
    until(lambda: read_pulse(process.pid) is None)
