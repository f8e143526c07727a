"""A shop's product, read from JSON, and the outcomes of enriching it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

MAX_BYTES = 1 << 18
"""Bytes of a product. JSON of this size is read within 100 ms, whatever it holds."""
MAX_TEXT = 4000
"""Characters that are read of the type, of the title, of the description, and of all attributes together."""
TEXTS = ("product type", "title", "description")
DEPTH = 4
"""The depth to which nested attributes are read. Deeper ones are ignored."""


class Outcome(IntEnum):
    """How the text of a product came about. These are the values of ``STATUS`` in ``enriched_text``."""

    WRITTEN = 0
    """The agent wrote it."""
    COMPOSED = 1
    """Composed, because no agent is configured."""
    UNANSWERED = 2
    """Composed, because the agent did not answer in time or its endpoint fails."""
    REFUSED = 3
    """Composed, because no text of the agent passed the checks."""
    NOT_A_PRODUCT = 4
    """Empty, because the input is not JSON or says nothing about a product."""


@dataclass(frozen=True)
class Enriched:
    """A text, the number of rounds in which the agent judged a draft, and the outcome."""

    text: str
    rounds: int
    status: Outcome
    prompts: str = ""
    """The version of the prompts, if the agent wrote the text."""


class ProductError(ValueError):
    """The bytes hold no product. The message is one sentence that says why."""


@dataclass(frozen=True)
class Product:
    """A shop's data about a product. Names of ``attributes`` are in lower case with single blanks: ``age group``."""

    product_type: str = ""
    title: str = ""
    description: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    truncated: bool = False
    """Whether the shop's data had more characters than are read."""


def parse(raw: bytes) -> Product:
    """The product in a JSON object. Raises ProductError if there is none.

    Attributes may be on the level of the three texts or nested below it, as values, lists, objects or pairs of ``name``
    and ``value``. Of several attributes with one name, the last one counts. Texts are cut to ``MAX_TEXT`` characters,
    and an attribute with more characters than are left is ignored.
    """
    if len(raw) > MAX_BYTES:
        raise ProductError(f"The product has {len(raw)} bytes, more than {MAX_BYTES}.")
    try:
        given = json.loads(raw.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ProductError(f"The product is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise ProductError(f"The product is not a JSON object but {type(given).__name__}.")
    texts = {_name(name): _text(value) for name, value in given.items() if _name(name) in TEXTS}
    attributes = {name: text for name, text in _leaves(given, DEPTH) if name not in TEXTS}
    if not any(texts.values()) and not attributes:
        raise ProductError("The product is empty: expected a type, a title, a description or an attribute.")
    kept = _bounded(attributes)
    truncated = len(kept) < len(attributes) or any(len(text) > MAX_TEXT for text in texts.values())
    kind, title, description = (texts.get(name, "")[:MAX_TEXT] for name in TEXTS)
    return Product(kind, title, description, MappingProxyType(kept), truncated)


def _bounded(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that have ``MAX_TEXT`` characters together, names included, in their order."""
    kept, left = {}, MAX_TEXT
    for name, text in attributes.items():
        if (size := len(name) + len(text)) <= left:
            kept[name] = text
            left -= size
    return kept


def _leaves(given: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        objects = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
        if not objects and (text := _text(value)):
            yield _name(name), text
        for one in objects if depth else ():
            is_pair = "name" in one and "value" in one and isinstance(value, list)
            yield from _leaves({str(one["name"]): one["value"]} if is_pair else one, depth - 1)


def _name(key: str) -> str:
    return " ".join(clean(key).replace("_", " ").replace("-", " ").casefold().split())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, (_text(one) for one in value if not isinstance(one, dict | list))))
    return clean(str(value)).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON can contain as \\ud800 but UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()
