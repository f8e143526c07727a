"""SLOs: what they may say, what they are held against, and the sentence for one that broke."""

from __future__ import annotations

import math

import pytest

from benchmarks.runs import MISSED, OK, Request
from benchmarks.slo import judge, parse, parse_all


def answered(ms, items=1, fallbacks=0, pipeline="product_image", outcome=OK):
    return Request(100.0, 100.0, 100.0 + ms / 1e3, "vlclip", pipeline, items, outcome, fallbacks)


MISS = Request(100.0, None, None, "vlclip", "product_image", 1, MISSED)
HUNDRED = [answered(ms) for ms in range(1, 101)]


@pytest.mark.parametrize(
    ("text", "measure", "limit"),
    [
        ("p99=50ms", "p99", 0.05),
        ("p99.9=1.5s", "p99.9", 1.5),
        ("error-rate=0.1%", "error-rate", 0.001),
        ("fallback-rate=0.05", "fallback-rate", 0.05),
        ("throughput=40", "throughput", 40),
        ("throughput=40/s", "throughput", 40),
    ],
)
def test_what_an_slo_says(text, measure, limit):
    slo = parse(text)
    assert (slo.measure, slo.limit) == (measure, pytest.approx(limit))


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99=", "p99=50", "p99=50%", "p101=1s", "p0=1s", "p9.9.9=1s", "error-rate=5ms", "error-rate=200%",
     "throughput=5%", "latency=5ms", "p99=fast", "p99=50 ms", "p99=1.2.3ms"],
)  # fmt: skip
def test_what_is_none_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is no SLO: expected one like p99=50ms"):
        parse(text)


def test_several_stand_in_one_text_or_in_several():
    assert parse_all("p99=50ms error-rate=1%") == parse_all(["p99=50ms", "error-rate=1%"])
    assert parse_all(["p99=50ms,error-rate=1%"]) == parse_all("p99=50ms error-rate=1%")
    assert parse_all(None) == parse_all("") == parse_all([]) == []


@pytest.mark.parametrize(
    ("requests", "text", "held", "sentence"),
    [
        (HUNDRED, "p99=99.5ms", True, "p99 was 99 ms, the SLO is 99.5 ms"),
        # Just 99 of 100 kept it.
        ([*[answered(10)] * 99, answered(1000)], "p99=50ms", True, "p99 was 10 ms, the SLO is 50 ms"),
        (HUNDRED, "p50=40ms", False, "p50 was 50 ms, the SLO is 40 ms"),
        (HUNDRED, "p100=1s", True, "p100 was 100 ms, the SLO is 1 s"),
        ([*HUNDRED, MISS, MISS], "p99=1s", False, "p99 was never, the SLO is 1 s"),
        ([*HUNDRED, MISS], "p90=100ms", True, "p90 was 91 ms, the SLO is 100 ms"),
        # A refusal that comes at once is no answer: it must not make latency look good.
        ([*HUNDRED, *[answered(1, outcome="UNAVAILABLE")] * 20], "p90=1s", False, "p90 was never, the SLO is 1 s"),
        ([*HUNDRED, MISS], "error-rate=0.1%", False, "error-rate was 0.99%, the SLO is 0.1%"),
        (HUNDRED, "error-rate=0%", True, "error-rate was 0%, the SLO is 0%"),
        (HUNDRED, "throughput=10", True, "throughput was 10/s, the SLO is 10/s"),
        ([*HUNDRED[:90], MISS], "throughput=10", False, "throughput was 9/s, the SLO is 10/s"),
        (
            [answered(1, items=4, fallbacks=1), answered(1, pipeline="product_text", items=96)],
            "fallback-rate=5%",
            False,
            "fallback-rate was 25%, the SLO is 5%",
        ),
        ([], "p99=50ms", False, "p99 was not measured, the SLO is 50 ms"),
        ([], "error-rate=1%", False, "error-rate was not measured, the SLO is 1%"),
        (
            [answered(1, pipeline="product_text")],
            "fallback-rate=5%",
            False,
            "fallback-rate was not measured, the SLO is 5%",
        ),
    ],
)
def test_verdicts(requests, text, held, sentence):
    (verdict,) = judge([parse(text)], requests, seconds=10)
    assert (verdict.held, verdict.sentence) == (held, sentence)
    assert verdict.to_json() == {"slo": text, "measured": verdict.shown, "held": held}


def test_nothing_measured_never_holds():
    (verdict,) = judge([parse("p99=50ms")], [], 1)
    assert math.isnan(verdict.measured)
    assert not verdict.held
