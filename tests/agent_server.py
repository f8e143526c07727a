"""An OpenAI-compatible endpoint over real HTTP whose answers and failures a test scripts.

with AgentServer() as server:
    server.script = lambda call: Reply(status=503) if call.attempt == 1 else sensible(call)
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from serving.enrich import config

PROMPTS = {role: (config.PROMPTS / f"{role}.md").read_text() for role in ("summarizer", "evaluator", "refiner")}


@dataclass(frozen=True)
class Call:
    """A request. ``attempt`` counts equal requests, from 1."""

    role: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    attempt: int

    @property
    def structured(self) -> bool:
        return "response_format" in self.body

    @property
    def system(self) -> str:
        return next(str(one["content"]) for one in self.body["messages"] if one["role"] == "system")

    @property
    def user(self) -> Any:
        return self.body["messages"][-1]["content"]

    @property
    def data(self) -> dict[str, Any]:
        """The JSON between the delimiters."""
        text = self.user if isinstance(self.user, str) else self.user[0]["text"]
        data: dict[str, Any] = json.loads(text.removeprefix("<data>\n").removesuffix("\n</data>"))
        return data


@dataclass(frozen=True)
class Reply:
    """A reply: a completion with this content, or a raw body.

    The server sends nothing before the event ``after`` is set. It sends one byte of the body every ``drip`` seconds, or
    closes the connection in the middle of the body (``cut``).
    """

    content: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    after: threading.Event | None = None
    drip: float = 0.0
    cut: bool = False

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": "Scripted.", "type": "scripted", "code": self.status}}).encode()
        completion = {
            "choices": [{"message": {"role": "assistant", "content": self.content}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        }
        return json.dumps(completion).encode()


STALLED = Reply("...", after=threading.Event())
"""No test sets its event, so it never comes."""


def says(**answer: Any) -> Reply:
    """A structured answer."""
    return Reply(json.dumps(answer))


def sensible(call: Call) -> Reply:
    """The answer of a good model: the product's colour and type, and nothing to criticise."""
    if call.role == "evaluator":
        return says(verdict="<STOP>")
    if call.role == "probe":
        return Reply("OK")
    product = call.data["product"]
    return says(text=f"{product.get('attributes', {}).get('colour', '')} {product['type']}".strip())


class AgentServer:
    """Serves on its own thread. ``stop`` shuts the endpoint down, and ``start`` brings it back on the same port."""

    def __init__(self, script: Callable[[Call], Reply] = sensible) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._at_once = 0
        self._seen: Counter[str] = Counter()
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def count(self, role: str | None = None) -> int:
        """The number of calls so far, without those of the probe."""
        return sum(call.role == role if role else call.role != "probe" for call in self.calls)

    def start(self) -> None:
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())

    def __enter__(self) -> AgentServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v1/chat/completions", self._answer)
        # A time-out of 0 would be none.
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1000).start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        reply = self.script(self._note(await request.json(), request.headers))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            while reply.after and not reply.after.is_set():
                await asyncio.sleep(0.01)
        finally:
            self._at_once -= 1
        body = reply.encoded()
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_type = "application/json"
        response.content_length = len(body)
        await response.prepare(request)
        if reply.cut:
            await response.write(body[: len(body) // 2])
            assert request.transport
            request.transport.close()
            return response
        for piece in [body] if not reply.drip else [body[i : i + 1] for i in range(len(body))]:
            await asyncio.sleep(reply.drip)
            await response.write(piece)
        return response

    def _note(self, body: dict[str, Any], headers: Mapping[str, str]) -> Call:
        first = body["messages"][0]
        roles = (role for role, prompt in PROMPTS.items() if first["content"].startswith(prompt))
        role = next(roles, "unknown") if first["role"] == "system" else "probe"
        question = json.dumps(body)
        self._seen[question] += 1
        self.calls.append(Call(role, body, headers, self._seen[question]))
        return self.calls[-1]
