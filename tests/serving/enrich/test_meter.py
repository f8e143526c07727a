"""The agent's metrics."""

from __future__ import annotations

from serving.enrich.meter import METRICS
from tests.agent_server import AgentServer, Reply, sensible
from tests.serving.enrich.scripts import MakeAgent, enrich, numbers


def test_counts(make_agent: MakeAgent, server: AgentServer) -> None:
    server.script = lambda call: Reply(status=500) if call.attempt == 1 else sensible(call)
    agent = make_agent(failures=100)
    enrich(agent)
    count = numbers(agent).of
    assert count("calls") == 4
    assert count("calls", role="summarizer") == count("calls", result="500") == 2
    assert (count("tokens", kind="prompt"), count("tokens", kind="completion")) == (200, 20)
    assert (count("items", status="written"), count("rounds"), count("cache", result="miss")) == (1, 1, 2)
    assert len(numbers(agent).observed["call_seconds"]) == 4
    assert count("calls_in_flight") == 0
    assert numbers(agent).names() == METRICS.keys()
