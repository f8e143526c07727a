"""How the agent is set up, by environment variables.

VLCLIP_AGENT_URL           http://localhost:8080/v1, the base of any OpenAI-compatible endpoint; without it no agent
VLCLIP_AGENT_MODEL         the model's name there
VLCLIP_AGENT_KEY           its key, where it wants one
VLCLIP_AGENT_VISION        1 if the model takes images; 0
VLCLIP_AGENT_OPTIONS       JSON that goes into every call, for example {"temperature": 0, "max_tokens": 300}
VLCLIP_AGENT_PROMPTS       a folder with summarizer.md, evaluator.md and refiner.md of your own
VLCLIP_AGENT_CACHE         a file, or redis://host:6379/0; ~/.cache/vlclip/agent.sqlite
VLCLIP_AGENT_CONCURRENCY   products that are worked on at a time, and so calls in flight; 16
VLCLIP_AGENT_WAITING       products that may be waited for; requests with more are refused; 1024
VLCLIP_AGENT_CALL_SECONDS  for one call; 20
VLCLIP_AGENT_ITEM_SECONDS  for one product from its first call on, all rounds and tries together; 60
VLCLIP_AGENT_RETRIES       tries of a call after the first; 3
VLCLIP_AGENT_FAILURES      calls that fail in a row until nothing more is sent; 8
VLCLIP_AGENT_PROBE_SECONDS until the endpoint is tried again after that, and twice as long each time; 5
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.enrich.cache import default_file

PREFIX = "VLCLIP_AGENT_"
PROMPTS = Path(__file__).parent / "prompts"


class ConfigError(ValueError):
    """One line that names the variable, what was expected and what came; never a key."""


@dataclass(frozen=True)
class Config:
    """The fields are the variables above; what is secret stays out of the representation."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    vision: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Path = PROMPTS
    cache: str = field(default_factory=default_file, repr=False)
    concurrency: int = 16
    waiting: int = 1024
    call_seconds: float = 20.0
    item_seconds: float = 60.0
    retries: int = 3
    failures: int = 8
    probe_seconds: float = 5.0

    @property
    def host(self) -> str:
        """Where the endpoint is, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config | None:
        """None without a URL. Raises ConfigError."""
        ours = {name.removeprefix(PREFIX): value.strip() for name, value in environ.items() if name.startswith(PREFIX)}
        given = {name.lower(): value for name, value in ours.items() if value}
        if unknown := sorted(given.keys() - READERS.keys()):
            known = ", ".join(PREFIX + name.upper() for name in READERS)
            raise ConfigError(f"{PREFIX}{unknown[0].upper()} is not known; known are {known}")
        read = {name: _read(name, value) for name, value in given.items()}
        if "url" not in read:
            return None
        if "model" not in read:
            raise ConfigError(f"{PREFIX}MODEL: expected the name of the model at {PREFIX}URL, got nothing")
        return cls(**read)


def _read(name: str, value: str) -> Any:
    expected, read = READERS[name]
    try:
        return read(value)
    except (ValueError, OverflowError):
        got = "" if name in ("url", "key", "cache") else f", got {value!r}"
        raise ConfigError(f"{PREFIX}{name.upper()}: expected {expected}{got}") from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    # HTTP libraries log the URLs that they call.
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


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "url": ("http://host:port/v1 or the like, without a password", _url),
    "model": ("a name", str),
    "key": ("a key", str),
    "vision": ("0 or 1", _switch),
    "options": ("a JSON object without messages, model, response_format, stream and n", _options),
    "prompts": ("a folder", _folder),
    "cache": ("a file or a redis:// URL", str),
    "concurrency": ("a number of 1 or more", _at_least(1)),
    "waiting": ("a number of 1 or more", _at_least(1)),
    "call_seconds": ("seconds above 0", _seconds),
    "item_seconds": ("seconds above 0", _seconds),
    "retries": ("a number of 0 or more", _at_least(0)),
    "failures": ("a number of 1 or more", _at_least(1)),
    "probe_seconds": ("seconds above 0", _seconds),
}
