"""The table and the plot of `benchmarks.index`, from its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.plot import STYLE

Run = Mapping[str, Any]
COLUMNS = (
    ("build, s", lambda run: f"{run['build']['write_s'] + run['build']['optimize_s']:.0f}"),
    ("memory of the build, GB", lambda run: f"{run['memory_of_build']['own'] / 1e9:.2f}"),
    ("memory of searches, GB", lambda run: f"{run['memory_of_search']['own'] / 1e9:.2f}"),
    ("with mapped files, GB", lambda run: f"{run['memory_of_search']['mapped_too'] / 1e9:.2f}"),
    ("disk, GB", lambda run: f"{run['build']['disk'] / 1e9:.2f}"),
    ("open, s", lambda run: f"{run['open_s']:.1f}"),
    ("ef", lambda run: f"{run['search']['ef']}"),
    ("recall@10", lambda run: f"{run['search']['recall']:.3f}"),
    ("p50 / p99, ms", lambda run: _ms(run["search"])),
    ("recall@10 in a type", lambda run: f"{run['filtered']['recall']:.3f}"),
    ("p50 / p99 in a type, ms", lambda run: _ms(run["filtered"])),
    ("p50 / p99 of 8 threads, ms", lambda run: _ms(run["threads"])),
    ("searches/s of 8 threads", lambda run: f"{run['threads']['per_second']:.0f}"),
    ("p50 / p99 beside changes, ms", lambda run: _ms(run["changes"])),
    ("recall@10 beside changes", lambda run: f"{run['changes']['recall']:.3f}"),
    ("inserts/s + deletes/s", lambda run: f"{run['changes']['inserted_per_second']:.0f} + "
                                           f"{run['changes']['deleted_per_second']:.0f}"),
)  # fmt: skip


def _ms(found: Mapping[str, float]) -> str:
    return f"{found['p50']:.2f} / {found['p99']:.2f}"


def table(report: Mapping[str, Any]) -> str:
    """A table in Markdown: a column for each run, in the order of sizes. A step that was not reached is empty."""
    runs = sorted(report["runs"], key=lambda run: (run["int8"], run["vectors"]))
    names = [f"{run['vectors']:,}{' INT8' if run['int8'] else ''}" for run in runs]
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(runs)}"]
    for name, cell in COLUMNS:
        lines.append(f"| {name} | {' | '.join(_or_empty(cell, run) for run in runs)} |")
    return "\n".join(lines) + "\n"


def _or_empty(cell: Any, run: Run) -> str:
    try:
        return str(cell(run))
    except KeyError:
        return ""


def plot(report: Mapping[str, Any], file: Path) -> None:
    """Draw how build time, disk, latency and recall grow with the number of vectors."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(9, 6), layout="constrained")
        panels: dict[str, tuple[Callable[[Run], float], ...]] = {
            "build, s": (lambda run: run["build"]["write_s"] + run["build"]["optimize_s"],),
            "disk and memory of searches, GB": (
                lambda run: run["build"]["disk"] / 1e9,
                lambda run: run["memory_of_search"]["own"] / 1e9,
            ),
            "p50 and p99, ms": (lambda run: run["search"]["p50"], lambda run: run["search"]["p99"]),
            "recall@10, and in a type": (lambda run: run["search"]["recall"], lambda run: run["filtered"]["recall"]),
        }
        for axes, (title, lines) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for number, value in enumerate(lines):
                for int8, colour in ((False, "C0"), (True, "C1")):
                    runs = sorted((r for r in report["runs"] if r["int8"] == int8 and r.get("done")),
                                  key=lambda run: int(run["vectors"]))  # fmt: skip
                    label = "INT8" if int8 else "FP32"
                    axes.plot([run["vectors"] for run in runs], [value(run) for run in runs], color=colour,
                              marker="o", linestyle="--" if number else "-", label="" if number else label)  # fmt: skip
            sizes = sorted({run["vectors"] for run in report["runs"]})
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("vectors")
            axes.set_title(title)
            if not title.startswith("recall"):
                axes.set_ylim(bottom=0)
            axes.legend()
        figure.suptitle("The embedded index (dashed: the second of two)")
        figure.savefig(file, dpi=120)
