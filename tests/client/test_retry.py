"""Retries and deadlines on a fake clock: the steps of a request are performed here, without I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

import vlclip
from vlclip._connection import endpoint
from vlclip._core import Rpc, Session, Sleep
from vlclip._retry import Call
from vlclip._wire import PRODUCT_TEXT

OVERLOADED = "in ensemble 'product_text', overloaded: 0.9 s of work are waiting, 0.5 s at most: try again later"
NOT_HEALTHY = "Failed to process the request(s) for model 'decode', message: Stub process 'decode_0' is not healthy."
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def failure(code: grpc.StatusCode, details: str) -> Exception:
    error: Any = grpc.RpcError(details)
    error.code, error.details = lambda: code, lambda: details
    rpc_error: Exception = error
    return rpc_error


@dataclass
class Server:
    """Answers after ``seconds`` on its clock, or fails the first ``failures`` requests."""

    failures: float = 0.0
    code: grpc.StatusCode = UNAVAILABLE
    details: str = "loading"
    seconds: float = 0.0
    connects: bool = True
    now: float = 0.0
    tries: list[Rpc] = field(default_factory=list)
    connections: list[Rpc] = field(default_factory=list)
    backoffs: list[float] = field(default_factory=list)

    def perform(self, step: Rpc | Sleep) -> Any:
        if isinstance(step, Sleep):
            self.backoffs.append(step.seconds)
            self.now += step.seconds
            return None
        if step.method == "ServerLive":
            self.connections.append(step)
            if not self.connects:
                self.now += step.timeout
                raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            return None
        self.tries.append(step)
        self.now += min(self.seconds, step.timeout)
        if self.seconds > step.timeout:
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        if len(self.tries) <= self.failures:
            raise failure(self.code, self.details)
        response = service_pb2.ModelInferResponse(raw_output_contents=[bytes(12), bytes(1), bytes(16)])
        response.outputs.add(name="EMBEDDING", datatype="FP32", shape=[1, 3])
        response.outputs.add(name="TRUNCATED", datatype="BOOL", shape=[1, 1])
        response.outputs.add(name="VERSION", datatype="INT32", shape=[1, 4])
        return response

    def embed(self, session: Session, timeout: vlclip.Timeout, batches: int = 1) -> vlclip.TextEmbeddings:
        """The last of a call's ``batches``."""
        call = Call(timeout, session.budget, clock=lambda: self.now)
        call.batches = batches - 1
        steps = session.infer(PRODUCT_TEXT, [(b"a mug",)], call, session.span(PRODUCT_TEXT))
        try:
            step = next(steps)
            while True:
                try:
                    result = self.perform(step)
                except grpc.RpcError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            embeddings: vlclip.TextEmbeddings = end.value
            return embeddings


def session(retry: vlclip.Retry | None) -> Session:
    return Session(endpoint("localhost:8001", False, False, 5.0), vlclip.Timeout(), retry, None, 4, None)


@pytest.mark.parametrize(
    ("code", "details", "retried"),
    [
        (UNAVAILABLE, "Exceeds maximum queue size", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", True),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' has no available versions", True),
        (grpc.StatusCode.UNKNOWN, "Stream removed", True),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 4)", False),
        (grpc.StatusCode.INTERNAL, NOT_HEALTHY, True),
        (grpc.StatusCode.INTERNAL, "no", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "no", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "no", False),
    ],
)
def test_which_failures_are_retried(code: grpc.StatusCode, details: str, retried: bool) -> None:
    server = Server(failures=2, code=code, details=details)
    if retried:
        assert len(server.embed(session(vlclip.Retry()), vlclip.Timeout())) == 1
    else:
        with pytest.raises(vlclip.RequestError):
            server.embed(session(vlclip.Retry()), vlclip.Timeout())
    assert len(server.tries) == (3 if retried else 1)


def test_without_retry_there_is_one_try() -> None:
    server = Server(failures=1)
    with pytest.raises(vlclip.UnavailableError, match="loading"):
        server.embed(session(None), vlclip.Timeout())
    assert len(server.tries) == 1


def test_backoff_is_exponential_with_jitter_within_the_deadline() -> None:
    server = Server(failures=math.inf, seconds=0.25)
    retry = vlclip.Retry(initial_backoff=0.5, max_backoff=4)
    with pytest.raises(vlclip.RequestError, match=r"product_text from .*, allowed 60 s, tried \d\d+ times"):
        server.embed(session(retry), vlclip.Timeout(request=60))
    limits = [min(4.0, 0.5 * 2**n) for n in range(len(server.backoffs))]
    assert all(0 <= backoff <= limit for backoff, limit in zip(server.backoffs, limits, strict=True))
    assert len(set(server.backoffs)) == len(server.backoffs)
    assert server.now <= 60


@pytest.mark.parametrize("timeout", [vlclip.Timeout(request=10), vlclip.Timeout(total=10)])
def test_each_try_has_the_time_that_is_left(timeout: vlclip.Timeout) -> None:
    server = Server(failures=3, seconds=2)
    server.embed(session(vlclip.Retry()), timeout)
    used = [2 * n + sum(server.backoffs[:n]) for n in range(4)]
    assert [rpc.timeout for rpc in server.tries] == pytest.approx([10 - seconds for seconds in used])
    last = server.tries[-1]
    assert last.request.parameters["timeout"].int64_param == pytest.approx(last.timeout * 1e6, abs=1)


