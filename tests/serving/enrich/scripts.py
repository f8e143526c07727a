"""What tests of the agent share: a product, and endpoints of several moods."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from serving.enrich.compose import compose
from serving.enrich.product import Outcome, Product
from tests.agent_server import Call, Reply, says, sensible

MUG = Product("coffee mug", "Nordhaus Mug NEW!", "A mug. Also available in green.", {"colour": "red"})


WRITTEN_MUG = ("red coffee mug", 1, Outcome.WRITTEN)


JPEG = b"\xff\xd8\xff\xe0 not much of a photo"


FIVE = ("first", "second", "third", "fourth", "fifth")


SECRET = "sk-this-is-a-secret"


class Numbers:
    """A meter that keeps them: ``numbers.of("calls", role="refiner")`` is the sum over all other labels."""

    def __init__(self) -> None:
        self.observed: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=1000))
        self._lock = threading.Lock()
        self._sums: defaultdict[tuple[str, frozenset[tuple[str, str]]], float] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._sums[name, frozenset(labels.items())] += amount

    def set(self, name: str, value: float) -> None:
        with self._lock:
            self._sums[name, frozenset()] = value

    def observe(self, name: str, value: float) -> None:
        with self._lock:
            self.observed[name].append(value)

    def of(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        with self._lock:
            return sum(n for (known, having), n in self._sums.items() if known == name and wanted <= having)


def of(enriched: Any) -> tuple[str, int, int]:
    return enriched.text, enriched.rounds, enriched.status


def composed(status: int, counted: Any, of: Any = MUG) -> tuple[str, int, int]:
    return compose(of, counted), 0, status


def drafts(*texts: str, verdict: str = "<STOP>") -> Callable[[Call], Reply]:
    """A model that writes these texts one after the other, and the last again and again."""
    left = list(texts)

    def script(call: Call) -> Reply:
        if call.role == "evaluator":
            return says(verdict=verdict)
        return says(text=left.pop(0) if len(left) > 1 else left[0])

    return script


def until(happened: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def shop(number: int) -> list[Any]:
    colours = ("red", "blue", "green", "black", "white")
    return [
        Product("coffee mug", f"Mug {n} NEW!", "", {"colour": colours[n % 5], "number": str(n)}) for n in range(number)
    ]


def bad_day(call: Call) -> Reply:
    """One first try in ten fails, one in twenty is malformed, one in fifty stalls; always the same ones."""
    if call.attempt > 1:
        return sensible(call)
    luck = Random(json.dumps(call.body)).random()
    if luck < 0.10:
        return Reply(status=(500, 429, 503, 502)[int(luck * 40)])
    if luck < 0.15:
        return Reply(('{"text": "red', "{}", "[1]", "")[int((luck - 0.1) * 80)])
    return Reply("...", delay=30) if luck < 0.17 else sensible(call)
