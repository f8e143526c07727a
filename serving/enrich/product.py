"""A shop's product, read from JSON, and what can become of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

MAX_BYTES = 1 << 20
TEXTS = ("product type", "title", "description")
DEPTH = 4
"""How deep attributes may be nested; what is deeper is left out."""


class Outcome(IntEnum):
    """What became of one product; the values of the `STATUS` of `enriched_text`."""

    WRITTEN = 0
    """By the agent."""
    COMPOSED = 1
    """No agent is configured."""
    UNANSWERED = 2
    """Composed: the agent did not answer in time, or is out of order."""
    REFUSED = 3
    """Composed: what the agent wrote did not pass the checks."""
    NOT_A_PRODUCT = 4
    """Not JSON, or nothing in it: the text is empty."""


@dataclass(frozen=True)
class Enriched:
    """A text, the times that the agent judged a draft of it, and how it came about."""

    text: str
    rounds: int
    status: Outcome
    prompts: str = ""
    """Their version, where the agent wrote the text."""


class ProductError(ValueError):
    """There is no product in these bytes; one sentence says why."""


@dataclass(frozen=True)
class Product:
    """What a shop says about a product. ``attributes`` have names in lower case with single blanks: ``age group``."""

    product_type: str = ""
    title: str = ""
    description: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def parse(raw: bytes) -> Product:
    """The product in a JSON object.

    Attributes may stand beside the three texts or anywhere below, as values, lists, objects or pairs of ``name`` and
    ``value``; the last of several with one name counts.

    Raises ProductError where there is none.
    """
    if len(raw) > MAX_BYTES:
        raise ProductError(f"The product has {len(raw)} bytes, more than {MAX_BYTES}.")
    try:
        # Lone surrogates come as \ud800 in JSON, and no encoder takes them.
        given = json.loads(raw.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ProductError(f"The product is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise ProductError(f"The product is not a JSON object but {type(given).__name__}.")
    texts = {_name(name): _text(value) for name, value in given.items() if _name(name) in TEXTS}
    attributes = {name: text for name, text in _leaves(given, DEPTH) if name not in TEXTS}
    if not any(texts.values()) and not attributes:
        raise ProductError("The product says nothing: no type, no title, no description, no attribute.")
    kind, title, description = (texts.get(name, "") for name in TEXTS)
    return Product(kind, title, description, MappingProxyType(attributes))


def _leaves(given: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _leaves(value, depth - 1) if depth else ()
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            for one in value:
                if isinstance(one, dict) and "name" in one and "value" in one:
                    yield from _leaves({str(one["name"]): one["value"]}, depth - 1) if depth else ()
                elif isinstance(one, dict):
                    yield from _leaves(one, depth - 1) if depth else ()
        elif text := _text(value):
            yield _name(name), text


def _name(key: str) -> str:
    return " ".join(clean(key).replace("_", " ").replace("-", " ").casefold().split())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, (_text(one) for one in value if not isinstance(one, dict | list))))
    return clean(str(value)).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def clean(text: str) -> str:
    """Without lone surrogates, which cannot be encoded."""
    return text.encode("utf-8", "replace").decode()
