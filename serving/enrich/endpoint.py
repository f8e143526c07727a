"""Calls to an OpenAI-compatible endpoint that may be slow, busy, broken or gone: answers, or an error in time."""

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
LONGEST_WAIT = 8.0
LONGEST_PROBE = 60.0
T = TypeVar("T")


class EndpointError(Exception):
    """There is no answer, and asking again would not help now. The message is for logs and holds no secret."""


class TryAgain(Exception):
    """This try failed. ``after`` is what the endpoint said about seconds, ``broken`` whether it is to blame."""

    def __init__(self, result: str, *, after: float | None = None, broken: bool = True) -> None:
        super().__init__(result)
        self.after = after
        self.broken = broken


@dataclass(frozen=True)
class Question:
    """One call: a role's prompt, the data, perhaps an image as a data URL, and the properties of the answer."""

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


class Turn:
    """One product's place among those that are worked on, taken at its first call; its clock runs from then on."""

    def __init__(self, places: asyncio.Semaphore, seconds: float) -> None:
        self._places = places
        self._seconds = seconds
        self._end: float | None = None

    async def begin(self) -> None:
        if self._end is None:
            await self._places.acquire()
            self._end = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        return self._seconds if self._end is None else self._end - time.monotonic()

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._end is not None:
            self._places.release()


class Circuit:
    """Opens after so many failures in a row; probes the endpoint by itself then, and closes when it answers.

    No product waits for a probe, so that with the endpoint down every one is answered at once.
    """

    def __init__(self, config: Config, probe: Callable[[], Any], meter: Meter) -> None:
        self.config = config
        self.is_open = False
        self._probe = probe
        self._meter = meter
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        meter.set("circuit_open", 0)

    def answered(self) -> None:
        self._failures = 0
        if self.is_open:
            self.is_open = False
            self._meter.set("circuit_open", 0)
            LOG.warning("%s answers again", self.config.host)

    def failed(self, result: str) -> None:
        self._failures += 1
        if not self.is_open and self._failures >= self.config.failures:
            self.is_open = True
            self._meter.set("circuit_open", 1)
            LOG.warning("%s is out of order (%s): texts are composed until it answers", self.config.host, result)
            self._probing = asyncio.get_running_loop().create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        seconds = self.config.probe_seconds
        while self.is_open:
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, max(LONGEST_PROBE, self.config.probe_seconds))
            if self.is_open and await self._probe():
                self.answered()


