"""The endpoint's failures, over real HTTP: stalls, deadlines, the circuit breaker, and who sees the keys."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from serving.enrich.endpoint import retry_after
from serving.enrich.meter import METRICS
from serving.enrich.product import Outcome, Product
from serving.enrich.tokens import Tokens
from tests.agent_server import STALLED, AgentServer, Call, Reply, sensible
from tests.asking import until
from tests.serving.enrich.scripts import (
    SECRET,
    WRITTEN_MUG,
    MakeAgent,
    composed,
    enrich,
    numbers,
    shop,
)


def test_keys_reach_the_endpoint_and_nobody_else(
    make_agent: MakeAgent, server: AgentServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-another-host")
    rude = json.dumps({"error": {"message": f"Incorrect API key provided: {SECRET}"}}).encode()
    with caplog.at_level(logging.DEBUG):
        server.script = lambda call: Reply(status=401, body=rude)
        agent = make_agent(key=SECRET, failures=1)
        assert enrich(agent)[2] == Outcome.UNANSWERED
        server.script = sensible
        until(lambda: enrich(agent)[2] == Outcome.WRITTEN)
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {SECRET}"}
    enrich(make_agent(), Product("table"))
    assert "another-host" not in str(server.calls)
    assert "fails (401)" in caplog.text
    assert SECRET not in caplog.text + repr(agent.config) + str(vars(agent))


def test_waits_as_long_as_the_endpoint_asks(make_agent: MakeAgent, server: AgentServer) -> None:
    times: list[float] = []

    def script(call: Call) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "0.5"}) if len(times) == 1 else sensible(call)

    server.script = script
    assert enrich(make_agent()) == WRITTEN_MUG
    assert times[1] - times[0] >= 0.5


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        pytest.param("7", 7, 7, id="seconds"),
        pytest.param("-1", 0, 0, id="negative"),
        pytest.param(formatdate(time.time() + 1e6, usegmt=True), 9e5, 1e6, id="date"),
        pytest.param(formatdate(0, usegmt=True), 0, 0, id="past date"),
    ],
)
def test_reads_retry_after(header: str, low: float, high: float) -> None:
    seconds = retry_after({"retry-after": header})
    assert seconds is not None
    assert low <= seconds <= high
    assert retry_after({}) is retry_after({"retry-after": "soon"}) is None


def test_does_not_wait_beyond_the_deadline(make_agent: MakeAgent, server: AgentServer, tokens: Tokens) -> None:
    server.script = lambda call: Reply(status=429, headers={"Retry-After": "3600"})
    assert enrich(make_agent()) == composed(Outcome.UNANSWERED, tokens)


@pytest.mark.parametrize("reply", [STALLED, Reply("...", drip=0.2)], ids=["stalled", "slow bytes"])
def test_a_product_ends_by_its_deadline(
    make_agent: MakeAgent, server: AgentServer, tokens: Tokens, reply: Reply
) -> None:
    server.script = lambda call: reply
    assert enrich(make_agent(item_seconds=1.0, retries=1000, failures=1000)) == composed(Outcome.UNANSWERED, tokens)


def test_a_good_draft_is_kept_if_the_endpoint_fails(make_agent: MakeAgent, server: AgentServer) -> None:
    server.script = lambda call: Reply(status=500) if call.role == "evaluator" else sensible(call)
    assert enrich(make_agent()) == WRITTEN_MUG


def test_an_endpoint_that_is_down_gets_no_calls(make_agent: MakeAgent, server: AgentServer, tokens: Tokens) -> None:
    """The first product falls back after its retries, all later ones without a call, until the endpoint is back."""
    server.stop()
    agent = make_agent(failures=3)
    assert enrich(agent) == composed(Outcome.UNANSWERED, tokens)
    assert numbers(agent).of("circuit_open") == 1
    for mug in shop(20):
        assert enrich(agent, mug)[2] == Outcome.UNANSWERED
    assert numbers(agent).of("calls", role="summarizer") == 3
    server.start()
    until(lambda: numbers(agent).of("circuit_open") == 0)
    assert enrich(agent) == WRITTEN_MUG


def test_an_endpoint_that_hangs_opens_the_circuit(make_agent: MakeAgent, server: AgentServer) -> None:
    server.script = lambda call: STALLED
    agent = make_agent(failures=4, concurrency=4, call_seconds=0.4)
    outcomes = [pending.result(timeout=150).status for pending in [agent.submit(mug) for mug in shop(50)]]
    assert set(outcomes) == {Outcome.UNANSWERED}
    # Three calls had failed and four were in flight, at most, when the fourth call failed.
    assert 4 <= numbers(agent).of("calls", role="summarizer") <= 7
    server.script = sensible
    until(lambda: numbers(agent).of("circuit_open") == 0)
    until(lambda: enrich(agent) == WRITTEN_MUG)


def test_a_busy_endpoint_does_not_open_the_circuit(make_agent: MakeAgent, server: AgentServer) -> None:
    server.script = lambda call: Reply(status=429, headers={"Retry-After": "0"}) if call.attempt < 4 else sensible(call)
    agent = make_agent(failures=1)
    assert enrich(agent) == WRITTEN_MUG
    assert numbers(agent).of("calls", result="429") == 6


def test_concurrency_limits_the_calls_in_flight(make_agent: MakeAgent, server: AgentServer) -> None:
    proceed = threading.Event()
    server.script = lambda call: Reply(sensible(call).content, after=proceed)
    agent = make_agent(concurrency=3)
    pending = [agent.submit(mug) for mug in shop(20)]
    until(lambda: server.count() == 3)
    proceed.set()
    assert {one.result(timeout=150).status for one in pending} == {Outcome.WRITTEN}
    assert server.most_at_once == 3
    assert numbers(agent).of("items", status="written") == 20


def test_equal_calls_in_flight_are_sent_once(make_agent: MakeAgent, server: AgentServer) -> None:
    proceed = threading.Event()
    server.script = lambda call: Reply(sensible(call).content, after=proceed)
    agent = make_agent()
    with ThreadPoolExecutor(10) as threads:
        pending = [threads.submit(enrich, agent) for _ in range(10)]
        until(lambda: numbers(agent).of("cache", result="joined") == 9)
        proceed.set()
        assert {one.result() for one in pending} == {WRITTEN_MUG}
    assert server.count() == 2


def test_metrics(make_agent: MakeAgent, server: AgentServer) -> None:
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
