"""Calls to an OpenAI-compatible endpoint, with time-outs, retries, a cache and a circuit breaker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import openai

from serving.enrich.cache import Cache
from serving.enrich.config import Config
from serving.enrich.meter import Meter

LOG = logging.getLogger("vlclip.agent")
MAX_BACKOFF = 8.0
MAX_PROBE_SECONDS = 60.0
T = TypeVar("T")


class EndpointError(Exception):
    """There is no answer, and a retry would not help now. The message is for logs and contains no secret."""


class RetryableError(Exception):
    """A call failed and may be retried: after ``after`` seconds, if the endpoint sent Retry-After.

    ``healthy`` means that the endpoint works, but its model wrote an unusable answer.
    """

    def __init__(self, result: str, *, after: float | None = None, healthy: bool = False) -> None:
        super().__init__(result)
        self.after = after
        self.healthy = healthy


@dataclass(frozen=True)
class Question:
    """A call: a role's prompt, the data, perhaps an image as a data URL, and the schema of the answer."""

    role: str
    prompt: str
    data: str
    image: str | None
    schema: Mapping[str, Any]

    def messages(self, structured: bool) -> list[dict[str, Any]]:
        prompt = self.prompt
        if not structured:
            prompt += (
                f"\nWrite the answer as a JSON object of this schema, with nothing around: {json.dumps(self.schema)}\n"
            )
        content: Any = self.data
        if self.image:
            content = [{"type": "text", "text": self.data}, {"type": "image_url", "image_url": {"url": self.image}}]
        return [{"role": "system", "content": prompt}, {"role": "user", "content": content}]


@dataclass
class Turn:
    """A product's place among those that are processed. It takes the place, and its time starts, at its first call."""

    places: asyncio.Semaphore
    seconds: float
    end: float | None = None

    async def begin(self) -> None:
        if self.end is None:
            await self.places.acquire()
            self.end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return self.seconds if self.end is None else self.end - time.monotonic()

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.end is not None:
            self.places.release()


class Circuit:
    """A circuit breaker. It opens after consecutive failures, then probes the endpoint and closes when that answers.

    No product waits for a probe, so that every product falls back at once while the endpoint is down.
    """

    def __init__(self, config: Config, probe: Callable[[], Any], meter: Meter) -> None:
        self.config = config
        self.is_open = False
        self._probe = probe
        self._meter = meter
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        meter.set("circuit_open", 0)

    def record(self, result: str, healthy: bool) -> None:
        """Count the result of a call."""
        self._failures = 0 if healthy else self._failures + 1
        if self.is_open and healthy:
            self.is_open = False
            self._meter.set("circuit_open", 0)
            LOG.warning("%s answers again", self.config.host)
        elif not self.is_open and self._failures >= self.config.failures:
            self.is_open = True
            self._meter.set("circuit_open", 1)
            LOG.warning("%s fails (%s): texts are composed until it answers again", self.config.host, result)
            self._probing = asyncio.get_running_loop().create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        seconds = self.config.probe_seconds
        while self.is_open:
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, max(MAX_PROBE_SECONDS, self.config.probe_seconds))
            if self.is_open and await self._probe():
                self.record("answered", healthy=True)


