"""What the agent counts. Here the numbers are kept; the leaf lets Triton publish them."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Protocol

COUNTERS = {
    "items": "Products, by the status of their text",
    "rounds": "Times that a draft was judged",
    "calls": "Calls to the language model, by role and result",
    "tokens": "Tokens of the language model, by kind: prompt or completion",
    "cache": "Look-ups of an answer in the cache, by result: hit, miss, joined a call in flight, or error",
    "call_seconds_bucket": "Calls that took no longer than le seconds",
    "call_seconds_sum": "Seconds that calls took",
    "call_seconds_count": "Calls whose seconds were taken",
}
GAUGES = {
    "circuit_open": "1 while the endpoint is out of order and nothing is sent to it, else 0",
    "calls_in_flight": "Calls to the language model that are under way",
}

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)
"""Seconds. Not every Triton has histograms, so the buckets are counters, named and cumulative as in Prometheus."""


class Meter(Protocol):
    """Takes numbers under the names of ``COUNTERS`` and ``GAUGES``, from any thread."""

    def add(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def set(self, name: str, value: float) -> None: ...


class Numbers:
    """A meter that keeps them: ``numbers.of("calls", role="refiner")`` is the sum over all other labels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: defaultdict[tuple[str, frozenset[tuple[str, str]]], float] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._sums[name, frozenset(labels.items())] += amount

    def set(self, name: str, value: float) -> None:
        with self._lock:
            self._sums[name, frozenset()] = value

    def of(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        with self._lock:
            return sum(n for (known, having), n in self._sums.items() if known == name and wanted <= having)


def observe_seconds(meter: Meter, seconds: float) -> None:
    """Into the buckets, which are cumulative."""
    for bound in BUCKETS:
        if seconds <= bound:
            meter.add("call_seconds_bucket", le=f"{bound:g}")
    meter.add("call_seconds_bucket", le="+Inf")
    meter.add("call_seconds_sum", seconds)
    meter.add("call_seconds_count")