class Endpoint:
    """Belongs to one event loop."""

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
        # Without a key of ours the package would take OPENAI_API_KEY, which is for another host. It is told not to try
        # again, since it knows neither the product's deadline nor the circuit.
        self._client = openai.AsyncOpenAI(base_url=config.url, api_key=config.key or "none", max_retries=0)

    def turn(self) -> Turn:
        return Turn(self._places, self.config.item_seconds)

    async def ask(self, question: Question, turn: Turn) -> dict[str, Any]:
        """The answer's properties, paid for only once: from the cache, or from a call that is under way, or from a new
        one. Raises EndpointError.
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
        """Of the model, the prompt and all it is asked about."""
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
            raise EndpointError(f"{self.config.host} is out of order")
        await turn.begin()
        answer = await self._until_answered(question, turn)
        await self._keep(lambda: self._cache.put(key, json.dumps(answer, ensure_ascii=False)))
        return answer

    async def _keep(self, use: Callable[[], T]) -> T | None:
        """A cache that is out of order costs calls, never answers."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, use)
        except OSError as error:
            self.meter.add("cache", result="error")
            LOG.warning("%s", error)
            return None

    async def _until_answered(self, question: Question, turn: Turn) -> dict[str, Any]:
        for tries in range(1 + self.config.retries):
            if self.circuit.is_open:
                raise EndpointError(f"{self.config.host} is out of order")
            if turn.left <= 0:
                break
            try:
                return await self._try(question, min(self.config.call_seconds, turn.left))
            except TryAgain as error:
                wait = random.uniform(0, min(LONGEST_WAIT, 0.25 * 2**tries)) if error.after is None else error.after
                if tries == self.config.retries or wait >= turn.left:
                    raise EndpointError(f"{self.config.host}: {error} at try {tries + 1}") from None
                await asyncio.sleep(wait)
        raise EndpointError(f"{self.config.host}: no answer within {self.config.item_seconds:g} s")

    async def _try(self, question: Question, seconds: float) -> dict[str, Any]:
        """One call, or two where the endpoint turns out not to know JSON schemas. Raises TryAgain or EndpointError."""
        begun, structured = time.monotonic(), self.structured
        result = "broken"
        try:
            try:
                body = await self._send(question, structured, seconds)
            except openai.APIStatusError as error:
                if not (structured and error.status_code in (400, 422)):
                    raise
                body = await self._send(question, False, begun + seconds - time.monotonic())
                LOG.warning("%s takes no JSON schemas: answers are asked for in the prompt", self.config.host)
                self.structured = False
            result = "malformed"
            answer = parse(self._content(body), question.schema)
            result = "answered"
        except TryAgain as error:
            if error.broken:
                self.circuit.failed(str(error))
            else:
                self.circuit.answered()
            raise
        except openai.APIStatusError as error:
            result = str(error.status_code)
            if error.status_code in (400, 413, 422):
                # It is this product that the endpoint does not want, so the next may fare better.
                self.circuit.answered()
                raise EndpointError(f"{self.config.host} refused a call with {result}") from None
            # One that has too much to do is in order: its callers wait as long as it says.
            if error.status_code != 429:
                self.circuit.failed(result)
            if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
                raise TryAgain(result, after=retry_after(error.response.headers)) from None
            raise EndpointError(f"{self.config.host} answered {result}") from None
        except (openai.APITimeoutError, asyncio.TimeoutError):
            result = "timeout"
            self.circuit.failed(result)
            raise TryAgain(result) from None
        except openai.OpenAIError as error:
            result = "unreachable" if isinstance(error, openai.APIConnectionError) else "broken"
            self.circuit.failed(result)
            raise TryAgain(result) from None
        finally:
            self.meter.add("calls", role=question.role, result=result)
            self.meter.observe("call_seconds", time.monotonic() - begun)
        self.circuit.answered()
        return answer

    async def _send(self, question: Question, structured: bool, seconds: float) -> bytes:
        form: dict[str, Any] = {}
        if structured:
            schema = {"name": question.role, "strict": True, "schema": question.schema}
            form["response_format"] = {"type": "json_schema", "json_schema": schema}
        self._in_flight += 1
        self.meter.set("calls_in_flight", self._in_flight)
        try:
            # The package's timeout is between two pieces of an answer, and an answer may come in many pieces.
            return await asyncio.wait_for(self._post(question.messages(structured), seconds, **form), seconds)
        finally:
            self._in_flight -= 1
            self.meter.set("calls_in_flight", self._in_flight)

    async def _post(self, messages: list[dict[str, Any]], seconds: float, **form: Any) -> bytes:
        create: Any = self._client.chat.completions.with_raw_response.create
        response = await create(
            model=self.config.model, messages=messages, timeout=seconds, extra_body=dict(self.config.options), **form
        )
        content: bytes = response.content
        return content

    def _content(self, body: bytes) -> str:
        """What the model wrote, from the endpoint's JSON."""
        try:
            completion = json.loads(body)
            content = completion["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TryAgain("no completion") from None
        usage = completion.get("usage") or {}
        for kind in ("prompt", "completion"):
            with suppress(TypeError, ValueError, AttributeError, OverflowError):
                self.meter.add("tokens", int(usage.get(f"{kind}_tokens", 0)), kind=kind)
        if not isinstance(content, str):
            raise TryAgain("no text", broken=False)
        return content

    async def _probe(self) -> bool:
        """Whether the endpoint answers a real call, since one that is alive may still have lost its model."""
        result = "answered"
        try:
            question = [{"role": "user", "content": "Answer with OK."}]
            await asyncio.wait_for(self._post(question, self.config.call_seconds), self.config.call_seconds)
        except openai.APIStatusError as error:
            result = str(error.status_code)
        except (openai.OpenAIError, asyncio.TimeoutError):
            result = "unreachable"
        self.meter.add("calls", role="probe", result=result)
        return result in ("answered", "400", "422")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date; None without either."""
    said = headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def parse(content: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The answer's properties, from JSON with or without a fence around, or from plain text, which is the first one's.

    Raises TryAgain where it is neither.
    """
    # Models that think aloud do so first.
    text = re.sub(r"^\s*<think>.*?</think>", "", content, flags=re.DOTALL).strip()
    if fenced := re.fullmatch(r"```\w*\s*(.*?)\s*```", text, flags=re.DOTALL):
        text = fenced[1]
    first = next(iter(schema["properties"]))
    if text.startswith(("{", "[")):
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise TryAgain("malformed", broken=False) from None
    else:
        answer = {first: text}
    if not isinstance(answer, dict) or not isinstance(answer.get(first), str) or not answer[first].strip():
        raise TryAgain("malformed", broken=False)
    return answer
