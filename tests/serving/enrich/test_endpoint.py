"""The endpoint on its bad days, over real HTTP: failures, stalls, deadlines, the circuit, and who sees the keys."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest

from serving.enrich.product import Outcome, Product
from tests.agent_server import AgentServer, Call, Reply, sensible
from tests.serving.enrich.scripts import (
    MUG,
    SECRET,
    WRITTEN_MUG,
    bad_day,
    composed,
    of,
    shop,
    until,
    within,
)


def test_keys_reach_the_endpoint_and_nobody_else(
    hire: Callable[..., Any], server: AgentServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-house")
    rude = json.dumps({"error": {"message": f"Incorrect API key provided: {SECRET}"}}).encode()
    with caplog.at_level(logging.DEBUG):
        server.script = lambda call: Reply(status=401, body=rude)
        mugs = hire(key=SECRET, failures=1)
        assert mugs.enrich(MUG).status == Outcome.UNANSWERED
        server.script = sensible
        until(lambda: mugs.enrich(MUG).status == Outcome.WRITTEN)
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {SECRET}"}
    hire().enrich(Product("table"))
    assert "another-house" not in str(server.calls)
    assert "out of order (401)" in caplog.text
    assert SECRET not in caplog.text + repr(mugs.config) + str(vars(mugs))


@pytest.mark.parametrize(
    "said", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
)
def test_waits_as_long_as_it_is_told(hire: Callable[..., Any], server: AgentServer, said: Callable[[], str]) -> None:
    times: list[float] = []

    def script(call: Call) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": said()}) if len(times) == 1 else sensible(call)

    server.script = script
    assert of(hire().enrich(MUG)) == WRITTEN_MUG
    assert 0.9 < times[1] - times[0] < 2.5


def test_does_not_wait_beyond_the_deadline(hire: Callable[..., Any], server: AgentServer, counted: Any) -> None:
    server.script = lambda call: Reply(status=429, headers={"Retry-After": "3600"})
    with within(0.5):
        assert of(hire().enrich(MUG)) == composed(Outcome.UNANSWERED, counted)


@pytest.mark.parametrize("reply", [Reply("...", delay=60), Reply("...", drip=0.2)], ids=["stalled", "dripping"])
def test_an_item_ends_by_its_deadline(
    hire: Callable[..., Any], server: AgentServer, counted: Any, reply: Reply
) -> None:
    server.script = lambda call: reply
    with within(1.3):
        assert of(hire(item_seconds=1.0, call_seconds=0.4).enrich(MUG)) == composed(Outcome.UNANSWERED, counted)


def test_a_good_draft_outlives_the_endpoint(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply(status=500) if call.role == "evaluator" else sensible(call)
    assert of(hire().enrich(MUG)) == WRITTEN_MUG


def test_an_endpoint_that_is_down_costs_one_deadline(
    hire: Callable[..., Any], server: AgentServer, counted: Any
) -> None:
    """The first product falls back within its deadline, all later ones at once, until the endpoint is back."""
    server.stop()
    mugs = hire(failures=3)
    with within(3.0):
        assert of(mugs.enrich(MUG)) == composed(Outcome.UNANSWERED, counted)
    assert mugs.meter.of("circuit_open") == 1
    with within(0.3):
        for number in range(20):
            assert mugs.enrich(Product("coffee mug", f"Mug {number}")).status == Outcome.UNANSWERED
    server.start()
    until(lambda: mugs.meter.of("circuit_open") == 0)
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG


def test_an_endpoint_that_hangs_is_found_out(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply("...", delay=60)
    mugs = hire(failures=4, concurrency=4, call_seconds=0.4)
    with within(1.5), ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(lambda n: mugs.enrich(Product("coffee mug", f"Mug {n}")).status, range(50)))
    assert set(outcomes) == {Outcome.UNANSWERED}
    # Those that were in flight, and again what was tried anew before the last of them had failed.
    assert 4 <= server.count() <= 8
    server.script = sensible
    until(lambda: mugs.meter.of("circuit_open") == 0)
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG


def test_being_busy_is_not_being_broken(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply(status=429, headers={"Retry-After": "0"}) if call.attempt < 4 else sensible(call)
    mugs = hire(failures=1)
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG
    assert mugs.meter.of("calls", result="429") == 6


def test_no_more_at_a_time_than_allowed(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply(sensible(call).content, delay=0.02)
    mugs = hire(concurrency=3)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: mugs.enrich(Product("coffee mug", f"Mug {n}")), range(20)))
    assert server.most_at_once == 3
    assert mugs.meter.of("items", status="written") == 20


@pytest.mark.slow
def test_a_thousand_products_on_a_bad_day(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = bad_day
    products = shop(1000)
    mugs = hire(concurrency=32, call_seconds=1.0, item_seconds=20.0)
    with ThreadPoolExecutor(64) as pool:
        enriched = list(pool.map(mugs.enrich, products))
    assert {one.status for one in enriched} == {Outcome.WRITTEN}
    assert [one.text for one in enriched] == [f"{one.attributes['colour']} coffee mug" for one in products]
    assert max(one.rounds for one in enriched) == 1
    bad = {result: mugs.meter.of("calls", result=result) for result in ("malformed", "timeout", "answered")}
    assert bad["malformed"] > 50
    assert bad["timeout"] > 20
    assert bad["answered"] == 2000
    paid = server.count()
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(hire().enrich, products)) == enriched
    assert server.count() == paid
