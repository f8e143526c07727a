"""What load runs found, for people who were not there: report.html, in one file that needs no server, and summary.md.

    python -m benchmarks.report build/bench

Every folder below it that has a run.json (benchmarks.runs) becomes a section, and so do the JSON files of other
benchmarks that lie there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import figures, plots, truth
from benchmarks.figures import Part
from benchmarks.plots import number
from benchmarks.runs import MISSED, OK, Request, Run, read_requests, read_run

KNEE = (
    f"The knee is the last step, from the lowest rate upwards, whose median is at most {figures.KNEE_MEDIAN:g} times "
    f"that of the lowest step and in whose time at least {100 * figures.KNEE_ACHIEVED:g} % of what was offered, less "
    "its square root for chance, was answered, with both true of every step below it."
)


WIDEST = 12
"""Columns of a table, and values of a list that are written out."""


@dataclass(frozen=True)
class Table:
    """Cells are text already. The first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False
    """Whether the cells are text to read, not figures to compare."""


@dataclass(frozen=True)
class Plot:
    title: str
    reading: str
    """One sentence on how to read it."""
    svg: str


@dataclass(frozen=True)
class Section:
    title: str
    text: list[str] = field(default_factory=list)
    parts: list[Table | Plot] = field(default_factory=list)


@dataclass(frozen=True)
class Ran:
    """A run with all that it left behind."""

    run: Run
    requests: list[Request]
    truth: truth.Truth | None


def write(bench: Path) -> Path:
    """report.html and summary.md of all that lies below ``bench``; the path of the page."""
    sections = list(describe(bench))
    made = f"{datetime.now(timezone.utc):%d %B %Y, %H:%M} UTC"
    bench.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = bench / "report.html"
    page.write_text(environment.get_template("report.html.j2").render(sections=sections, made=made), encoding="utf-8")
    (bench / "summary.md").write_text(to_markdown(sections, made), encoding="utf-8")
    return page


def describe(bench: Path) -> Iterator[Section]:
    """All that is to be told, from the short to the long."""
    folders = sorted(file.parent for file in bench.glob("*/run.json"))
    runs = [Ran(read_run(folder), read_requests(folder), truth.read(folder)) for folder in folders]
    runs.sort(key=lambda ran: ran.run.started)
    if runs:
        yield overview(runs)
    for ran in runs:
        yield describe_run(ran)
    for file in sorted([*bench.glob("*.json"), *bench.glob("*/*.json")]):
        if file.parent not in folders:
            yield other(file, str(file.relative_to(bench).with_suffix("")))
    if runs:
        yield how_made(runs)
    else:
        yield Section("No load run", [f"No folder here has a run.json: {bench}"])


def overview(runs: Sequence[Ran]) -> Section:
    rows = []
    for ran in runs:
        part = figures.whole(ran.run, ran.requests)
        held = [slo["held"] for slo in ran.run.slos]
        rows.append(
            [
                ran.run.name,
                "-" if not held else "held" if all(held) else "broken",
                f"{ran.run.loop}, {ran.run.shape}",
                f"{part.requests:,}",
                *figures_of(part),
            ]
        )
    columns = ["run", "SLOs", "loop, shape", "requests", *COLUMNS]
    section = Section(
        "All runs",
        [
            "An open loop sends by a schedule that was drawn ahead, as the world does; latency counts from the "
            "scheduled sending, so that waiting for a slow server counts. In a closed loop, users wait for an answer "
            "before they ask again, so that a slow server is asked less.",
            "Latencies are of good answers, in ms. Failed are all requests without one, and missed those among them "
            "that the load generator itself could not send in time. An SLO's percentile is stricter: what "
            "failed counts as never answered there. The p99 of fewer than 100 requests is the slowest of them.",
        ],
        [Table("", columns, rows)],
    )
    # A run through many rates has a latency of its own at each; it stands in only where its loop has no other.
    compared = [
        ran
        for ran in runs
        if ran.run.shape != "steps"
        or ran.run.loop not in {other.run.loop for other in runs if other.run.shape != "steps"}
    ]
    if lines := [(ran.run.name, ran.run.loop, found) for ran in compared if (found := figures.latencies(ran.requests))]:
        section.parts.append(
            Plot(
                "Latency by percentile"
                + ", open and closed loops side by side" * (len({loop for _, loop, _ in lines}) > 1),
                "A point at 99 says what 99 % of the good answers did not exceed; each nine has the same room, so that "
                "the slowest few can be seen.",
                plots.distributions("distributions", lines),
            )
        )
    return section


