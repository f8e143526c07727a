"""The plots of the report, as SVG whose colours are CSS variables, so that they follow the page into the dark."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.figures import Part, spectrum
from benchmarks.runs import MISSED, OK, Run
from benchmarks.truth import Model

# Stand-ins that matplotlib takes for colours.
VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    **{f"#0505{n:02}": f"var(--c{n})" for n in range(1, 8)},
    **{f"#0606{n:02}": f"var(--b{n})" for n in range(1, 7)},
}
INK, SOFT, LINE, BLUE, AMBER, RED, GREEN, *MORE = list(VARIABLES)[:10]
LINES = (BLUE, AMBER, GREEN, RED, *MORE)
SHADES = list(VARIABLES)[10:]
FAILURES = {"UNAVAILABLE": AMBER, "DEADLINE_EXCEEDED": RED, MISSED: SOFT}
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
}
WIDTH = 7.2
"""Inches; the page scales it."""
BATCHES = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, math.inf))


class Canvas:
    """A figure with rows of axes, and its SVG once it is left."""

    svg = ""

    def __init__(self, figure: Figure, axes: list[Any]) -> None:
        self.figure, self.axes = figure, axes


@contextmanager
def canvas(name: str, height: float = 3.0, rows: Sequence[float] = (1,)) -> Any:
    """``rows`` are their relative heights. ``name`` keeps the ids apart from those of other plots of a page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=list(rows))[:, 0]
        drawn = Canvas(figure, list(axes))
        yield drawn
        drawn.svg = to_svg(figure)


def to_svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" xmlns="http://www.w3.org/2000/svg" role="img">', svg
    )
    return re.sub("#0[1-6]0[1-6]0[0-9]", lambda found: VARIABLES[found.group()], svg)


def latency_by_rate(name: str, parts: Sequence[Part], knee: Part | None) -> str:
    """p50, p95, p99 against the offered rate; below it, what was achieved of it."""
    parts = sorted((part for part in parts if part.requests), key=lambda part: part.offered)
    offered = [part.offered for part in parts]
    with canvas(name, 4.2, (2, 1)) as drawn:
        latency, rate = drawn.axes
        _percentiles(latency, offered, parts, marker="o")
        rate.plot(offered, offered, color=SOFT, linestyle=":", label="offered")
        rate.plot(offered, [part.achieved for part in parts], color=GREEN, marker="o", markersize=4, label="achieved")
        if knee:
            for axes in drawn.axes:
                axes.axvline(knee.offered, color=INK, linewidth=1, linestyle="--")
            side = -1 if knee.offered > max(offered) / 2 else 1
            latency.annotate(
                f"knee {number(knee.offered)}/s",
                (knee.offered, 1),
                (4 * side, -2),
                color=INK,
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="top",
            )
        latency.set_ylabel("ms")
        rate.set_ylabel("answers/s")
        rate.set_xlabel("offered requests/s")
        _from_zero(rate)
        rate.set_xlim(left=0)
        _legend(latency)
        _legend(rate)
    return drawn.svg


def over_time(name: str, parts: Sequence[Part], run: Run) -> str:
    """Percentiles; planned, offered and achieved; and below, where there were any, requests without a good answer."""
    middle = [part.start + part.seconds / 2 for part in parts]
    kinds = sorted({kind for part in parts for kind in part.outcomes} - {OK}, key=lambda kind: (kind == MISSED, kind))
    extra = [0.9] * ((run.loop == "closed") + bool(kinds))
    edges = [*(part.start for part in parts), parts[-1].start + parts[-1].seconds]
    planned = [level for _, level in run.steps]
    changes = [*(at for at, _ in run.steps), run.seconds]
    marker = "o" if len(parts) < 20 else None
    with canvas(name, 3.4 + 0.8 * len(extra), (2, 1.2, *extra)) as drawn:
        latency, rate, *rest = drawn.axes
        _percentiles(latency, middle, parts, marker=marker)
        latency.set_ylabel("ms")
        if run.loop == "open":
            rate.stairs(planned, changes, color=SOFT, linestyle=":", label="planned", baseline=None)
            rate.plot(
                middle,
                [part.offered for part in parts],
                color=BLUE,
                linewidth=1.2,
                marker=marker,
                markersize=3,
                label="offered",
            )
        else:
            users = rest.pop(0)
            users.stairs(planned, changes, color=SOFT, baseline=None)
            users.set_ylabel("users")
            _from_zero(users)
        rate.plot(middle, [part.achieved for part in parts], color=GREEN, marker=marker, markersize=4, label="achieved")
        rate.set_ylabel("requests/s")
        _from_zero(rate)
        for axes in rest:
            bottom = np.zeros(len(parts))
            others = itertools.cycle(MORE)
            for kind in kinds:
                count = np.array([part.outcomes.get(kind, 0) / part.seconds for part in parts])
                colour = FAILURES.get(kind) or next(others)
                axes.bar(edges[:-1], count, np.diff(edges), bottom, align="edge", color=colour, label=kind)
                bottom += count
            axes.set_ylabel("failed/s")
        drawn.axes[-1].set_xlabel("seconds from the start")
        drawn.axes[-1].set_xlim(0, edges[-1])
        for axes in drawn.axes:
            _legend(axes)
    return drawn.svg


