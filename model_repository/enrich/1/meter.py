"""What the agent counts. Here the numbers are kept; the leaf has Triton publish them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Literal, Protocol

METRICS: dict[str, tuple[Literal["counter", "gauge", "histogram"], str]] = {
    "items": ("counter", "Products that were given to the agent, by the status of their text"),
    "rounds": ("counter", "Times that a draft was judged"),
    "calls": ("counter", "Calls to the language model, by role and result"),
    "tokens": ("counter", "Tokens of the language model, by kind: prompt or completion"),
    "cache": ("counter", "Look-ups of an answer, by result: hit, miss, joined (a call in flight) or error"),
    "call_seconds": ("histogram", "Seconds that a call to the language model took"),
    "calls_in_flight": ("gauge", "Calls to the language model that are under way"),
    "circuit_open": ("gauge", "1 while the endpoint is out of order and nothing is sent to it, else 0"),
}

BUCKETS = {"call_seconds": [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0]}
"""Upper bounds of the histograms."""


class Meter(Protocol):
    """Takes numbers under the names of ``METRICS``, from any thread and without delay."""

    def add(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def set(self, name: str, value: float) -> None: ...

    def observe(self, name: str, value: float) -> None: ...


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
