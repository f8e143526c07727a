"""The report of load runs: report.html, one file that needs no server.

    python -m benchmarks.report build/bench

Each folder with a run.json (benchmarks.runs) becomes a section, and so does each JSON file of another benchmark. The
numbers come as data frames from benchmarks.figures (clients) and benchmarks.truth (server). They become tables in
report.html.j2 and plots in benchmarks.plots.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from benchmarks import figures, plots, truth
from benchmarks.runs import GROUNDED, Run, read_requests, read_run
from benchmarks.target import parser_of

HEADINGS = {"offered": "offered/s", "answered": "answered/s", "item rate": "items/s", "start": "from s"}
LONG = 12
"""Values of a list that are written out."""


@dataclass(frozen=True)
class Ran:
    """A run and the files that it left."""

    run: Run
    requests: pl.DataFrame
    truth: truth.Truth | None

    @cached_property
    def whole(self) -> dict[str, Any]:
        return figures.whole(self.run, self.requests)

    @cached_property
    def steps(self) -> pl.DataFrame:
        return figures.steps(self.run, self.requests)

    @cached_property
    def knee(self) -> dict[str, Any] | None:
        return figures.knee(self.steps)

    @property
    def is_answered(self) -> bool:
        return self.whole["p50"] is not None

    @property
    def outcomes(self) -> pl.DataFrame:
        return figures.group(self.requests, "outcome")

    @property
    def senders(self) -> pl.DataFrame:
        return figures.group(self.requests, "user", "pipeline")

    @property
    def items(self) -> pl.DataFrame:
        """The answered items of each pipeline."""
        sums = pl.col("items", "fallbacks", "refused").sum()
        answered = self.requests.filter(figures.GOOD).group_by("pipeline").agg(sums).sort("pipeline")
        return answered.select(
            "pipeline",
            pl.col("items").alias("items answered"),
            pl.when(pl.col("pipeline").is_in(GROUNDED)).then("fallbacks").alias("embedded whole"),
            pl.col("refused").alias("no image, or over a limit"),
        )

    def plot(self, kind: str) -> str:
        """One of the plots of benchmarks.plots, as the address of an image."""
        if kind == "by_level":
            return plots.by_level(self.steps, self.run.loop, self.knee)
        if kind == "over_time":
            return plots.over_time(figures.timeline(self.run, self.requests), self.run)
        assert self.truth
        if kind == "stages":
            return plots.bars(self.truth.stages.select("stage", "queue", "compute", "copies"), "ms a request")
        return plots.bars(self.truth.batches, "% of the items, by the size of the batch")


@dataclass(frozen=True)
class Bench:
    """All runs below a folder, in the order of their start, and the JSON files of other benchmarks."""

    runs: list[Ran]
    others: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Bench:
        folders = [file.parent for file in folder.glob("*/run.json")]
        runs = [Ran(read_run(one), read_requests(one), truth.read(one)) for one in folders]
        found = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
        files = [file for file in found if file.parent not in folders]
        others = {str(file.relative_to(folder).with_suffix("")): json.loads(file.read_text()) for file in files}
        return cls(sorted(runs, key=lambda one: one.run.started), others)

    def overview(self) -> pl.DataFrame:
        """One row per run. Columns that are empty in all runs are left out."""
        rows = []
        for one in self.runs:
            held = [slo["held"] for slo in one.run.slos]
            verdict = None if not held else "held" if all(held) else "broken"
            names = {"run": one.run.name, "loop": one.run.loop, "shape": one.run.shape, "SLOs": verdict}
            rows.append({**names, **one.whole})
        return filled(pl.DataFrame(rows).drop("start", "planned", "seconds", "refused p50", "refused p99"))

    def distributions(self) -> str:
        """The plot of all latency distributions. A run of many rates is left out if its loop has another run."""
        steady = [one for one in self.runs if one.run.shape not in ("steps", "overload")]
        loops = {one.run.loop for one in steady}
        shown = [one for one in self.runs if one.is_answered and (one in steady or one.run.loop not in loops)]
        return plots.distributions([(one.run.name, one.run.loop, figures.spectrum(one.requests)) for one in shown])

    def common(self, name: str) -> dict[str, str]:
        """The machine or the versions of the runs: the different values of each entry."""
        found: dict[str, dict[str, None]] = {}
        for one in self.runs:
            for key, value in getattr(one.run, name).items():
                found.setdefault(key, {})[value] = None
        return {key: "; ".join(values) for key, values in found.items()}


def filled(table: pl.DataFrame) -> pl.DataFrame:
    """Drop the columns of failures that are zero or empty in every row, except ``failed``."""
    empty = [name for name in figures.FAILURES if name in table.columns and not (table[name].fill_null(0) > 0).any()]
    return table.drop(empty)


def heading(column: str) -> str:
    return HEADINGS.get(column, column)


def text(value: Any, column: str = "") -> str:
    """A cell of a table, as people read it: three digits, and a dash for what was not measured."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value)) or "none" if len(value) <= LONG else f"{len(value)} values"
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, float) and column in (*figures.SHARES, "share"):
        return f"{100 * value:.2f} %" if value else "0 %"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def plan_of(run: Run) -> str:
    """Such as ``10 requests/s, 40 from 8 s, 10 from 12 s, during 20 s after a warm-up of 3 s``."""
    (_, first), *later = run.steps
    unit = "requests/s" if run.loop == "open" else "users" if first != 1 else "user"
    if len(later) > LONG / 2:
        rest = f", rising to {later[-1][1]:.3g} in {len(run.steps)} steps"
    else:
        rest = "".join(f", {level:.3g} from {at:.3g} s" for at, level in later)
    return f"{first:.3g} {unit}{rest}, during {run.seconds:g} s after a warm-up of {run.warm_up:g} s"


def when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"


def write(folder: Path) -> Path:
    """Write report.html for everything below ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"text": text, "heading": heading, "filled": filled, "plan": plan_of, "when": when}
    page = folder / "report.html"
    made = f"{datetime.now(timezone.utc):%d %B %Y, %H:%M} UTC"
    template = environment.get_template("report.html.j2")
    page.write_text(template.render(bench=Bench.read(folder), made=made, figures=figures), encoding="utf-8")
    return page


def main() -> None:
    parser = parser_of("report", __doc__, figures=False, url=False)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/bench"), help="the runs (%(default)s)")
    page = write(parser.parse_args().folder)
    print(f"Look at it: {page.resolve().as_uri()}")


if __name__ == "__main__":
    main()
