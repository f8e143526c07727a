"""The agent's metrics, which Triton publishes."""

from __future__ import annotations

from typing import Literal, Protocol

METRICS: dict[str, tuple[Literal["counter", "gauge", "histogram"], str]] = {
    "items": ("counter", "Products that the agent was given, by the status of their text"),
    "rounds": ("counter", "Rounds in which a draft was judged"),
    "calls": ("counter", "Calls to the language model, by role and result"),
    "tokens": ("counter", "Tokens of the language model, by kind: prompt or completion"),
    "cache": ("counter", "Cache look-ups, by result: hit, miss, joined (a call in flight) or error"),
    "call_seconds": ("histogram", "Seconds that a call to the language model took"),
    "calls_in_flight": ("gauge", "Calls to the language model in flight"),
    "circuit_open": ("gauge", "1 while the circuit breaker keeps products from the endpoint, else 0"),
}

BUCKETS = {"call_seconds": [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0]}
"""Upper bounds of the histograms."""


class Meter(Protocol):
    """Records values under the names of ``METRICS``. Its methods are thread-safe and do not block."""

    def add(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def set(self, name: str, value: float) -> None: ...

    def observe(self, name: str, value: float) -> None: ...
