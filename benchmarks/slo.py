"""Service level objectives (SLOs) of a load run.

p50=20ms p99=50ms p99.9=1s   that part of all requests is answered within this time; a request that failed or was missed
                             counts as never answered
error-rate=0.1%              part of the requests without a good answer, missed ones included
fallback-rate=5%             part of the items of product_image and ground for which no box was found
throughput=40                good answers a second, at least
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from benchmarks.figures import GOOD, LATENCY
from benchmarks.figures import percentile as percentile_of
from benchmarks.runs import GROUNDED

FORMS = "p99=50ms, p99.9=1s, error-rate=0.1%, fallback-rate=5% or throughput=40"
HELP = "SLOs, such as p99=50ms, throughput=40 or error-rate=0.001 (see benchmarks/slo.py)"
"""The help of an option. Locust does not allow a percent sign in it."""
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
    """The measured value of an SLO, in its unit. Infinite for a percentile never answered, NaN if not measured."""

    slo: Slo
    measured: float

    @property
    def held(self) -> bool:
        if self.slo.measure == "throughput":
            return self.measured >= self.slo.limit
        return self.measured <= self.slo.limit

    @property
    def sentence(self) -> str:
        """Such as ``p99 was 81 ms, the SLO is 50 ms``."""
        return f"{self.slo.measure} was {self.shown}, the SLO is {show(self.slo.measure, self.slo.limit)}"

    @property
    def shown(self) -> str:
        return show(self.slo.measure, self.measured)

    def to_json(self) -> dict[str, Any]:
        """An entry of ``Run.slos``."""
        return {"slo": self.slo.text, "measured": self.shown, "held": self.held, "sentence": self.sentence}


def parse(text: str) -> Slo:
    """Raises ValueError, with an example, if the text is not an SLO."""
    found = re.fullmatch(r"(p(\d+(?:\.\d+)?)|error-rate|fallback-rate|throughput)=(\d+(?:\.\d+)?)(ms|s|%|/s|)", text)
    measure, part, number, unit = found.groups() if found else ("", None, "nan", "")
    limit = float(number) * _UNITS[unit]
    if part is not None:
        fits = unit in ("ms", "s") and 0 < float(part) <= 100
    elif measure == "throughput":
        fits = unit in ("/s", "")
    else:
        fits = unit in ("%", "") and limit <= 1
    if not fits:
        raise ValueError(f'"{text}" is not an SLO: expected one like {FORMS}')
    return Slo(text, measure, limit)


def parse_all(given: str | Sequence[str] | None) -> list[Slo]:
    """The SLOs of one or more texts, separated by spaces or commas. Raises ValueError."""
    texts = [given] if isinstance(given, str) else given or []
    return [parse(text) for several in texts for text in re.split(r"[\s,]+", several.strip()) if text]


def judge(slos: Sequence[Slo], requests: pl.DataFrame, seconds: float) -> list[Verdict]:
    return [Verdict(slo, measure(slo.measure, requests, seconds)) for slo in slos]


def measure(name: str, requests: pl.DataFrame, seconds: float) -> float:
    """The value that ``Slo.limit`` is compared with. NaN if there is nothing to measure."""
    answered = requests.filter(GOOD)
    if name == "throughput":
        return len(answered) / seconds
    if name == "fallback-rate":
        grounded = answered.filter(pl.col("pipeline").is_in(GROUNDED))
        items = int(grounded["items"].sum())
        return int(grounded["fallbacks"].sum()) / items if items else math.nan
    if requests.is_empty():
        return math.nan
    if name == "error-rate":
        return 1 - len(answered) / len(requests)
    return percentile(requests, float(name[1:]))


def percentile(requests: pl.DataFrame, part: float) -> float:
    """Seconds within which ``part`` percent of the requests were answered. Infinite if too few ever were."""
    latency = pl.when(GOOD).then(LATENCY).otherwise(math.inf)
    return float(requests.select(percentile_of(part, latency)).item()) / 1e3


def show(measure: str, value: float) -> str:
    if math.isnan(value):
        return "not measured"
    if measure.endswith("-rate"):
        return f"{100 * value:.3g}%"
    if measure == "throughput":
        return f"{value:.3g}/s"
    return "never" if math.isinf(value) else f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