def stages(name: str, models: Sequence[Model]) -> str:
    """Bars of queue, compute and copies."""
    with canvas(name, 0.9 + 0.34 * len(models)) as drawn:
        axes = drawn.axes[0]
        layers = [
            ("queue", AMBER, [model.queue_ms for model in models]),
            ("compute", BLUE, [model.compute_ms for model in models]),
            ("copies", RED, [model.copies_ms for model in models]),
        ]
        ends = _stacked_bars(axes, models, layers)
        for row, end in enumerate(ends):
            axes.annotate(number(end), (end, row), (4, 0), textcoords="offset points", va="center", color=INK)
        axes.set_xlim(0, 1.12 * float(ends.max()) or 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.set_xlabel("ms a request")
        _legend(axes)
    return drawn.svg


def batches(name: str, models: Sequence[Model]) -> str:
    """Of each stage's items, the share that ran in batches of each size."""
    with canvas(name, 0.9 + 0.34 * len(models)) as drawn:
        axes = drawn.axes[0]
        layers = []
        for shade, (least, most) in zip(SHADES, BATCHES, strict=True):
            label = f"{least}" if least == most else f"{least} to {most}" if most < math.inf else f"{least} or more"
            layers.append((label, shade, [_share(model.batches, least, most) for model in models]))
        _stacked_bars(axes, models, [layer for layer in layers if any(layer[2])])
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the items")
        _legend(axes, title="batch of")
    return drawn.svg


def throughput_by_users(name: str, parts: Sequence[Part]) -> str:
    """Answers and items a second against users; below it, the latency of the answers."""
    parts = sorted((part for part in parts if part.requests), key=lambda part: part.planned)
    users = [part.planned for part in parts]
    with canvas(name, 4.2, (1, 1.4)) as drawn:
        rate, latency = drawn.axes
        for label, colour, values in (
            ("items", BLUE, [part.items for part in parts]),
            ("answers", GREEN, [part.achieved for part in parts]),
        ):
            rate.plot(users, values, color=colour, marker="o", markersize=4, label=label)
        rate.set_ylabel("a second")
        _from_zero(rate)
        _percentiles(latency, users, parts, marker="o")
        latency.set_ylabel("ms")
        latency.set_xlabel("users at once")
        latency.set_xscale("log", base=2)
        latency.xaxis.set_major_locator(FixedLocator(users))
        latency.xaxis.set_minor_locator(NullLocator())
        latency.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend(rate)
        _legend(latency)
    return drawn.svg


def distributions(name: str, runs: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Latency against its percentile, on a scale that gives each nine the same room; (label, loop, seconds) a run."""
    with canvas(name, 3.6) as drawn:
        axes = drawn.axes[0]
        longest = 2
        for (label, loop, seconds), colour in zip(runs, itertools.cycle(LINES), strict=False):
            inverse, ms = spectrum(seconds)
            label = label if label == loop else f"{label} ({loop})"
            axes.plot(inverse, ms, color=colour, linestyle="-" if loop == "open" else "--", label=label)
            longest = max(longest, len(seconds))
        marks = [(1, "0"), (2, "50"), (10, "90"), (100, "99"), (1e3, "99.9"), (1e4, "99.99"), (1e5, "99.999")]
        marks = [mark for mark in marks if mark[0] <= longest]
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([at for at, _ in marks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: dict(marks).get(at, "")))
        axes.set_xlim(1, longest)
        axes.set_xlabel("percentile")
        axes.set_ylabel("ms")
        _log_ms(axes)
        _legend(axes)
    return drawn.svg


def number(value: float) -> str:
    """Three digits, as people read them; a dash where nothing was measured."""
    if not math.isfinite(value):
        return "-"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def _percentiles(axes: Any, x: Sequence[float], parts: Sequence[Part], **style: Any) -> None:
    for name, colour in (("p99", RED), ("p95", AMBER), ("p50", BLUE)):
        axes.plot(x, [getattr(part, name) for part in parts], color=colour, label=name, markersize=4, **style)
    _log_ms(axes)


def _log_ms(axes: Any) -> None:
    """A log scale with plain numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high > 5 * low else range(1, 10)
    axes.yaxis.set_major_locator(FixedLocator([digit * 10.0**decade for decade in decades for digit in digits]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylim(low, high)


def _from_zero(axes: Any) -> None:
    """With room above the highest marker."""
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])


def _legend(axes: Any, **options: Any) -> None:
    """Beside the axes, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0, **options)


def _stacked_bars(axes: Any, models: Sequence[Model], layers: Sequence[tuple[str, str, list[float]]]) -> np.ndarray:
    """A bar of each model; where they end. A layer is (label, colour, values)."""
    ends = np.zeros(len(models))
    for label, colour, values in layers:
        axes.barh(range(len(models)), values, 0.62, ends, color=colour, label=label)
        ends += values
    axes.set_yticks(range(len(models)), [model.name for model in models], color=INK)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return ends


def _share(batches: Mapping[int, int], least: float, most: float) -> float:
    items = {size: size * count for size, count in batches.items()}
    within = sum(count for size, count in items.items() if least <= size <= most)
    return 100 * within / sum(items.values()) if items else 0.0
