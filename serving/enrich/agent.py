"""The agent: a language model writes a product's text as Summarizer, judges it as Evaluator, rewrites it as Refiner.

A draft is used only if ``checks`` finds nothing wrong with it. A product without such a draft gets the text from
``compose``.
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
from serving.enrich.checks import phrases, problems
from serving.enrich.compose import compose
from serving.enrich.config import Config, ConfigError
from serving.enrich.endpoint import Endpoint, EndpointError, Question, Turn
from serving.enrich.meter import Meter
from serving.enrich.product import MAX_TEXT, Enriched, Outcome, Product
from serving.enrich.tokens import Tokens

LOG = logging.getLogger("vlclip.agent")

MAX_ROUNDS = 5
STOP = re.compile(r"\W*STOP\W*")

SUMMARIZER, EVALUATOR, REFINER = ROLES = ("summarizer", "evaluator", "refiner")
SEEN = ("colour", "pattern", "material")
"""The attributes that the Summarizer reads from a photo. The text may name them."""


@dataclass(frozen=True)
class Prompts:
    """One prompt for each role. ``version`` is a hash of all of them."""

    texts: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Prompts:
        """Read the prompts of all roles. Raises ConfigError if a file cannot be read."""
        try:
            return cls({role: (folder / f"{role}.md").read_text(encoding="utf-8") for role in ROLES})
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot read the prompts in {folder}: {error}") from None

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(json.dumps(dict(self.texts), sort_keys=True).encode()).hexdigest()[:12]


class Agent:
    """Any number of threads may call ``submit``. All calls to the endpoint run on one event loop."""

    def __init__(self, config: Config, tokens: Tokens, meter: Meter) -> None:
        """Raises ConfigError or OSError if the prompts or the cache cannot be used, but not if the endpoint is down."""
        self.config = config
        self.tokens = tokens
        """Set it again when the encoder changes."""
        self.meter = meter
        self.prompts = Prompts.read(config.prompts)
        self._instructions = {phrase for prompt in self.prompts.texts.values() for phrase in phrases(prompt)}
        self._endpoint = Endpoint(config, open_cache(config.cache), self.meter)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agent", daemon=True)
        self._thread.start()

    def submit(self, product: Product, image: bytes | None = None) -> Future[Enriched]:
        """A text that fits the encoder. No failure of the endpoint raises an exception."""
        return asyncio.run_coroutine_threadsafe(self._enrich(product, image or None), self._loop)

    def close(self) -> None:
        """Cancel the calls in flight and release all resources."""
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
            text, rounds, status = await self._write(cleaned(product), shown, turn)
        self.meter.add("items", status=status.name.lower())
        self.meter.add("rounds", rounds if text else 0)
        if not text:
            return Enriched(compose(product, self.tokens), 0, status)
        return Enriched(text, rounds, status, self.prompts.version)

    async def _write(self, product: Product, image: str | None, turn: Turn) -> tuple[str, int, Outcome]:
        """The last draft that passed the checks, or an empty text; the rounds; and the outcome.

        The loop ends when the Evaluator approves a draft, after ``MAX_ROUNDS``, or when the endpoint fails.
        """
        good, rounds = "", 0
        try:
            answer = await self._ask(SUMMARIZER, turn, image, product=product)
            draft = one_line(answer["text"])
            # Without a photo, the model cannot have seen anything.
            facts = with_seen(product, answer.get("seen")) if image else product
            for rounds in range(1, MAX_ROUNDS + 1):
                found = self._problems(draft, facts)
                if found:
                    critique = " ".join(found)
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
        found = problems(draft, facts, self.tokens)
        return ["The text repeats your instructions.", *found] if phrases(draft) & self._instructions else found

    async def _ask(self, role: str, turn: Turn, image: str | None, product: Product, **more: str) -> dict[str, Any]:
        texts = {"type": product.product_type, "title": product.title, "description": product.description}
        data: dict[str, Any] = {"product": {**texts, "attributes": dict(product.attributes)}}
        data |= {name: clean(text) for name, text in more.items()}
        question = Question(role, self.prompts.texts[role], delimited(data), image, schema_of(role, bool(image)))
        return await self._endpoint.ask(question, turn)


def schema_of(role: str, image: bool) -> dict[str, Any]:
    """The JSON schema of a role's answer: a text or a verdict, and what the Summarizer saw in the image."""
    texts: dict[str, Any] = {"verdict" if role == EVALUATOR else "text": {"type": "string"}}
    if role == SUMMARIZER and image:
        texts["seen"] = closed({name: {"type": "string"} for name in SEEN})
    return closed(texts)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def with_seen(product: Product, seen: Any) -> Product:
    """The product with the attributes that the model saw in its photo, as far as they are short words for ``SEEN``."""
    seen = seen if isinstance(seen, dict) else {}
    found = {f"{name} in the photo": seen[name] for name in SEEN if isinstance(seen.get(name), str)}
    found = {name: clean(text) for name, text in found.items() if len(text) <= 60 and not any(map(str.isdigit, text))}
    return replace(product, attributes={**product.attributes, **found})


def cleaned(product: Product) -> Product:
    """The product with clean texts. The model gets it, and the checks compare its drafts with it."""
    attributes = {clean(name): clean(text) for name, text in product.attributes.items()}
    return Product(clean(product.product_type), clean(product.title), clean(product.description), attributes)


def delimited(data: Mapping[str, Any]) -> str:
    """JSON between <data> and </data>. It has no angle brackets, so that no text can close the tag or open another."""
    inner = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<data>\n{inner}\n</data>"


def clean(text: str) -> str:
    """The text, cut to ``MAX_TEXT``, without invisible characters, which can hide instructions."""
    kept = (one for one in text[:MAX_TEXT] if one.isspace() or unicodedata.category(one)[0] != "C")
    return " ".join("".join(kept).split())


def one_line(text: str) -> str:
    """A model's text on one line, without the quotation marks around it."""
    return " ".join(text[:MAX_TEXT].split()).strip("\"'“”„«» ")


def data_url(image: bytes) -> str | None:
    """The image as a data URL, or None if it is not JPEG, PNG or WebP."""
    kind = "jpeg" if image[:3] == b"\xff\xd8\xff" else "png" if image[:4] == b"\x89PNG" else ""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}" if kind else None
