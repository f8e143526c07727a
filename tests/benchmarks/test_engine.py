"""The load engine with senders that wait for events, so that no result depends on the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

import pytest

from benchmarks.engine import Answer, Engine, User, now
from benchmarks.runs import MISSED, OK, Request
from benchmarks.traffic import Ask

SECONDS = 60.0
"""Time-out of a wait. None of the tests takes as long."""


class Server:
    """Answers nothing while it is stalled."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.received = threading.Semaphore(0)
        self.requests: list[Request] = []
        self.engine = Engine(self.ask, self.record)

    def ask(self, number: int) -> Ask:
        return Ask("vlclip", "product_text", (f"{number}",), ())

    def send(self, ask: Ask) -> Answer:
        self.received.release()
        assert self.running.wait(SECONDS)
        return Answer(error=None)

    def record(self, request: Request, answer: Answer) -> None:
        assert request.outcome == answer.outcome
        self.requests.append(request)

    def receives(self, requests: int) -> bool:
        return all(self.received.acquire(timeout=SECONDS) for _ in range(requests))


@pytest.fixture
def server() -> Server:
    return Server()


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_an_open_loop_sends_to_a_stalled_server_and_counts_latency_from_the_schedule(server: Server) -> None:
    due = now() - 5
    run = in_background(lambda: server.engine.send_by_schedule([(n, due) for n in range(10)], server.send, 20))
    assert server.receives(10)
    server.running.set()
    run.join(SECONDS)
    assert [request.outcome for request in server.requests] == [OK] * 10
    assert all(request.done and request.done - request.scheduled >= 5 for request in server.requests)
    assert all(request.sent and request.sent > due for request in server.requests)


def test_requests_beyond_the_limit_are_missed(server: Server) -> None:
    arrivals = ((n, now()) for n in range(10))
    run = in_background(lambda: server.engine.send_by_schedule(arrivals, server.send, 3))
    assert server.receives(3)
    while len(server.requests) < 7:
        assert run.is_alive()
    server.running.set()
    run.join(SECONDS)
    assert [request.outcome for request in server.requests] == [MISSED] * 7 + [OK] * 3
    assert all((request.sent is None) == (request.outcome == MISSED) for request in server.requests)


def test_the_users_of_a_closed_loop_wait_for_their_answers(server: Server) -> None:
    run = in_background(lambda: server.engine.send_as_users([User(server.send)] * 2, range(10)))
    assert server.receives(2)
    assert not server.received.acquire(timeout=0.01)
    server.running.set()
    run.join(SECONDS)
    assert len(server.requests) == 10
    assert all(request.scheduled == request.sent for request in server.requests)


def test_an_error_of_a_sender_ends_the_run(server: Server) -> None:
    def fail(ask: Ask) -> Answer:
        raise RuntimeError(f"no answer to {ask.texts}")

    server.running.set()
    with pytest.raises(RuntimeError, match="no answer to"):
        server.engine.send_as_users([User(fail), User(server.send)], count())