COLUMNS = ["offered/s", "achieved/s", "items/s", "p50", "p95", "p99", "failed", "missed"]


def figures_of(part: Part) -> list[str]:
    """The cells of COLUMNS."""
    return [
        *map(number, (part.offered, part.achieved, part.items, part.p50, part.p95, part.p99)),
        percent(figures.failed_share(part.outcomes)),
        percent(figures.failed_share(part.outcomes, MISSED)),
    ]


def describe_run(ran: Ran) -> Section:
    run, requests = ran.run, ran.requests
    section = Section(f"{run.name}: {run.loop} loop, {run.shape}", [planned_words(run)])
    if not requests:
        section.text.append("No request was recorded: there is nothing to measure.")
    elif not figures.latencies(requests):
        section.text.append("Nothing was answered well: there is no latency to show.")
    section.parts.extend(slos(run))
    if requests:
        section.parts.extend(asked(run, requests))
    section.parts.extend(served(run, ran.truth))
    return section


def planned_words(run: Run) -> str:
    """``Planned were 10 requests/s, 40 from 8 s, 10 from 12 s; 20 s after a warm-up of 3 s``"""
    (_, first), *later = run.steps
    unit = "requests/s" if run.loop == "open" else "users" if first != 1 else "user"
    if len(later) > WIDEST / 2:
        rest = f", rising to {plain(later[-1][1])} in {len(run.steps)} steps"
    else:
        rest = "".join(f", {plain(level)} from {plain(at)} s" for at, level in later)
    return (
        f"Planned were {plain(first)} {unit}{rest}; {plain(run.seconds)} s after a warm-up of {plain(run.warm_up)} s."
    )


def slos(run: Run) -> Iterator[Table]:
    if run.slos:
        rows = [[str(slo["slo"]), text(slo["measured"]), "held" if slo["held"] else "broken"] for slo in run.slos]
        yield Table("Service level objectives", ["objective", "measured", "verdict"], rows)


def asked(run: Run, requests: Sequence[Request]) -> Iterator[Table | Plot]:
    """What those who asked saw."""
    answered = bool(figures.latencies(requests))
    parts = figures.steps(run, requests)
    unit = "users" if run.loop == "closed" else "planned/s"
    if len(parts) > 1:
        if answered and run.loop == "open" and run.shape == "steps":
            found = figures.knee(parts)
            yield Plot(
                f"Latency against the offered rate: {knee_words(parts, found)}",
                f"Left of the knee all that is offered is answered in steady time; right of it, requests queue. {KNEE}",
                plots.latency_by_rate(f"{run.name}-rate", parts, found),
            )
        if answered and run.loop == "closed":
            yield Plot(
                "Throughput against concurrency",
                "Where throughput no longer rises with the users, more of them only wait longer. Requests differ in "
                "size by chance, so items are the steadier measure.",
                plots.throughput_by_users(f"{run.name}-users", parts),
            )
        rows = [[plain(part.start), plain(part.planned), *figures_of(part)] for part in parts]
        yield Table("Step by step; latencies in ms", ["from s", unit, *COLUMNS], rows)
    if answered:
        moments = figures.timeline(run, requests)
        yield Plot(
            "Latency and rates over time",
            "Each point is the requests that were to be sent in that moment; achieved is what was answered in it, "
            "failed is what had no good answer.",
            plots.over_time(f"{run.name}-time", moments, run),
        )
    columns = ["requests", "share", "p50", "p95", "p99", "longest"]
    yield Table(
        "How requests ended, and ms until they did",
        ["outcome", *columns],
        [group_row(one) for one in figures.group(requests, lambda request: request.outcome)],
    )
    yield Table(
        "By who asked for what; ms to the answer, good or not",
        ["user, pipeline", *columns],
        [group_row(one) for one in figures.group(requests, lambda one: f"{one.user}, {one.pipeline}")],
    )
    yield items_table(requests)


