"""Products, scripts of endpoints and helpers for tests of the agent."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from random import Random

from serving.enrich.agent import Agent
from serving.enrich.compose import compose
from serving.enrich.product import Enriched, Outcome, Product
from serving.enrich.tokens import Tokens
from tests.agent_server import STALLED, Call, Reply, says, sensible

MUG = Product("coffee mug", "Nordhaus Mug NEW!", "A mug. Also available in green.", {"colour": "red"})
WRITTEN_MUG = ("red coffee mug", 1, Outcome.WRITTEN)
JPEG = b"\xff\xd8\xff\xe0 not much of a photo"
SECRET = "sk-this-is-a-secret"
MakeAgent = Callable[..., Agent]
"""``make_agent(failures=1)``: an agent with these settings, on the scripted server, with the test's own cache."""
Summary = tuple[str, int, Outcome]
"""The text, the rounds and the outcome of a product."""


class Numbers:
    """A meter for tests. ``numbers.of("calls", role="refiner")`` is the sum over all other labels."""

    def __init__(self) -> None:
        self.observed: defaultdict[str, list[float]] = defaultdict(list)
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

    def names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self._sums) | self.observed.keys()


def numbers(agent: Agent) -> Numbers:
    assert isinstance(agent.meter, Numbers)
    return agent.meter


def enrich(agent: Agent, product: Product = MUG, image: bytes | None = None) -> Summary:
    """Fails if the agent takes longer than any sum of its time-outs in the tests."""
    return summary(agent.submit(product, image).result(timeout=150))


def summary(enriched: Enriched) -> Summary:
    return enriched.text, enriched.rounds, enriched.status


def composed(status: Outcome, tokens: Tokens, product: Product = MUG) -> Summary:
    return compose(product, tokens), 0, status


def drafts(*texts: str, verdict: str = "<STOP>") -> Callable[[Call], Reply]:
    """A model that writes these texts in turn and then repeats the last one."""
    left = list(texts)

    def script(call: Call) -> Reply:
        if call.role == "evaluator":
            return says(verdict=verdict)
        return says(text=left.pop(0) if len(left) > 1 else left[0])

    return script


def shop(number: int) -> list[Product]:
    colours = ("red", "blue", "green", "black", "white")
    return [
        Product("coffee mug", f"Mug {n} NEW!", "", {"colour": colours[n % 5], "number": str(n)}) for n in range(number)
    ]


def bad_day(call: Call) -> Reply:
    """One first attempt in ten fails, one in twenty is malformed, one in fifty stalls: always the same ones."""
    if call.attempt > 1:
        return sensible(call)
    luck = Random(json.dumps(call.body)).random()
    if luck < 0.10:
        return Reply(status=(500, 429, 503, 502)[int(luck * 40)])
    if luck < 0.15:
        return Reply(('{"text": "red', "{}", "[1]", "")[int((luck - 0.1) * 80)])
    return STALLED if luck < 0.17 else sensible(call)
