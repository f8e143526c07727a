"""Plots in the style of this project. matplotlib is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from search.measures import Estimate

STYLE = Path(__file__).with_name("plot.mplstyle")


def bars(groups: Mapping[str, Mapping[str, Estimate]], file: Path, title: str) -> None:
    """Draw shares of 0 to 1 as bars with their intervals: a group of bars for each measure, a colour for each set.

    ``groups`` holds the measures of each set by name; a set may lack a measure. The suffix of ``file`` is the format,
    such as .png or .svg.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for measures in groups.values() for name in measures))
    width = 0.8 / max(len(groups), 1)
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(max(6.0, 0.5 * len(names) * len(groups) + 2), 4), layout="constrained")
        axes = figure.subplots()
        for number, (label, measures) in enumerate(groups.items()):
            at = [n for n, name in enumerate(names) if name in measures]
            found = [measures[names[n]] for n in at]
            value = np.array([one.value for one in found])
            errors = np.abs(np.array([[one.low for one in found], [one.high for one in found]]) - value)
            where = np.array(at) + (number - (len(groups) - 1) / 2) * width
            axes.bar(where, value, 0.9 * width, label=label, yerr=errors, capsize=2, ecolor="#5c646e")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_ylim(0, 1.02)
        axes.grid(False, axis="x")
        axes.set_title(f"{title} (lines: 95 % intervals)")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
