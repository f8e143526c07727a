"""The agent's settings, from environment variables (defaults in brackets).

VLCLIP_AGENT_URL           base URL of an OpenAI-compatible endpoint, such as http://localhost:8080/v1; none, no agent
VLCLIP_AGENT_MODEL         name of the model at the endpoint
VLCLIP_AGENT_KEY           API key, if the endpoint requires one
VLCLIP_AGENT_VISION        1 if the model accepts images (0)
VLCLIP_AGENT_OPTIONS       JSON that is added to every call, such as {"temperature": 0, "max_tokens": 300}
VLCLIP_AGENT_PROMPTS       folder with your own summarizer.md, evaluator.md and refiner.md
VLCLIP_AGENT_CACHE         cache file, or redis://host:6379/0 (~/.cache/vlclip/agent.sqlite)
VLCLIP_AGENT_CONCURRENCY   products that are processed at a time, each with one call in flight (16)
VLCLIP_AGENT_WAITING       products that may wait; requests beyond that are refused (1024)
VLCLIP_AGENT_CALL_SECONDS  time-out of one call (20)
VLCLIP_AGENT_ITEM_SECONDS  time-out of one product, from its first call on, with all rounds and retries (60)
VLCLIP_AGENT_RETRIES       retries of a failed call (3)
VLCLIP_AGENT_FAILURES      consecutive failures that open the circuit breaker (8)
VLCLIP_AGENT_PROBE_SECONDS wait before the first probe of a failing endpoint; it doubles after each probe (5)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

from serving.enrich.cache import default_file

PREFIX = "VLCLIP_AGENT_"
PROMPTS = Path(__file__).parent / "prompts"


class ConfigError(ValueError):
    """A setting is invalid. The message is one line: the variable, what was expected and what came, but never a key."""


def _url(text: str) -> str:
    parts = urlsplit(text)
    # A password must not be in the URL, because HTTP libraries log it.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError
    return text.rstrip("/")


def _options(text: str) -> dict[str, Any]:
    options = json.loads(text)
    if not isinstance(options, dict) or options.keys() & {"messages", "model", "response_format", "stream", "n"}:
        raise ValueError
    return options


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ValueError
    return folder


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (number := int(text)) < least:
            raise ValueError
        return number

    return read


@dataclass(frozen=True)
class Reader:
    """How to read a variable: a description of its values, and a function that raises an error for others."""

    expected: str
    read: Callable[[str], Any]

    def parse(self, name: str, value: str) -> Any:
        try:
            return self.read(value)
        except (ValueError, OverflowError, KeyError):
            got = "" if name == "url" else f", got {value!r}"
            raise ConfigError(f"{PREFIX}{name.upper()}: expected {self.expected}{got}") from None


Text = Annotated[str, Reader("a text", str)]
Count = Annotated[int, Reader("a number of 1 or more", _at_least(1))]
Seconds = Annotated[float, Reader("seconds above 0", _seconds)]
Options = Annotated[
    Mapping[str, Any], Reader("a JSON object without messages, model, response_format, stream and n", _options)
]


@dataclass(frozen=True)
class Config:
    """The variables above. Secrets are not in its representation."""

    url: Annotated[str, Reader("a URL such as http://host:port/v1, without a password", _url)]
    model: Text
    key: Text = field(default="", repr=False)
    vision: Annotated[bool, Reader("0 or 1", {"0": False, "1": True}.__getitem__)] = False
    options: Options = field(default_factory=dict)
    prompts: Annotated[Path, Reader("a folder", _folder)] = PROMPTS
    cache: Text = field(default_factory=default_file, repr=False)
    concurrency: Count = 16
    waiting: Count = 1024
    call_seconds: Seconds = 20.0
    item_seconds: Seconds = 60.0
    retries: Annotated[int, Reader("a number of 0 or more", _at_least(0))] = 3
    failures: Count = 8
    probe_seconds: Seconds = 5.0

    @property
    def host(self) -> str:
        """The endpoint's address without its path, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config | None:
        """The settings, or None if there is no URL. Raises ConfigError."""
        ours = {name.removeprefix(PREFIX): value.strip() for name, value in environ.items() if name.startswith(PREFIX)}
        given = {name.lower(): value for name, value in ours.items() if value}
        readers = {name: hint.__metadata__[0] for name, hint in get_type_hints(cls, include_extras=True).items()}
        if unknown := sorted(given.keys() - readers.keys()):
            known = ", ".join(PREFIX + name.upper() for name in readers)
            raise ConfigError(f"{PREFIX}{unknown[0].upper()} is unknown: expected one of {known}")
        read = {name: readers[name].parse(name, value) for name, value in given.items()}
        if "url" not in read:
            return None
        if "model" not in read:
            raise ConfigError(f"{PREFIX}MODEL: expected the name of a model at {PREFIX}URL, got nothing")
        return cls(**read)
