"""Time and second chances, without I/O: deadlines, what is tried again and when, and how much of it."""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass

from vlclip.errors import InvalidInputError, OverloadedError, RequestError, UnavailableError


@dataclass(frozen=True)
class Timeout:
    """Seconds.

    Timeout(request=5)             a batch has its answer after 5 s, all its tries together
    Timeout(request=5, total=60)   a call, however many batches it has, ends after 60 s
    Timeout(connect=1)             a server that is not there, or went away, is waited for 1 s
    """

    request: float = 30.0
    connect: float = 5.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in ("request", "connect", "total"):
            seconds = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
                raise InvalidInputError(f"timeout: expected {name} seconds above 0, and not infinite, got {seconds!r}")

    @classmethod
    def of(cls, given: float | Timeout | None, default: Timeout) -> Timeout:
        """What a call was given; a number is the time for a request."""
        if given is None:
            return default
        if isinstance(given, Timeout):
            return given
        return cls(given, default.connect, default.total)


@dataclass(frozen=True)
class Retry:
    """When a request that failed is sent again: never past its deadline, and only if the server was unavailable or
    overloaded. All pipelines are pure functions, so a second try cannot do harm.

    The wait before try n + 1 is random, up to ``first`` · 2ⁿ⁻¹ seconds and never above ``longest``.

    A failure takes one token of the client's ``tokens``, an answer gives ``refund`` back. Without tokens nothing is
    tried again: when every request fails, the servers soon get no more than their callers send.

    A call of several batches does not send faster than it is answered, so an overloaded server may pace it: to be
    refused then costs neither a token nor the request's time, until a batch was refused for ``patience`` seconds.
    """

    first: float = 0.05
    longest: float = 2.0
    tokens: float = 100.0
    refund: float = 0.5
    patience: float = 600.0

    def __post_init__(self) -> None:
        for name in ("first", "longest", "tokens", "refund", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInputError(f"retry: expected {name} of 0 or more, got {getattr(self, name)!r}")


DEFAULT_RETRY = Retry()
NO_CONNECTION = "connections to all backends failing"
"""What gRPC's round robin says of a request that was never sent."""


class Budget:
    """The tokens of one client; its threads share them."""

    def __init__(self, retry: Retry | None) -> None:
        self.retry = retry
        self._tokens = retry.tokens if retry else 0.0
        self._lock = threading.Lock()

    def answered(self) -> None:
        if self.retry:
            with self._lock:
                self._tokens = min(self.retry.tokens, self._tokens + self.retry.refund)

    def failed(self) -> bool:
        """Takes a token; whether there was one."""
        with self._lock:
            had = self._tokens >= 1
            self._tokens = max(0.0, self._tokens - 1)
        return had


class Call:
    """The clock of one call: its batches begin and end within it."""

    def __init__(self, timeout: Timeout, budget: Budget) -> None:
        self.timeout = timeout
        self.budget = budget
        self.end = time.monotonic() + timeout.total if timeout.total else math.inf
        self.batches = 0

    def request(self) -> Tries:
        return Tries(self)


class Tries:
    """The tries of one request."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._begun = self._sent = time.monotonic()
        self._end = min(self._begun + call.timeout.request, call.end)
        self.allowed = self._end - self._begun
        self.count = 0

    def begin(self) -> None:
        """To be called before each try."""
        self.count += 1
        self._sent = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the deadline; at least a little, since gRPC answers a passed deadline by itself."""
        return max(self._end - time.monotonic(), 1e-3)

    def left_to_connect(self, error: RequestError) -> float:
        """Seconds for which a connection may be waited for after a try, which may have waited for one itself."""
        waited = time.monotonic() - self._sent if NO_CONNECTION in str(error) else 0.0
        return min(self._call.timeout.connect - waited, self.left)

    def wait_before_next(self, error: RequestError) -> float | None:
        """Seconds until the next try, or ``None`` if there is none."""
        if not isinstance(error, UnavailableError | OverloadedError):
            return None
        budget = self._call.budget
        retry = budget.retry
        if retry is None:
            return None
        wait = random.uniform(0.0, min(retry.longest, retry.first * 2.0 ** min(self.count - 1, 30)))
        if isinstance(error, OverloadedError) and self._call.batches > 1:
            now = time.monotonic()
            if now + wait < self._begun + retry.patience:
                self._end = min(now + wait + self._call.timeout.request, self._call.end)
        elif not budget.failed():
            return None
        return wait if wait < self.left else None
