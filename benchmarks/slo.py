"""Service level objectives: what a load run must hold, and whether it did.

p50=20ms p99=50ms p99.9=1s   within this time, that part of all requests was answered; one that failed or could not be
                             sent counts as never
error-rate=0.1%              requests that were not answered, missed ones among them
fallback-rate=5%             items of product_image and ground for which no box was found
throughput=40                requests answered a second, at least
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.judge import percentiles
from benchmarks.runs import OK, Request

GROUNDED = ("product_image", "ground")
FORMS = "p99=50ms, p99.9=1s, error-rate=0.1%, fallback-rate=5% or throughput=40"
HELP = "such as p99=50ms, throughput=40 or error-rate=0.001 (benchmarks/slo.py)"
"""Of an option, whose text cannot have a percent sign."""
_UNITS = {"ms": 1e-3, "s": 1.0, "%": 0.01, "/s": 1.0, "": 1.0}


@dataclass(frozen=True)
class Slo:
    text: str
    measure: str
    """``p99``, ``error-rate``, ``fallback-rate`` or ``throughput``."""
    limit: float
    """Seconds, a part of 1, or requests a second."""


@dataclass(frozen=True)
class Verdict:
    """What was measured of an SLO, in its unit; infinite for a percentile that was not answered, nan for nothing."""

    slo: Slo
    measured: float

    @property
    def held(self) -> bool:
        if self.slo.measure == "throughput":
            return self.measured >= self.slo.limit
        return self.measured <= self.slo.limit

    @property
    def sentence(self) -> str:
        return sentence(self.slo, self.shown)

    @property
    def shown(self) -> str:
        return show(self.slo.measure, self.measured)

    def to_json(self) -> dict[str, Any]:
        """As ``Run.slos`` keeps it."""
        return {"slo": self.slo.text, "measured": self.shown, "held": self.held}


def sentence(slo: Slo, measured: str) -> str:
    """``p99 was 81 ms, the SLO is 50 ms``"""
    return f"{slo.measure} was {measured}, the SLO is {show(slo.measure, slo.limit)}"


def parse(text: str) -> Slo:
    """Raises ValueError, in a sentence, for what is no SLO."""
    found = re.fullmatch(r"([a-z-]+|p[\d.]+)=([\d.]+)(ms|s|%|/s|)", text)
    wrong = ValueError(f'"{text}" is no SLO: expected one like {FORMS}')
    if not found:
        raise wrong
    measure, number, unit = found.groups()
    try:
        limit = float(number) * _UNITS[unit]
        part = float(measure[1:]) if re.match(r"p\d", measure) else None
    except ValueError:
        raise wrong from None
    if part is not None:
        fits = unit in ("ms", "s") and 0 < part <= 100
    elif measure in ("error-rate", "fallback-rate"):
        fits = unit in ("%", "") and limit <= 1
    else:
        fits = measure == "throughput" and unit in ("/s", "")
    if not fits:
        raise wrong
    return Slo(text, measure, limit)


def parse_all(given: str | Sequence[str] | None) -> list[Slo]:
    """Of options that may be repeated or hold several, apart by spaces or commas. Raises ValueError."""
    texts = [given] if isinstance(given, str) else given or []
    return [parse(text) for several in texts for text in re.split(r"[\s,]+", several.strip()) if text]


def judge(slos: Sequence[Slo], requests: Sequence[Request], seconds: float) -> list[Verdict]:
    return [Verdict(slo, measure(slo.measure, requests, seconds)) for slo in slos]


def measure(name: str, requests: Sequence[Request], seconds: float) -> float:
    """What ``Slo.limit`` is compared with; nan where there is nothing to measure."""
    answered = [request for request in requests if request.outcome == OK]
    if name == "throughput":
        return len(answered) / seconds
    if name == "fallback-rate":
        grounded = [request for request in answered if request.pipeline in GROUNDED]
        items = sum(request.items for request in grounded)
        return sum(request.fallbacks for request in grounded) / items if items else math.nan
    if not requests:
        return math.nan
    if name == "error-rate":
        return 1 - len(answered) / len(requests)
    return percentile(requests, float(name[1:]))


def percentile(requests: Sequence[Request], part: float) -> float:
    """Seconds within which ``part`` percent of the requests were answered; infinite where so many never were."""
    latencies = [request.latency if request.outcome == OK else None for request in requests]
    seconds = [math.inf if latency is None else latency for latency in latencies]
    return percentiles(seconds, [part])[0] / 1e3


def show(measure: str, value: float) -> str:
    if math.isnan(value):
        return "not measured"
    if measure.endswith("-rate"):
        return f"{100 * value:.3g}%"
    if measure == "throughput":
        return f"{value:.3g}/s"
    return "never" if math.isinf(value) else f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