def items_table(requests: Sequence[Request]) -> Table:
    """Of those that were answered."""
    rows = []
    for pipeline in sorted({request.pipeline for request in requests}):
        asked = [request for request in requests if request.pipeline == pipeline and request.outcome == OK]
        items, fallbacks, refused = (
            sum(getattr(one, name) for one in asked) for name in ("items", "fallbacks", "refused")
        )
        shares = [percent(count / items if items else math.nan) for count in (fallbacks, refused)]
        rows.append([pipeline, number(items), number(fallbacks), shares[0], number(refused), shares[1]])
    return Table(
        "Items that were answered; embedded whole for want of a box, and refused as no image or over a limit",
        ["pipeline", "items", "whole", "share", "refused", "share"],
        rows,
    )


def knee_words(parts: Sequence[Part], knee: Part | None) -> str:
    if knee is None:
        return "no knee, the lowest step is beyond it"
    at = f"{number(knee.offered)} requests/s"
    return (
        f"the knee was not reached at {at}"
        if knee.offered == max(part.offered for part in parts)
        else f"the knee is at {at}"
    )


def group_row(one: figures.Group) -> list[str]:
    return [one.name, f"{one.requests:,}", percent(one.share), *map(number, (one.p50, one.p95, one.p99, one.longest))]


def served(run: Run, found: truth.Truth | None) -> Iterator[Table | Plot]:
    """What the server saw."""
    if found is None:
        return
    if found.stages:
        yield Plot(
            "Where the time of a request goes, stage by stage, as the server counts it",
            "Queue is waiting for a free instance, compute is the model at work on the whole batch, copies move "
            "tensors in and out. Stages that do not need each other's answer run side by side, so bars do not add up. "
            "These are means over all between the two readings of the counters, a warm-up among it.",
            plots.stages(f"{run.name}-stages", found.stages),
        )
    if any(model.batches for model in found.stages):
        yield Plot(
            "Batch sizes that each stage reached",
            "The darker, the more items ran together.",
            plots.batches(f"{run.name}-batches", found.stages),
        )
    if found.stages:
        columns = [
            "requests",
            "failed",
            "total",
            "queue",
            "compute",
            "copies",
            "items",
            "executions",
            "mean batch",
            "largest",
        ]
        rows = [model_row(model) for model in found.stages]
        yield Table("Stages, by the server's counters; means in ms a request", ["stage", *columns], rows)
    if found.pipelines:
        columns = ["pipeline", "requests", "failed", "total", "items"]
        rows = [
            [model.name, *map(number, (model.requests, model.failed, model.total_ms, model.items))]
            for model in found.pipelines
        ]
        yield Table("Pipelines, by the server's counters; means in ms a request", columns, rows)
    rows = [[name, "+" + plain(rise)] for name, rise in found.counters.items()]
    rows += [
        [name, f"{big(name, was)} → {big(name, value)}"] for name, (was, value) in found.gauges.items() if was or value
    ]
    if rows:
        yield Table(
            "Metrics of the server, before and after; Triton reads gauges every two seconds, and says 0 until then",
            ["metric", "change"],
            rows,
        )
    if found.notes:
        yield Table("What the server did not tell", ["note"], [[note] for note in found.notes], words=True)


def model_row(model: truth.Model) -> list[str]:
    times = (model.total_ms, model.queue_ms, model.compute_ms, model.copies_ms)
    batch = (model.items, model.executions, model.mean_batch, max(model.batches, default=math.nan))
    return [model.name, *map(number, (model.requests, model.failed, *times, *batch))]