@pytest.mark.parametrize("timeout", [vlclip.Timeout(request=10), vlclip.Timeout(total=10)])
def test_a_try_without_an_answer_ends_at_the_deadline(timeout: vlclip.Timeout) -> None:
    server = Server(seconds=1000)
    with pytest.raises(TimeoutError, match=r"product_text from .*, allowed 10 s.*`timeout`"):
        server.embed(session(vlclip.Retry()), timeout)
    assert server.now == 10


@pytest.mark.parametrize(
    ("details", "seconds", "connect"),
    [
        pytest.param("connections to all backends failing; last error: refused", 2.0, 3.0, id="the try has waited"),
        pytest.param("loading", 2.0, 5.0, id="the try was answered"),
    ],
)
def test_a_connection_has_the_time_that_is_left_of_connect(details: str, seconds: float, connect: float) -> None:
    server = Server(failures=1, details=details, seconds=seconds, connects=False)
    with pytest.raises(vlclip.UnavailableError, match="allowed 30 s: UNAVAILABLE"):
        server.embed(session(vlclip.Retry()), vlclip.Timeout(connect=5))
    (rpc,) = server.connections
    assert rpc.wait_for_ready
    assert connect - server.backoffs[0] <= rpc.timeout <= connect


def test_an_outage_does_not_multiply_the_requests() -> None:
    """The budget is that of the client. Without tokens each request is sent once, until others succeed."""
    server, shared = Server(failures=math.inf), session(vlclip.Retry(max_tokens=10, token_ratio=0.5))
    for _ in range(20):
        with pytest.raises(vlclip.UnavailableError):
            server.embed(shared, vlclip.Timeout())
    assert len(server.tries) == 20 + 10
    server.failures = 0
    for _ in range(4):
        server.embed(shared, vlclip.Timeout())
    server.tries, server.failures = [], math.inf
    with pytest.raises(vlclip.UnavailableError):
        server.embed(shared, vlclip.Timeout())
    assert len(server.tries) == 1 + 2


def test_a_single_request_to_an_overloaded_server_takes_tokens() -> None:
    server = Server(failures=math.inf, details=OVERLOADED)
    with pytest.raises(vlclip.OverloadedError, match=r"overloaded: .* try again later"):
        server.embed(session(vlclip.Retry(max_tokens=3)), vlclip.Timeout())
    assert len(server.tries) == 1 + 3


def test_an_overloaded_server_slows_down_a_call_of_several_batches() -> None:
    """A refusal takes no token, and does not count towards the time-out of the request."""
    server = Server(failures=60, details=OVERLOADED, seconds=0.1)
    server.embed(session(vlclip.Retry(max_tokens=20)), vlclip.Timeout(request=0.4), batches=2)
    assert len(server.tries) == 60 + 1
    assert server.now > 6


@pytest.mark.parametrize(
    ("timeout", "earliest", "latest"),
    [
        pytest.param(vlclip.Timeout(request=1), 20, 21, id="overload_timeout"),
        pytest.param(vlclip.Timeout(request=1, total=5), 0, 5, id="total"),
    ],
)
def test_an_overloaded_server_is_retried_for_a_limited_time(
    timeout: vlclip.Timeout, earliest: float, latest: float
) -> None:
    server = Server(failures=math.inf, details=OVERLOADED, seconds=0.1)
    retry = vlclip.Retry(max_backoff=0.5, overload_timeout=20)
    with pytest.raises((vlclip.OverloadedError, vlclip.DeadlineError), match="product_text"):
        server.embed(session(retry), timeout, batches=2)
    assert earliest - 0.5 <= server.now <= latest


def test_a_request_waits_for_a_model_that_is_loaded_again_but_not_often() -> None:
    """The request itself may have ended the model's process."""
    server = Server(failures=math.inf, code=grpc.StatusCode.INTERNAL, details=NOT_HEALTHY)
    with pytest.raises(vlclip.ServerError, match="tried 4 times"):
        server.embed(session(vlclip.Retry(max_backoff=4)), vlclip.Timeout())
    assert len(server.backoffs) == 3
    assert all(2 <= backoff <= 4 for backoff in server.backoffs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vlclip.Retry(max_backoff=-1), "retry: expected max_backoff of 0 or more, got -1"),
        (lambda: vlclip.Retry(max_tokens=math.inf), "retry: expected max_tokens of 0 or more, got inf"),
        (lambda: vlclip.Timeout(request=math.nan), "timeout: expected request as a number of seconds above 0, got nan"),
        (lambda: vlclip.Timeout(connect=0), "timeout: expected connect as a number of seconds above 0, got 0"),
        (lambda: vlclip.Timeout(request=None), "timeout: expected request as a number of seconds above 0, got None"),  # type: ignore[arg-type]
        (lambda: vlclip.Retry(max_backoff="1"), "retry: expected max_backoff of 0 or more, got '1'"),  # type: ignore[arg-type]
        (lambda: vlclip.Timeout(total=math.inf), "timeout: expected total as a number of seconds above 0, got inf"),
    ],
)
def test_invalid_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(vlclip.InvalidInputError, match=message):
        make()
