"""What every request passes: the API key, the size of the body, the number of requests at once, and the time limit."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.gateway.problems import Problem, response

REQUESTS = Counter("vlclip_gateway_requests_total", "Requests by path and status", ["path", "status"])
SECONDS = Histogram(
    "vlclip_gateway_seconds",
    "Seconds to answer, by path",
    ["path"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Guard:
    """Middleware that refuses what a request must not do. Bodies are limited while they arrive."""

    def __init__(self, app: ASGIApp, *, keys: Iterable[str], max_bytes: int, max_requests: int, seconds: float) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]
        self._max_bytes, self._max_requests, self._seconds = max_bytes, max_requests, seconds
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        status, started, answered = 500, time.monotonic(), False

        async def observed(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
            await send(message)

        try:
            problem = self._refused(scope)
            if problem is None:
                self._active += 1
                try:
                    limited = _limited(receive, self._max_bytes)
                    await asyncio.wait_for(self._app(scope, limited, observed), self._seconds)
                except TimeoutError:
                    problem = Problem(504, f"the request took longer than {self._seconds:g} s", retry=True)
                except Problem as found:
                    problem = found
                finally:
                    self._active -= 1
            if problem is not None and not answered:
                await response(scope["path"], problem)(scope, receive, observed)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            REQUESTS.labels(path, status).inc()
            SECONDS.labels(path).observe(time.monotonic() - started)

    def _refused(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        if self._keys and not self._knows(headers):
            return Problem(401, "this gateway needs an API key: send it as `Authorization: Bearer KEY`")
        if int(headers.get(b"content-length", b"0") or 0) > self._max_bytes:
            return _too_large(self._max_bytes)
        if self._active >= self._max_requests:
            return Problem(503, f"{self._active} requests are being answered, which is the limit", retry=True)
        return None

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return any(hmac.compare_digest(given, key) for key in self._keys)


def _limited(receive: Receive, most: int) -> Receive:
    count = 0

    async def limited() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > most:
            raise _too_large(most)
        return message

    return limited


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body has more than {most >> 20} MiB; send fewer or smaller photos")
