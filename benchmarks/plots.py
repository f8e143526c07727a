"""The plots of the report: functions from data frames to images, as data addresses of SVG files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.runs import Run
from search.plot import STYLE

INK, SOFT = "#1c2024", "#5c646e"
BLUE, AMBER, RED, GREEN, *MORE = COLOURS = (
    "#2f6fde", "#d98200", "#d0364c", "#128a50", "#8250c8", "#0b8ea0", "#8a6d3b",
)  # fmt: skip
SHADES = ("#dfe8fa", "#b9cff4", "#93b5ee", "#6e9ce8", "#4882e2", "#2f6fde")
FAILURES = {"missed": SOFT, "late": RED, "refused": AMBER, "other": MORE[0]}
WIDTH = 7.2
"""Inches; the page scales it."""


class Canvas:
    """A figure with rows of axes, and its image when it is finished."""

    image = ""

    def __init__(self, height: float, rows: Sequence[float]) -> None:
        self.figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = self.figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=list(rows))
        self.axes: list[Any] = list(axes[:, 0])


@contextmanager
def canvas(height: float, rows: Sequence[float] = (1,)) -> Iterator[Canvas]:
    """``rows`` are the relative heights of the axes. Legends are drawn next to the axes, where they hide no data."""
    with mpl.rc_context(fname=STYLE):
        drawn = Canvas(height, rows)
        yield drawn
        for axes in drawn.axes:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
        file = io.BytesIO()
        drawn.figure.savefig(file, format="svg", transparent=True)
        drawn.image = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def by_level(parts: pl.DataFrame, loop: str, knee: dict[str, Any] | None) -> str:
    """Latency and rates against the offered rate of an open loop, or against the users of a closed one."""
    level = "offered" if loop == "open" else "planned"
    parts = parts.filter(pl.col("requests") > 0).sort(level)
    with canvas(4.2, (2, 1)) as drawn:
        latency, rate = drawn.axes
        _percentiles(latency, parts[level], parts, "o")
        rate.plot(parts[level], parts["answered"], color=GREEN, marker="o", label="answered")
        if loop == "open":
            rate.plot(parts[level], parts[level], color=SOFT, linestyle=":", label="offered")
            rate.set_xlabel("offered requests/s")
            rate.set_xlim(left=0)
        else:
            rate.plot(parts[level], parts["item rate"], color=BLUE, marker="o", label="items")
            rate.set_xlabel("users")
            _ticks(rate, "x", {users: f"{users:g}" for users in parts[level]}, base=2)
        if loop == "open" and knee:
            for axes in drawn.axes:
                axes.axvline(knee["offered"], color=INK, linewidth=1, linestyle="--")
        _from_zero(rate, "answers/s")
    return drawn.image


def over_time(parts: pl.DataFrame, run: Run) -> str:
    """Latency, rates, users of a closed loop, and requests without a good answer, if there were any."""
    middle, width = parts["start"] + parts["seconds"] / 2, parts["seconds"]
    changes, planned = [*(at for at, _ in run.steps), run.seconds], [level for _, level in run.steps]
    marker = "o" if len(parts) < 20 else ""
    failed = (parts["failed"].fill_null(0) > 0).any()
    with canvas(3.4 + 0.8 * failed, (2, 1.2, *[0.9] * failed)) as drawn:
        latency, rate, *failures = drawn.axes
        _percentiles(latency, middle, parts, marker)
        if run.loop == "open":
            rate.stairs(planned, changes, color=SOFT, linestyle=":", label="planned", baseline=None)
            rate.plot(middle, parts["offered"], color=BLUE, marker=marker, label="offered")
        else:
            rate.stairs(planned, changes, color=SOFT, label="users", baseline=None)
        rate.plot(middle, parts["answered"], color=GREEN, marker=marker, label="answered")
        _from_zero(rate, "requests/s")
        for axes in failures:
            kinds = parts.with_columns(other=pl.col("failed") - pl.sum_horizontal("missed", "late", "refused"))
            bottom = np.zeros(len(parts))
            for kind, colour in FAILURES.items():
                count = (kinds[kind].fill_null(0) * parts["offered"]).to_numpy()
                if count.any():
                    axes.bar(parts["start"], count, width, bottom, align="edge", color=colour, label=kind)
                bottom += count
            axes.set_ylabel("failed/s")
        drawn.axes[-1].set_xlabel("seconds from the start")
        drawn.axes[-1].set_xlim(0, run.seconds)
    return drawn.image


def bars(table: pl.DataFrame, unit: str) -> str:
    """A horizontal bar for each row, named by the first column and stacked of the others."""
    names, *layers = table.columns
    colours = COLOURS if len(layers) <= 3 else SHADES
    with canvas(0.9 + 0.34 * len(table)) as drawn:
        axes = drawn.axes[0]
        ends = np.zeros(len(table))
        for layer, colour in zip(layers, cycle(colours), strict=False):
            axes.barh(range(len(table)), table[layer], 0.62, ends, color=colour, label=layer)
            ends += table[layer].to_numpy()
        axes.set_yticks(range(len(table)), table[names].to_list(), color=INK)
        axes.set_xlim(0, ends.max() or 1)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel(unit)
    return drawn.image


def distributions(runs: Sequence[tuple[str, str, tuple[Any, Any]]]) -> str:
    """Latency by percentile; each run is (name, loop, its spectrum). Each nine of the percentile has the same width."""
    with canvas(3.6) as drawn:
        axes = drawn.axes[0]
        for (name, loop, (inverse, ms)), colour in zip(runs, cycle(COLOURS), strict=False):
            label = name if name == loop else f"{name} ({loop})"
            axes.plot(inverse, ms, color=colour, linestyle="-" if loop == "open" else "--", label=label)
        longest = max(inverse[-1] for _, _, (inverse, _) in runs)
        marks = {1: "0", 2: "50", 10: "90", 100: "99", 1e3: "99.9", 1e4: "99.99", 1e5: "99.999"}
        _ticks(axes, "x", {at: label for at, label in marks.items() if at <= longest})
        axes.set_xlim(1, max(longest, 2))
        axes.set_xlabel("percentile")
        _log_ms(axes)
    return drawn.image


def _percentiles(axes: Any, x: pl.Series, parts: pl.DataFrame, marker: str) -> None:
    for name, colour in (("p99", RED), ("p95", AMBER), ("p50", BLUE)):
        axes.plot(x, parts[name].cast(pl.Float64), color=colour, label=name, marker=marker)
    _log_ms(axes)


def _log_ms(axes: Any) -> None:
    """A log scale of milliseconds with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylabel("ms")
    low, high = axes.get_ylim()
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high > 5 * low else range(1, 10)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    _ticks(axes, "y", {tick: f"{tick:,.10g}" for tick in ticks})
    axes.set_ylim(low, high)


def _ticks(axes: Any, side: str, labels: dict[float, str], base: int = 10) -> None:
    """A log scale with ticks at these values and nowhere else."""
    getattr(axes, f"set_{side}scale")("log", base=base)
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(FixedLocator(list(labels)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))


def _from_zero(axes: Any, label: str) -> None:
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.set_ylabel(label)
