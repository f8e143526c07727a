"""Draws the panels as Grafana would lay them out, from what a Prometheus has: to look at a change of the dashboard."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deploy.grafana.prometheus import Series, ask, panels, queries

GRID_INCHES = 0.75, 0.36
"""Of a unit of Grafana's grid: wide, high."""
STEPS = 120
UNITS = {"reqps": " req/s", "rowsps": " rows/s", "ops": " ops/s", "watt": " W", "short": ""}
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw(dashboard: str, url: str, png: Path, minutes: float) -> None:
    """Raises ValueError where Prometheus does not understand a query."""
    end = time.time()
    begin, step = end - 60 * minutes, 60 * minutes / STEPS
    found = panels(dashboard)
    grid_height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in found)
    width, height = GRID_INCHES[0] * 24, GRID_INCHES[1] * grid_height
    figure = Figure((width, height), facecolor="#f4f5f5")
    for panel in found:
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        if panel["type"] == "row":
            figure.text(0.005, 1 - (y + 0.5) / grid_height, panel["title"], weight="bold", va="center", size=11)
            continue
        # Room for labels around, in units of the grid.
        box = (x + 0.9) / 24, 1 - (y + h - 2.0) / grid_height, (w - 1.2) / 24, (h - 3.0) / grid_height
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], size=9, loc="left")
        answers = [
            (legend, one)
            for legend, query in queries(panel, f"{max(60, math.ceil(4 * step))}s" if minutes > 30 else "30s")
            for one in ask(url, query, begin, end, step)
        ]
        if not answers:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "No data", ha="center", color="grey")
        else:
            DRAWERS[panel["type"]](axes, panel, answers)
    figure.savefig(png, dpi=70)


def lines(axes: Axes, panel: Mapping[str, Any], answers: list[tuple[str, Series]]) -> None:
    settings = panel["fieldConfig"]["defaults"]
    names = [fill(legend, one.labels) for legend, one in answers]
    times = sorted({at for _, one in answers for at in one.seconds})
    if "stacking" in settings["custom"]:
        rows = [dict(zip(one.seconds, one.values, strict=True)) for _, one in answers]
        values = [[finite(row.get(at, 0.0)) for at in times] for row in rows]
        axes.stackplot([minutes_ago(at, times) for at in times], values, labels=names, alpha=0.7)
    else:
        for name, (_, one) in zip(names, answers, strict=True):
            axes.plot([minutes_ago(at, times) for at in one.seconds], one.values, label=name, lw=1.2)
    if "thresholds" in settings:
        axes.axhline(settings["thresholds"]["steps"][-1]["value"], color="red", lw=0.8)
    axes.set_ylim(bottom=settings.get("min"), top=settings.get("max"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value, settings["unit"])))
    axes.xaxis.set_major_formatter("{x:g} min")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=4, loc="upper left", bbox_to_anchor=(-0.05, -0.12), frameon=False, columnspacing=1)


def number(axes: Axes, panel: Mapping[str, Any], answers: list[tuple[str, Series]]) -> None:
    settings = panel["fieldConfig"]["defaults"]
    axes.set_axis_off()
    axes.text(0.5, 0.4, show(answers[0][1].values[-1], settings["unit"]), ha="center", va="center", size=22)


def densities(axes: Axes, panel: Mapping[str, Any], answers: list[tuple[str, Series]]) -> None:
    rising = sorted((one for _, one in answers), key=lambda one: float(one.labels["le"]))
    times = sorted({at for one in rising for at in one.seconds})
    rows = [dict(zip(one.seconds, one.values, strict=True)) for one in rising]
    cumulative = [[0.0] * len(times), *([finite(row.get(at, 0.0)) for at in times] for row in rows)]
    counts = [[high - low for low, high in zip(*pair, strict=True)] for pair in pairwise(cumulative)]
    axes.imshow(counts, aspect="auto", origin="lower", cmap="Blues", extent=(minutes_ago(times[0], times), 0, 0, 1))
    axes.set_yticks(
        [(i + 0.5) / len(rising) for i in range(len(rising))], [f"≤ {one.labels['le']}" for one in rising], size=6
    )
    axes.xaxis.set_major_formatter("{x:g} min")
    axes.tick_params(axis="x", labelsize=7)


DRAWERS = {"timeseries": lines, "stat": number, "heatmap": densities}


def fill(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend)


def minutes_ago(at: float, times: list[float]) -> float:
    return (at - times[-1]) / 60


def finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def show(value: float, unit: str) -> str:
    """As Grafana shows it: 0.5 percentunit is 50 %, 0.02 s is 20 ms."""
    if unit == "percentunit":
        return f"{100 * value:.4g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1e3 * value:.3g} ms"
    if unit == "bytes":
        return f"{value / 2**30:.3g} GiB"
    word = f" {unit.removeprefix('suffix:').strip()}" if unit.startswith("suffix:") else UNITS[unit]
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}{word}"
    return f"{value:.3g}{word}"
