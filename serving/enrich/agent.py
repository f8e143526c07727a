"""Summarizer, Evaluator, Refiner: a language model writes a product's text, then judges and rewrites it.

The model's word counts for nothing until ``checks`` has found nothing wrong with it; a product that it cannot be had
for gets the text that ``compose`` makes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import threading
import unicodedata
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.enrich.cache import open_cache
from serving.enrich.checks import problems, runs
from serving.enrich.compose import compose
from serving.enrich.config import Config, ConfigError
from serving.enrich.endpoint import Endpoint, EndpointError, Question, Turn
from serving.enrich.meter import Meter
from serving.enrich.product import Enriched, Outcome, Product
from serving.enrich.tokens import Tokens

LOG = logging.getLogger("vlclip.agent")

MAX_ROUNDS = 5
STOP = re.compile(r"\W*STOP\W*")
LONGEST_DATUM = 4000
"""Characters of one of a product's texts that are sent. What says most stands first, and each one is paid for."""

SUMMARIZER, EVALUATOR, REFINER = ROLES = ("summarizer", "evaluator", "refiner")
SEEN = ("colour", "pattern", "material")
"""What the Summarizer is asked to read off a photo: the attributes that a text may have from there."""


@dataclass(frozen=True)
class Prompts:
    """One per role; ``version`` is a hash of all, and changes with every character."""

    texts: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Prompts:
        """Raises ConfigError."""
        try:
            return cls({role: (folder / f"{role}.md").read_text(encoding="utf-8") for role in ROLES})
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"the prompts in {folder} cannot be read: {error}") from None

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(json.dumps(dict(self.texts), sort_keys=True).encode()).hexdigest()[:12]


class Agent:
    """Any number of threads may call ``enrich``; all calls to the endpoint run on one event loop."""

    def __init__(self, config: Config, tokens: Tokens, meter: Meter) -> None:
        """Raises ConfigError or OSError where prompts or cache cannot be used. An endpoint that is down is no error."""
        self.config = config
        self.tokens = tokens
        """To be set anew when the encoder changes."""
        self.meter = meter
        self.prompts = Prompts.read(config.prompts)
        self._instructions = {run for prompt in self.prompts.texts.values() for run in runs(prompt)}
        self._endpoint = Endpoint(config, open_cache(config.cache), self.meter)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agent", daemon=True)
        self._thread.start()

    def enrich(self, product: Product, image: bytes | None = None) -> Enriched:
        """A text that fits the encoder; never raises for what an endpoint does."""
        return self.submit(product, image).result()

    def submit(self, product: Product, image: bytes | None = None) -> Future[Enriched]:
        """``enrich`` without waiting."""
        return asyncio.run_coroutine_threadsafe(self._enrich(product, image or None), self._loop)

    def close(self) -> None:
        """Calls that are under way are given up."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._endpoint.close()

    async def _enrich(self, product: Product, image: bytes | None) -> Enriched:
        shown = data_url(image) if image and self.config.vision else None
        async with self._endpoint.turn() as turn:
            text, rounds, status = await self._write(brief(product), shown, turn)
        self.meter.add("items", status=status.name.lower())
        self.meter.add("rounds", rounds if text else 0)
        if not text:
            return Enriched(compose(product, self.tokens), 0, status)
        return Enriched(text, rounds, status, self.prompts.version)

    async def _write(self, product: Product, image: str | None, turn: Turn) -> tuple[str, int, Outcome]:
        """The last draft in which nothing is wrong by our own checks, be it stopped by the Evaluator, by the rounds or
        by an endpoint that fails; an empty text if there was none.
        """
        good, rounds = "", 0
        try:
            answer = await self._ask(SUMMARIZER, turn, image, product=product)
            draft = one_line(answer["text"])
            # What the model says it saw counts only where there was something to see.
            facts = with_seen(product, answer.get("seen")) if image else product
            for rounds in range(1, MAX_ROUNDS + 1):
                wrong = self._problems(draft, facts)
                if wrong:
                    critique = " ".join(wrong)
                else:
                    good = draft
                    judged = await self._ask(EVALUATOR, turn, image, product=product, text=draft)
                    critique = one_line(judged["verdict"])
                    if STOP.fullmatch(critique):
                        return good, rounds, Outcome.WRITTEN
                refined = await self._ask(REFINER, turn, image, product=product, text=draft, critique=critique)
                draft = one_line(refined["text"])
            if not self._problems(draft, facts):
                good = draft
        except EndpointError as error:
            LOG.info("%s", error)
            return good, rounds, Outcome.WRITTEN if good else Outcome.UNANSWERED
        return good, rounds, Outcome.WRITTEN if good else Outcome.REFUSED

    def _problems(self, draft: str, facts: Product) -> list[str]:
        wrong = problems(draft, facts, self.tokens)
        return ["The text repeats your instructions.", *wrong] if runs(draft) & self._instructions else wrong

    async def _ask(self, role: str, turn: Turn, image: str | None, product: Product, **more: str) -> dict[str, Any]:
        data = {"product": described(product), **{name: clean(text) for name, text in more.items()}}
        question = Question(role, self.prompts.texts[role], delimited(data), image, schema_of(role, bool(image)))
        return await self._endpoint.ask(question, turn)


def schema_of(role: str, image: bool) -> dict[str, Any]:
    """Of a role's answer: a text, or a verdict; and with an image what the Summarizer saw."""
    texts: dict[str, Any] = {"verdict" if role == EVALUATOR else "text": {"type": "string"}}
    if role == SUMMARIZER and image:
        texts["seen"] = closed({name: {"type": "string"} for name in SEEN})
    return closed(texts)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def with_seen(product: Product, seen: Any) -> Product:
    """The product with what was read off its photo: short words for the known attributes, and nothing else."""
    seen = seen if isinstance(seen, dict) else {}
    found = {f"{name} in the photo": seen[name] for name in SEEN if isinstance(seen.get(name), str)}
    found = {name: clean(text) for name, text in found.items() if len(text) <= 60 and not any(map(str.isdigit, text))}
    return replace(product, attributes={**product.attributes, **found})


def brief(product: Product) -> Product:
    """The product in clean texts of bounded length: what the model is shown, and what its words are held against."""
    left = LONGEST_DATUM
    attributes = {}
    for name, text in product.attributes.items():
        left -= len(name) + len(text)
        if left >= 0:
            attributes[clean(name)] = clean(text)
    return Product(clean(product.product_type), clean(product.title), clean(product.description), attributes)


def described(product: Product) -> dict[str, Any]:
    texts = {"type": product.product_type, "title": product.title, "description": product.description}
    return texts | {"attributes": dict(product.attributes)}


def delimited(data: Mapping[str, Any]) -> str:
    """JSON between <data> and </data>, without an angle bracket, so that no text can end it or look like a tag."""
    inner = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<data>\n{inner}\n</data>"


def clean(text: str) -> str:
    """Not too long, and without characters that nobody sees, in which instructions can be hidden."""
    kept = (one for one in text[:LONGEST_DATUM] if one.isspace() or unicodedata.category(one)[0] != "C")
    return " ".join("".join(kept).split())


def one_line(text: str) -> str:
    """A model's text without quotation marks around it. What else is wrong with it is for ``checks`` to say."""
    return " ".join(text[:LONGEST_DATUM].split()).strip("\"'“”„«» ")


def data_url(image: bytes) -> str | None:
    """None for what is not JPEG, PNG or WebP."""
    kind = "jpeg" if image[:3] == b"\xff\xd8\xff" else "png" if image[:4] == b"\x89PNG" else ""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}" if kind else None
