"""What every request of the API passes: host, origin, API key, size of the body, requests at once, and time limit."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.gateway.problems import Problem, problem_of, response

REQUESTS = Counter("vlclip_gateway_requests_total", "Requests by path and status", ["path", "status"])
ACTIVE = Gauge("vlclip_gateway_active_requests", "Requests that are being answered")
SECONDS = Histogram(
    "vlclip_gateway_seconds",
    "Seconds to answer, by path",
    ["path"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
BULK = ("POST", "/v1/products")


@dataclass(frozen=True)
class Settings:
    """How the gateway treats its callers.

    ``hosts`` are the names by which it may be called; None allows all. A gateway without keys should allow the names of
    this machine only, or a page of the internet whose name points to 127.0.0.1 could read and write through a browser.
    ``max_bytes`` limits the body of a request, and one line of a bulk request. ``seconds`` limits a request, and each
    step of a bulk request, which has ``bulk_seconds`` in all.
    """

    keys: frozenset[str] = field(default_factory=frozenset, repr=False)
    photo_hosts: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    max_bytes: int = 64 << 20
    max_requests: int = 64
    seconds: float = 30.0
    bulk_seconds: float = 3600.0


class Guard:
    """Middleware that refuses what a request must not do. Bodies are limited while they arrive.

    A request that ran out of time is answered at once. It counts as active until its thread has ended.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._keys = [key.encode() for key in settings.keys]
        self._active = {"all": 0, "writes": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        exchange = _Exchange(receive, send, None if _is_bulk(scope) else self._settings.max_bytes)
        try:
            problem = self._refused(scope) or await self._answered(scope, exchange)
            if problem is not None and not exchange.answered:
                await response(scope["path"], problem)(scope, receive, exchange.reply)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            REQUESTS.labels(path, exchange.status).inc()
            SECONDS.labels(path).observe(time.monotonic() - started)

    async def _answered(self, scope: Scope, exchange: _Exchange) -> Problem | None:
        """Run the app, and return the problem that ended it, if any."""
        release = self._take(scope)
        task = asyncio.ensure_future(self._app(scope, exchange.receive, exchange.send))
        task.add_done_callback(lambda task: release())
        seconds = self._settings.bulk_seconds if _is_bulk(scope) else self._settings.seconds
        try:
            await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            exchange.close()
            task.cancel()
            task.add_done_callback(_forget)
            return Problem(504, f"the request took longer than {seconds:g} s", retry=True)
        error = task.exception()
        if exchange.problem is not None:
            return exchange.problem
        # Answered here, because the server closes the connection of an error that reaches it.
        return problem_of(error) if isinstance(error, Exception) else None

    def _take(self, scope: Scope) -> Callable[[], None]:
        kinds = ["all", "writes"] if _is_write(scope) else ["all"]
        for kind in kinds:
            self._active[kind] += 1
        ACTIVE.inc()

        def release() -> None:
            for kind in kinds:
                self._active[kind] -= 1
            ACTIVE.dec()

        return release

    def _refused(self, scope: Scope) -> Problem | None:
        settings = self._settings
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if settings.hosts is not None and _name_of(host) not in settings.hosts:
            names = ", ".join(sorted(settings.hosts))
            return Problem(421, f"this gateway answers to {names}, not to {host or 'a request without a host'}")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            own = urlsplit(origin).netloc.lower() == host
            if not own and origin not in settings.origins and "*" not in settings.origins:
                return Problem(403, f"pages of {origin} may not call this gateway; start it with --origin {origin}")
        if self._keys and not self._knows(headers):
            return Problem(401, "this gateway needs an API key: send it as `Authorization: Bearer KEY`")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > settings.max_bytes and not _is_bulk(scope):
            return _too_large(settings.max_bytes)
        most = settings.max_requests
        if self._active["all"] >= most or (_is_write(scope) and self._active["writes"] >= max(1, most // 2)):
            return Problem(503, f"{self._active['all']} requests are being answered; the limit is {most}", retry=True)
        return None

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if not given and scheme.lower() == b"bearer":
            given = token.strip()
        return sum(hmac.compare_digest(given, key) for key in self._keys) > 0


class _Exchange:
    """The two ends of a request: a body that is limited while it arrives, and an answer that can be cut off."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int | None) -> None:
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self._count = 0
        self._closed = False
        self.problem: Problem | None = None
        self.status, self.answered = 500, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._max_bytes is not None and self._count > self._max_bytes:
            self.problem = _too_large(self._max_bytes)
            raise self.problem
        return message

    async def send(self, message: Message) -> None:
        # FastAPI answers a body that could not be read with 400, but the reason is known here.
        if not self._closed and (self.answered or self.problem is None):
            await self.reply(message)

    async def reply(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.answered = message["status"], True
        await self._send(message)

    def close(self) -> None:
        self._closed = True


def _forget(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()


def _is_bulk(scope: Scope) -> bool:
    return (scope["method"], scope["path"]) == BULK


def _is_write(scope: Scope) -> bool:
    return scope["method"] in ("PUT", "DELETE") or _is_bulk(scope)


def _name_of(host: str) -> str:
    """The host without its port: ``localhost:8080`` or ``[::1]:8080``."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body has more than {most >> 20} MiB; send fewer or smaller photos")
