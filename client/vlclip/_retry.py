"""Time-outs, and retries with exponential backoff and jitter, without I/O."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from vlclip.errors import InvalidInputError, OverloadedError, RequestError, ServerError, UnavailableError


@dataclass(frozen=True)
class Timeout:
    """Time-outs in seconds.

    Timeout(request=5)             at most 5 s for each batch, its retries included
    Timeout(request=5, total=60)   and at most 60 s for the whole call, which may have many batches
    Timeout(connect=1)             at most 1 s to connect or reconnect to a server
    """

    request: float = 30.0
    connect: float = 5.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in ("request", "connect", "total"):
            seconds = getattr(self, name)
            if seconds is None and name == "total":
                continue
            if not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
                problem = f"expected {name} as a number of seconds above 0, got {seconds!r}"
                raise InvalidInputError(problem, argument="timeout")

    @classmethod
    def of(cls, given: TimeoutTypes, default: Timeout) -> Timeout:
        """The time-outs of a call. A number is the time-out of a request."""
        if given is None:
            return default
        if isinstance(given, Timeout):
            return given
        return cls(given, default.connect, default.total)


TimeoutTypes = float | Timeout | None
"""Seconds for each request, a `Timeout`, or ``None`` for the client's own."""


@dataclass(frozen=True)
class Retry:
    """Retry with exponential backoff and jitter, when a server is unavailable or overloaded.

    A request to a model whose process died is sent again too, up to three times and about ``max_backoff`` later: the
    server needs seconds to load the model again.

    initial_backoff   seconds: the wait before try n + 1 is random, between 0 and initial_backoff · 2ⁿ⁻¹
    max_backoff       seconds: no wait is longer
    max_tokens        tokens of the client's retry budget; a failed try takes one, and without tokens there is no retry
    token_ratio       tokens that a successful try gives back
    overload_timeout  seconds for which a batch of a call with several batches is sent to an overloaded server

    A retry never exceeds the request's time-out. Every pipeline is a pure function, so a retry is always safe. The
    budget limits the extra load: when all requests fail, the servers soon receive each request only once. The names
    are those of gRPC's retry policy and retry throttling.

    A call with several batches sends the next batch when one is answered. An overloaded server may therefore slow it
    down: a refusal then takes no token and does not count towards the request's time-out, for ``overload_timeout``
    seconds.
    """

    initial_backoff: float = 0.05
    max_backoff: float = 2.0
    max_tokens: float = 100.0
    token_ratio: float = 0.5
    overload_timeout: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise InvalidInputError(f"expected {field.name} of 0 or more, got {value!r}", argument="retry")


DEFAULT_RETRY = Retry()
NOT_HEALTHY = "is not healthy"
"""Triton's message about a model whose process died. The server loads the model again within seconds."""
MODEL_RESTARTS = 3
"""How often a request waits for a model whose process died. A request that kills the process must not do so often."""
NO_CONNECTION = "connections to all backends failing"
"""gRPC's message about a request that it could not send to any address."""


class Budget:
    """The retry tokens of one client. Threads may share it."""

    def __init__(self, retry: Retry | None) -> None:
        self.retry = retry
        self._tokens = retry.max_tokens if retry else 0.0
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        if self.retry:
            with self._lock:
                self._tokens = min(self.retry.max_tokens, self._tokens + self.retry.token_ratio)

    def failed(self) -> bool:
        """Takes a token. Returns whether there was one."""
        with self._lock:
            available = self._tokens >= 1
            self._tokens = max(0.0, self._tokens - 1)
        return available


class Call:
    """The time-outs of one call, which all its requests share. ``clock`` returns seconds."""

    def __init__(self, timeout: Timeout, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout = timeout
        self.budget = budget
        self.clock = clock
        self.end = clock() + timeout.total if timeout.total else math.inf
        self.batches = 0

    def request(self) -> Tries:
        return Tries(self)


class Tries:
    """The tries of one request."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._started = self._sent = call.clock()
        self._deadline = min(self._started + call.timeout.request, call.end)
        self.allowed = self._deadline - self._started
        self.count = 0
        self._restarts = 0

    def begin(self) -> None:
        """Must be called before each try."""
        self.count += 1
        self._sent = self._call.clock()

    @property
    def left(self) -> float:
        """Seconds until the deadline. Never 0, so that gRPC itself reports a deadline that has passed."""
        return max(self._deadline - self._call.clock(), 1e-3)

    def left_to_connect(self, error: RequestError) -> float:
        """Seconds to wait for a connection after a failed try, which may itself have waited for one."""
        waited = self._call.clock() - self._sent if NO_CONNECTION in str(error) else 0.0
        return min(self._call.timeout.connect - waited, self.left)

    def backoff(self, error: RequestError) -> float | None:
        """Seconds until the next try, or ``None`` if there is no further try."""
        restarts = isinstance(error, ServerError) and NOT_HEALTHY in error.problem
        budget = self._call.budget
        retry = budget.retry
        if retry is None or not (restarts or isinstance(error, UnavailableError | OverloadedError)):
            return None
        wait = random.uniform(0.0, min(retry.max_backoff, retry.initial_backoff * 2.0 ** min(self.count - 1, 30)))
        if restarts:
            self._restarts += 1
            if self._restarts > MODEL_RESTARTS:
                return None
            wait = random.uniform(0.5, 1.0) * retry.max_backoff
        if isinstance(error, OverloadedError) and self._call.batches > 1:
            now = self._call.clock()
            if now + wait < self._started + retry.overload_timeout:
                self._deadline = min(now + wait + self._call.timeout.request, self._call.end)
        elif not budget.failed():
            return None
        return wait if wait < self.left else None