class Endpoint:
    """The endpoint, for use on one event loop."""

    def __init__(self, config: Config, cache: Cache, meter: Meter) -> None:
        self.config = config
        self.meter = meter
        self.circuit = Circuit(config, self._probe, meter)
        self.structured = True
        self._cache = cache
        self._disk = ThreadPoolExecutor(1, "agent-cache")
        self._places = asyncio.Semaphore(config.concurrency)
        self._flying: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._in_flight = 0
        # Without a key, the package would send OPENAI_API_KEY, which is for another host. It must not retry, because it
        # knows neither the product's deadline nor the circuit breaker.
        self._client = openai.AsyncOpenAI(base_url=config.url, api_key=config.key or "none", max_retries=0)

    def turn(self) -> Turn:
        return Turn(self._places, self.config.item_seconds)

    async def ask(self, question: Question, turn: Turn) -> dict[str, Any]:
        """The answer's properties: from the cache, from an equal call in flight, or from a new call.

        Raises EndpointError.
        """
        key = self._key(question)
        flying = self._flying.get(key)
        if flying is not None:
            self.meter.add("cache", result="joined")
        else:
            flying = asyncio.get_running_loop().create_task(self._fetch(key, question, turn))
            self._flying[key] = flying
            flying.add_done_callback(lambda _: self._flying.pop(key))
        return await asyncio.shield(flying)

    async def close(self) -> None:
        await self._client.close()
        await asyncio.get_running_loop().run_in_executor(self._disk, self._cache.close)
        self._disk.shutdown()

    def _key(self, question: Question) -> str:
        """The cache key: a hash of everything that determines the answer."""
        image = hashlib.sha256(question.image.encode()).hexdigest() if question.image else None
        asked = [self.config.model, self.config.options, question.prompt, question.data, image, question.schema]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    async def _fetch(self, key: str, question: Question, turn: Turn) -> dict[str, Any]:
        known = await self._keep(lambda: self._cache.get(key))
        self.meter.add("cache", result="miss" if known is None else "hit")
        if known is not None:
            answer: dict[str, Any] = json.loads(known)
            return answer
        if self.circuit.is_open:
            raise EndpointError(f"{self.config.host} fails")
        await turn.begin()
        answer = await self._until_answered(question, turn)
        await self._keep(lambda: self._cache.put(key, json.dumps(answer, ensure_ascii=False)))
        return answer

    async def _keep(self, use: Callable[[], T]) -> T | None:
        """Use the cache on its own thread. If it fails, the answer comes from a call instead."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, use)
        except OSError as error:
            self.meter.add("cache", result="error")
            LOG.warning("%s", error)
            return None

    async def _until_answered(self, question: Question, turn: Turn) -> dict[str, Any]:
        for tries in range(1 + self.config.retries):
            if self.circuit.is_open:
                raise EndpointError(f"{self.config.host} fails")
            if turn.left <= 0:
                break
            try:
                return await self._try(question, min(self.config.call_seconds, turn.left))
            except RetryableError as error:
                wait = random.uniform(0, min(MAX_BACKOFF, 0.25 * 2**tries)) if error.after is None else error.after
                if tries == self.config.retries or wait >= turn.left:
                    raise EndpointError(f"{self.config.host}: {error} at attempt {tries + 1}") from None
                await asyncio.sleep(wait)
        raise EndpointError(f"{self.config.host}: no answer within {self.config.item_seconds:g} s")

    async def _try(self, question: Question, seconds: float) -> dict[str, Any]:
        """One attempt. Raises RetryableError or EndpointError."""
        begun, result = time.monotonic(), "broken"
        healthy: bool | None = None
        try:
            body = await self._send(question, seconds)
            result = "malformed"
            answer = parse(self._content(body), question.schema)
            result, healthy = "answered", True
            return answer
        except RetryableError as error:
            healthy = error.healthy
            raise
        except openai.APIStatusError as error:
            result = str(error.status_code)
            # It may reject this product only, such as a text that its filter blocks. A busy endpoint is healthy, too.
            healthy = error.status_code in (400, 413, 422, 429)
            if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
                raise RetryableError(result, after=retry_after(error.response.headers)) from None
            raise EndpointError(f"{self.config.host} rejected a call with {result}") from None
        except (openai.APITimeoutError, asyncio.TimeoutError):
            result, healthy = "timeout", False
            raise RetryableError(result) from None
        except openai.OpenAIError as error:
            result, healthy = "unreachable" if isinstance(error, openai.APIConnectionError) else "broken", False
            raise RetryableError(result) from None
        finally:
            if healthy is not None:  # None if the call was cancelled
                self.circuit.record(result, healthy)
            self.meter.add("calls", role=question.role, result=result)
            self.meter.observe("call_seconds", time.monotonic() - begun)

    async def _send(self, question: Question, seconds: float) -> bytes:
        """Send a call, or two if the endpoint turns out not to support JSON schemas."""
        end = time.monotonic() + seconds
        if not self.structured:
            return await self._post(question.messages(structured=False), seconds)
        schema = {"name": question.role, "strict": True, "schema": question.schema}
        form = {"type": "json_schema", "json_schema": schema}
        try:
            return await self._post(question.messages(structured=True), seconds, response_format=form)
        except openai.APIStatusError as error:
            if error.status_code not in (400, 422):
                raise
        body = await self._post(question.messages(structured=False), end - time.monotonic())
        LOG.warning("%s does not support JSON schemas: the prompt describes the answer instead", self.config.host)
        self.structured = False
        return body

    async def _post(self, messages: list[dict[str, Any]], seconds: float, **form: Any) -> bytes:
        create: Any = self._client.chat.completions.with_raw_response.create
        sent = create(
            model=self.config.model, messages=messages, timeout=seconds, extra_body=dict(self.config.options), **form
        )
        self._in_flight += 1
        self.meter.set("calls_in_flight", self._in_flight)
        try:
            # The package's own time-out only limits the time between two pieces of an answer.
            content: bytes = (await asyncio.wait_for(sent, seconds)).content
            return content
        finally:
            self._in_flight -= 1
            self.meter.set("calls_in_flight", self._in_flight)

    def _content(self, body: bytes) -> str:
        """The model's text, from the endpoint's JSON."""
        try:
            completion = json.loads(body)
            content = completion["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise RetryableError("no completion") from None
        usage = completion.get("usage") or {}
        for kind in ("prompt", "completion"):
            with suppress(TypeError, ValueError, AttributeError, OverflowError):
                self.meter.add("tokens", int(usage.get(f"{kind}_tokens", 0)), kind=kind)
        if not isinstance(content, str):
            raise RetryableError("no text", healthy=True)
        return content

    async def _probe(self) -> bool:
        """Whether the endpoint answers a real call. An endpoint that is up can still have lost its model."""
        result = "answered"
        try:
            question = [{"role": "user", "content": "Answer with OK."}]
            await self._post(question, self.config.call_seconds)
        except openai.APIStatusError as error:
            result = str(error.status_code)
        except (openai.OpenAIError, asyncio.TimeoutError):
            result = "unreachable"
        self.meter.add("calls", role="probe", result=result)
        return result in ("answered", "400", "422")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in a Retry-After header, which is a number or a date; None if it is neither."""
    header = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(header))
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def parse(content: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The answer's properties, from JSON with or without a Markdown fence. Plain text is the first property.

    Raises RetryableError for invalid JSON or an empty answer.
    """
    # Reasoning models print their thoughts first.
    text = re.sub(r"^\s*<think>.*?</think>", "", content, flags=re.DOTALL).strip()
    if fenced := re.fullmatch(r"```\w*\s*(.*?)\s*```", text, flags=re.DOTALL):
        text = fenced[1]
    first = next(iter(schema["properties"]))
    if text.startswith(("{", "[")):
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise RetryableError("malformed", healthy=True) from None
    else:
        answer = {first: text}
    if not isinstance(answer, dict) or not isinstance(answer.get(first), str) or not answer[first].strip():
        raise RetryableError("malformed", healthy=True)
    return answer
