"""The figures of a load run, computed from the data frame of its requests: percentiles, rates, outcomes, the knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from benchmarks.runs import LATE, MISSED, OK, REFUSED, Run

KNEE_MEDIAN = 3.0
"""The knee's median is at most so many times that of the lowest step. The tail of a short step depends on chance."""
KNEE_ACHIEVED = 0.95
"""Part of the offered rate that the knee's step must have answered."""
WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
"""Seconds of an interval of the timeline."""
INTERVALS, REQUESTS = 60, 30
"""A timeline has at most so many intervals, with so many requests each on average."""
PERCENTILES = (50, 95, 99)
RATES = ("offered", "answered", "item rate")
LATENCIES = ("p50", "p95", "p99")
SHARES = ("failed", "missed", "late", "refused")
"""Parts of the requests that were due: without a good answer, and among them not sent, too late and overloaded."""
FAILURES = ("missed", "late", "refused", "refused p50", "refused p99")
"""Columns that are of interest only if something failed."""

GOOD = pl.col("outcome") == OK
LATENCY = 1e3 * (pl.col("done") - pl.col("scheduled"))
"""Milliseconds from the scheduled time to the answer, good or not. Null without an answer."""


def percentile(part: float, latency: pl.Expr = LATENCY) -> pl.Expr:
    """The smallest latency that ``part`` percent of the requests do not exceed. Null if there is none."""
    return latency.quantile(part / 100, "equiprobable")


def share(outcome: str) -> pl.Expr:
    return (pl.col("outcome") == outcome).mean()


ASKED = [
    pl.len().alias("requests"),
    *(percentile(part, LATENCY.filter(GOOD)).alias(f"p{part}") for part in PERCENTILES),
    (~GOOD).mean().alias("failed"),
    share(MISSED).alias("missed"),
    share(LATE).alias("late"),
    share(REFUSED).alias("refused"),
    *(percentile(part, LATENCY.filter(pl.col("outcome") == REFUSED)).alias(f"refused p{part}") for part in (50, 99)),
]
"""Columns for the requests that were due in a part of a run. Latencies are those of good answers."""


def split(run: Run, requests: pl.DataFrame, edges: Sequence[float]) -> pl.DataFrame:
    """The run in parts that begin and end at ``edges``, in seconds from its start: one row a part.

    ``start`` and ``seconds`` of the part, ``planned`` (requests a second, or users), ``offered`` (requests a second
    that were due), ``answered`` and ``item rate`` (a second, for the good answers that came in the part), and ASKED.
    """
    level = [next((value for at, value in reversed(run.steps) if at <= edge), 0.0) for edge in edges[:-1]]
    parts = pl.DataFrame({"start": edges[:-1], "seconds": np.diff(edges), "planned": level})
    parts = parts.with_row_index("part").cast({"part": pl.Int64})
    good = requests.filter(GOOD)
    due = requests.with_columns(part=_part(requests["scheduled"], run, edges))
    came = good.with_columns(part=_part(good["done"], run, edges))
    came_in = came.group_by("part").agg(answered=pl.len(), rate=pl.col("items").sum())
    counts = pl.col("requests", "answered", "rate").fill_null(0)
    columns = [column.meta.output_name() for column in ASKED[1:]]
    return (
        parts.join(due.group_by("part").agg(ASKED), on="part", how="left", maintain_order="left")
        .join(came_in, on="part", how="left", maintain_order="left")
        .with_columns(counts)
        .with_columns(pl.col("answered", "rate") / pl.col("seconds"), offered=pl.col("requests") / pl.col("seconds"))
        .rename({"rate": "item rate"})
        .select("start", "seconds", "planned", "requests", *RATES, *columns)
    )


def _part(times: pl.Series, run: Run, edges: Sequence[float]) -> pl.Series:
    """The index of the part in which each time lies."""
    return pl.Series(np.searchsorted(edges, times.to_numpy() - run.started, "right") - 1, dtype=pl.Int64)


def whole(run: Run, requests: pl.DataFrame) -> dict[str, Any]:
    """The run as a single part."""
    return split(run, requests, [0.0, run.seconds]).row(0, named=True)


def steps(run: Run, requests: pl.DataFrame) -> pl.DataFrame:
    """One part for each step of the schedule."""
    return split(run, requests, sorted({0.0, *(at for at, _ in run.steps if at < run.seconds), run.seconds}))


def timeline(run: Run, requests: pl.DataFrame) -> pl.DataFrame:
    """Parts of the same number of whole seconds. The last one may differ by up to half of that."""
    least = run.seconds / min(INTERVALS, max(len(requests) / REQUESTS, 1))
    width = next((width for width in WIDTHS if width >= least), math.ceil(least))
    edges = [float(edge) for edge in range(0, math.ceil(run.seconds), width)]
    if len(edges) > 1 and run.seconds - edges[-1] < width / 2:
        edges.pop()
    return split(run, requests, [*edges, run.seconds])


def knee(parts: pl.DataFrame) -> dict[str, Any] | None:
    """The last step, from the lowest rate upwards, before latency rises or answers fall behind.

    Its p50 is at most KNEE_MEDIAN times that of the lowest step. Of the N requests that were offered, at least
    KNEE_ACHIEVED, less √N for chance at the borders of short steps, were answered in its time. Both hold for every step
    below it. None if the lowest step already fails.
    """
    found = None
    lowest = None
    for part in parts.filter(pl.col("requests") > 0).sort("offered").iter_rows(named=True):
        lowest = lowest or part
        chance = math.sqrt(part["requests"]) / part["seconds"]
        if part["p50"] is None or part["p50"] > KNEE_MEDIAN * lowest["p50"]:
            break
        if part["answered"] < KNEE_ACHIEVED * part["offered"] - chance:
            break
        found = part
    return found


def group(requests: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The requests that have these columns in common, the largest group first. Latencies are of all answers."""
    return (
        requests.group_by(columns)
        .agg(
            pl.len().alias("requests"),
            (pl.len() / len(requests)).alias("share"),
            *(percentile(part).alias(f"p{part}") for part in PERCENTILES),
            LATENCY.max().alias("longest"),
        )
        .sort("requests", *columns, descending=[True, *[False] * len(columns)])
    )


def spectrum(requests: pl.DataFrame, points: int = 300) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The distribution of good latencies: 1 / (1 - quantile) from 1 to N, evenly on a log scale, and ms there."""
    latencies = requests.filter(GOOD).select(LATENCY).to_series().sort().to_numpy()
    if not len(latencies):
        return np.empty(0), np.empty(0)
    inverse = np.geomspace(1, len(latencies), points)
    rank = np.minimum(np.ceil((1 - 1 / inverse) * len(latencies)).astype(int), len(latencies) - 1)
    return inverse, latencies[rank]