def how_made(runs: Sequence[Ran]) -> Section:
    """Machine, versions and commands; what runs have in common stands once."""
    section = Section("How this was made")
    rows = [
        [ran.run.name, when(ran.run.started), f"{ran.run.seconds:.0f}", ran.run.target, ran.run.command] for ran in runs
    ]
    section.parts.append(Table("Commands", ["run", "started, UTC", "s", "target", "command"], rows, words=True))
    rows = [[ran.run.name, number(ran.run.warm_up), number(ran.run.generator_cores)] for ran in runs]
    columns = ["run", "warm-up before it that is not counted, s", "CPU cores that the load generator took"]
    section.parts.append(Table("Load generator; the server counts the warm-up too", columns, rows))
    for title, kept in (
        ("Machine", [ran.run.machine for ran in runs]),
        ("Versions", [ran.run.versions for ran in runs]),
    ):
        names = list(dict.fromkeys(name for values in kept for name in values))
        cells = [[name, *dict.fromkeys(values.get(name, "-") for values in kept)] for name in names]
        section.parts.append(Table(title, ["", ""], [[row[0], "; ".join(row[1:])] for row in cells], words=True))
    return section


def other(file: Path, name: str) -> Section:
    """The figures of another benchmark, whatever their form; its ``title`` if it has one."""
    found = json.loads(file.read_text())
    title = found.pop("title", name) if isinstance(found, dict) else name
    return Section(str(title), parts=[*tables(found)])


def tables(value: Any, title: str = "") -> Iterator[Table]:
    """Any JSON as tables: plain values as one, objects that are alike as rows of one, all others as one each."""
    if isinstance(value, list):
        flat = [flatten(one) for one in value]
        columns = list(dict.fromkeys(column for one in flat for column in one))
        yield Table(title, columns, [[text(one.get(column)) for column in columns] for one in flat])
        return
    values = value if isinstance(value, dict) else {"": value}
    if plain := [[name, text(one)] for name, one in values.items() if not is_nested(one)]:
        yield Table(title, ["", ""], plain)
    nested = {name: one for name, one in values.items() if is_nested(one)}
    flat_rows = {name: flatten(one) for name, one in nested.items()}
    columns = list(dict.fromkeys(column for one in flat_rows.values() for column in one))
    if len(nested) > 1 and len(columns) <= WIDEST and all(len(one) >= len(columns) / 2 for one in flat_rows.values()):
        rows = [[name, *(text(one.get(column)) for column in columns)] for name, one in flat_rows.items()]
        yield Table(title, ["", *columns], rows)
        return
    for name, one in nested.items():
        yield from tables(one, f"{title}, {name}".removeprefix(", "))


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """An object of objects as one, with names like ``photos/s, median``."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        inner: leaf
        for key, one in value.items()
        for inner, leaf in flatten(one, f"{name}, {key}".removeprefix(", ")).items()
    }


def is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value))


def text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none" if len(value) <= WIDEST else f"{len(value)} values"
    return number(value) if isinstance(value, (int, float)) else str(value)


def percent(share: float) -> str:
    return "-" if share != share else "0 %" if share == 0 else f"{100 * share:.2f} %"


def plain(value: float) -> str:
    """At most two decimals, and none for what is whole."""
    return f"{round(value, 2):,.10g}"


def big(name: str, value: float) -> str:
    if "bytes" in name:
        return f"{value / 2**20:,.0f} MiB"
    return percent(value) if name.split("{")[0].endswith("utilization") else number(value)


def when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"


def to_markdown(sections: Sequence[Section], made: str) -> str:
    """The text and the tables; plots are in the page."""
    lines = ["# Load tests of VL-CLIP on Triton", "", f"{made}. The plots are in report.html beside this file.", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for paragraph in section.text:
            lines += [paragraph, ""]
        for part in section.parts:
            lines += [f"**{part.title}**", ""] if part.title else []
            if isinstance(part, Table):
                lines += [
                    _row(part.columns),
                    _row(["---"] + ["---:"] * (len(part.columns) - 1)),
                    *map(_row, part.rows),
                    "",
                ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", type=Path, nargs="?", default=Path("build/bench"), help="where runs lie (%(default)s)")
    page = write(parser.parse_args().bench)
    print(f"Look at it: {page.resolve().as_uri()}")


if __name__ == "__main__":
    main()
