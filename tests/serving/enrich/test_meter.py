"""The agent's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.enrich import meter
from tests.agent_server import AgentServer, Reply, sensible
from tests.serving.enrich.scripts import (
    MUG,
    bad_day,
    shop,
)


def test_counts(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply(status=500) if call.attempt == 1 else sensible(call)
    mugs = hire()
    mugs.enrich(MUG)
    count = mugs.meter.of
    assert count("calls") == 4
    assert count("calls", role="summarizer") == count("calls", result="500") == 2
    assert (count("tokens", kind="prompt"), count("tokens", kind="completion")) == (200, 20)
    assert (count("items", status="written"), count("rounds"), count("cache", result="miss")) == (1, 1, 2)
    seconds = mugs.meter.observed["call_seconds"]
    assert len(seconds) == 4
    assert 0 < min(seconds) <= max(seconds) < 0.5
    assert count("calls_in_flight") == 0


def test_every_number_has_a_metric(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = bad_day
    mugs = hire(call_seconds=0.3)
    for mug in shop(20):
        mugs.enrich(mug)
    told = {name for name, _ in mugs.meter._sums} | mugs.meter.observed.keys()
    assert told == meter.METRICS.keys()
