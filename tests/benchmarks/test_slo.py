"""SLOs: their texts, the requests that they are measured on, and the sentence of a verdict."""

from __future__ import annotations

import pytest

from benchmarks.runs import MISSED, OK, Request, frame
from benchmarks.slo import judge, parse, parse_all


def answered(
    ms: float, items: int = 1, fallbacks: int = 0, pipeline: str = "product_image", outcome: str = OK
) -> Request:
    return Request(100.0, 100.0, 100.0 + ms / 1e3, "vlclip", pipeline, items, outcome, fallbacks)


MISS = Request(100.0, None, None, "vlclip", "product_image", 1, MISSED)
ONE_FALLBACK = answered(1, items=4, fallbacks=1)
TEXTS = answered(1, items=96, pipeline="product_text")
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
def test_parsing(text: str, measure: str, limit: float) -> None:
    slo = parse(text)
    assert slo.measure == measure
    assert slo.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99=", "p99=50", "p99=50%", "p101=1s", "p0=1s", "p9.9.9=1s", "error-rate=5ms", "error-rate=200%",
     "throughput=5%", "latency=5ms", "p99=fast", "p99=50 ms", "p99=1.2.3ms"],
)  # fmt: skip
def test_a_wrong_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an SLO: expected one like p99=50ms"):
        parse(text)


def test_several_slos_in_one_text_or_in_several() -> None:
    assert parse_all("p99=50ms error-rate=1%") == parse_all(["p99=50ms", "error-rate=1%"])
    assert parse_all(["p99=50ms,error-rate=1%"]) == parse_all("p99=50ms error-rate=1%")
    assert parse_all(None) == parse_all("") == parse_all([]) == []


@pytest.mark.parametrize(
    ("requests", "text", "held", "sentence"),
    [
        (HUNDRED, "p99=99.5ms", True, "p99 was 99 ms, the SLO is 99.5 ms"),
        # 99 of 100 kept it.
        ([*[answered(10)] * 99, answered(1000)], "p99=50ms", True, "p99 was 10 ms, the SLO is 50 ms"),
        (HUNDRED, "p50=40ms", False, "p50 was 50 ms, the SLO is 40 ms"),
        (HUNDRED, "p100=1s", True, "p100 was 100 ms, the SLO is 1 s"),
        ([*HUNDRED, MISS, MISS], "p99=1s", False, "p99 was never, the SLO is 1 s"),
        ([*HUNDRED, MISS], "p90=100ms", True, "p90 was 91 ms, the SLO is 100 ms"),
        # A fast refusal is not an answer: it must not improve the latency.
        ([*HUNDRED, *[answered(1, outcome="UNAVAILABLE")] * 20], "p90=1s", False, "p90 was never, the SLO is 1 s"),
        ([*HUNDRED, MISS], "error-rate=0.1%", False, "error-rate was 0.99%, the SLO is 0.1%"),
        (HUNDRED, "error-rate=0%", True, "error-rate was 0%, the SLO is 0%"),
        (HUNDRED, "throughput=10", True, "throughput was 10/s, the SLO is 10/s"),
        ([*HUNDRED[:90], MISS], "throughput=10", False, "throughput was 9/s, the SLO is 10/s"),
        ([ONE_FALLBACK, TEXTS], "fallback-rate=5%", False, "fallback-rate was 25%, the SLO is 5%"),
        ([], "p99=50ms", False, "p99 was not measured, the SLO is 50 ms"),
        ([], "error-rate=1%", False, "error-rate was not measured, the SLO is 1%"),
        ([TEXTS], "fallback-rate=5%", False, "fallback-rate was not measured, the SLO is 5%"),
    ],
)
def test_verdicts(requests: list[Request], text: str, held: bool, sentence: str) -> None:
    (verdict,) = judge([parse(text)], frame(requests), seconds=10)
    assert (verdict.held, verdict.sentence) == (held, sentence)
    assert verdict.to_json() == {"slo": text, "measured": verdict.shown, "held": held, "sentence": sentence}
