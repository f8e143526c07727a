"""Load tests in one command: how much load a server can take, how it answers then, and a report.

    python -m benchmarks.load                                        starts a server; five runs, under 3 minutes
    python -m benchmarks.load --target host:8001 --rate 40           one run against any server, 40 requests a second
    python -m benchmarks.load --target host:8001 --rate 40 --slo "p99=50ms error-rate=0.1%" --duration 600
    python -m benchmarks.load --target host:8001 --rate 200 --shape steps          up to 200 a second, to find the knee
    python -m benchmarks.load --target host:8001 --rate 40 --users 8               and a run with 8 users
    python -m benchmarks.load --shape overload                       up to twice the capacity, which is measured first
    python -m benchmarks.load --shape overload --mix product_image=1 --batches 1=1         the same with single photos

Without --rate and --users there are five runs. concurrency: a closed loop of 1 to 8 users, which finds the throughput.
steps: an open loop of rising rates, which finds the knee. steady: an open loop at 60 % of the knee. closed: a closed
loop with as many users as had requests in flight in steady. spike: an open loop that rises to twice the knee.

The overload shape first measures the capacity with 8 users, unless --rate gives it. It then sends 0.8, 1, 2 and 0.8
times as many requests a second. The report has the goodput of each step, the refusals and how fast they came, late
answers, and the server's memory before and after.

Each run is a run of Locust (benchmarks/locustfile.py). The server's metrics are read before and after it, and its
statistics too, with the key in VLCLIP_ADMIN_KEY if they need one. The SLOs apply to the runs of --rate, --users and
overload, and to the steady one of the five runs. The exit code is 1 if one of them did not hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import figures, report, truth
from benchmarks import slo as objectives
from benchmarks.machine import memory_bytes
from benchmarks.runs import read_requests, read_run
from benchmarks.schedule import SECONDS
from benchmarks.target import checked, parser_of
from benchmarks.traffic import BATCHES, MIX, drawn_photos, parse_batches, parse_mix, require_folder
from serving.server.server import Server

ROOT = Path(__file__).parent.parent
DURATION = 18.0
STEADY, SPIKE = 0.6, 2.0
"""Rates of these runs, as multiples of the knee."""
TOP = 1.4
"""The highest rate of the steps, as a multiple of the closed loop's throughput."""
USERS = 8
"""Users of the first closed loop, and of the run that measures the capacity. More of them would be refused."""
WARM_UP, DEADLINE = 3.0, 5.0
NAMES = ("concurrency", "steps", "steady", "closed", "spike", "soak", "capacity", "overload")
console = Console()


@dataclass(frozen=True)
class Target:
    """The server under load, and the options of all runs."""

    grpc_url: str
    metrics_url: str
    photos: Path
    mix: str
    batches: str
    out: Path
    pid: int | None = None
    """The server's process, if this program started it."""

    def snapshot(self) -> truth.Snapshot:
        return truth.snapshot(self.grpc_url, self.metrics_url, memory_bytes(self.pid) if self.pid else None)


@contextmanager
def target_of(args: argparse.Namespace) -> Iterator[Target]:
    """The server of the options. If they name none, one is started."""
    common = (Path(args.photos) if args.photos else drawn_photos(), args.mix, args.batches, args.out)
    if args.target:
        metrics_url = args.metrics or f"http://{args.target.rpartition(':')[0]}:8002/metrics"
        yield Target(args.target, metrics_url, *common)
        return
    with Server.start() as server:
        yield Target(server.grpc_url, server.metrics_url, *common, server.pid)


def run(target: Target, name: str, *options: str, slos: Sequence[str] = ()) -> dict[str, Any]:
    """Make a run of Locust in its own folder and return its figures. Raises SystemExit if nothing was answered."""
    folder = target.out / name
    folder.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks/locustfile.py"), "--headless", "--only-summary"),
        *("--host", target.grpc_url, "--out", str(folder.resolve()), "--photos", str(target.photos.resolve())),
        *("--mix", target.mix, "--batches", target.batches, "--warm-up", str(WARM_UP), *options),
        *(part for one in slos for part in ("--slo", one)),
    ]
    before = target.snapshot()
    log = folder / "locust.log"
    with log.open("w") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    if code not in (0, 1) or not (folder / "run.json").exists():
        raise SystemExit(f"Locust failed with exit code {code}; {log} ends with:\n{log.read_text()[-2000:]}")
    truth.write(folder, before, target.snapshot())
    whole = figures.whole(read_run(folder), read_requests(folder))
    if not whole["answered"]:
        outcomes = ", ".join(read_requests(folder)["outcome"].unique()) or "nothing was sent"
        raise SystemExit(f"{target.grpc_url} answered no request of the run {name}: {outcomes}. See {log}")
    return whole


def take_five(target: Target, seconds: float, slos: Sequence[str]) -> None:
    """Make the five runs: concurrency, steps, steady, closed and spike."""
    options = ("--deadline", str(DEADLINE))
    say(f"concurrency: 1 to {USERS} users, {seconds:.0f} s")
    run(target, "concurrency", *_closed("steps", USERS, seconds), *options)
    capacity = _steps_of(target, "concurrency").select(pl.col("answered").max()).item()
    say(f"steps: up to {TOP * capacity:.3g} requests a second, {2 * seconds:.0f} s")
    run(target, "steps", *_open("steps", TOP * capacity, 2 * seconds), *options)
    found = figures.knee(_steps_of(target, "steps"))
    knee = found["offered"] if found else TOP * capacity / 4
    rate = STEADY * knee
    say(f"The knee is at {knee:.3g} requests a second." if found else "There is no knee below the lowest step.")
    say(f"steady: {rate:.3g} requests a second, {seconds:.0f} s")
    steady = run(target, "steady", *_open("steady", rate, seconds), *options, slos=slos)
    users = max(1, round(steady["answered"] * (steady["p50"] or 0) / 1e3))
    say(f"closed: {users} user{'s' * (users > 1)}, {seconds:.0f} s")
    run(target, "closed", *_closed("steady", users, seconds), *options)
    say(f"spike: {rate:.3g} requests a second, and {SPIKE * knee:.3g} in the middle, {seconds:.0f} s")
    run(target, "spike", *_open("spike", rate, seconds), "--spike", f"{SPIKE / STEADY:g}", *options)


def take_overload(target: Target, capacity: float | None, seconds: float, slos: Sequence[str]) -> None:
    """Send multiples of the capacity, which is measured if it is not given."""
    options = ("--deadline", str(DEADLINE))
    if capacity is None:
        say(f"capacity: {USERS} users, {seconds / 4:.0f} s")
        capacity = run(target, "capacity", *_closed("steady", USERS, seconds / 4), *options)["answered"]
    say(f"overload: up to {2 * capacity:.3g} requests a second, twice the capacity, {seconds:.0f} s")
    run(target, "overload", *_open("overload", capacity, seconds), *options, slos=slos)


def take_asked(target: Target, args: argparse.Namespace) -> None:
    """Make the runs of --rate and --users."""
    seconds = args.duration or SECONDS[args.shape]
    if args.rate:
        say(f"{args.shape}: {args.rate:g} requests a second, {seconds:g} s")
        run(target, args.shape, *_open(args.shape, args.rate, seconds), slos=args.slo)
    if args.users:
        say(f"closed: {args.users} users, {seconds:g} s")
        run(target, "closed", *_closed(args.shape, args.users, seconds), slos=args.slo)


def _open(shape: str, rate: float, seconds: float) -> list[str]:
    return ["--loop", "open", "--shape", shape, "--rate", f"{rate:g}", "-t", f"{seconds:.0f}s"]


def _closed(shape: str, users: int, seconds: float) -> list[str]:
    return ["--loop", "closed", "--shape", shape, "-u", str(users), "-t", f"{seconds:.0f}s"]


def _steps_of(target: Target, name: str) -> pl.DataFrame:
    return figures.steps(read_run(target.out / name), read_requests(target.out / name))


def say(sentence: str) -> None:
    console.print(sentence, highlight=False)


def show_table(title: str, rows: pl.DataFrame, *columns: str) -> None:
    """Print these columns, as far as the rows have them."""
    shown = rows.select(column for column in columns if column in rows.columns)
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in shown.columns:
        table.add_column(report.heading(column), justify="left" if column == "run" else "right")
    for row in shown.iter_rows(named=True):
        table.add_row(*(report.text(value, column) for column, value in row.items()))
    console.print(table)


def show(out: Path) -> bool:
    """Print the figures of the runs and the verdicts. Returns whether every SLO held."""
    found = report.Bench([one for one in report.Bench.read(out).runs if one.run.name in NAMES], {})
    columns = ("offered", "answered", *figures.LATENCIES, *figures.SHARES)
    show_table("Requests, and latencies of good answers in ms", found.overview(), "run", *columns)
    for one in found.runs:
        if one.run.shape == "overload":
            show_table("The steps of the overload", report.filled(one.steps), "planned", *columns, "refused p99")
    cores = max(one.run.generator_cores for one in found.runs)
    say(f"The first {WARM_UP:g} s of each run were warm-up. The load generator used up to {cores:.2f} cores.")
    for note in dict.fromkeys(note for one in found.runs if one.truth for note in one.truth.notes):
        console.print(f"The server's account is incomplete: {note}", style="yellow", highlight=False, markup=False)
    slos = [(one.run.name, verdict) for one in found.runs for verdict in one.run.slos]
    for name, verdict in slos:
        style = "green" if verdict["held"] else "bold red"
        console.print(f"{name}: {verdict['sentence']}", style=style, highlight=False)
    return all(verdict["held"] for _, verdict in slos)


def parser() -> argparse.ArgumentParser:
    parser = parser_of("load", __doc__, figures=False, url=False)
    add = parser.add_argument
    defaults = ", ".join(f"{shape} {seconds:g}" for shape, seconds in SECONDS.items())
    add("--target", help="gRPC address of a running server, host:port (default: start one)")
    add("--metrics", help="address of the server's metrics (http://HOST:8002/metrics)")
    add("--rate", type=float, help="requests a second of an open loop")
    add("--users", type=int, help="users of a closed loop")
    add("--duration", type=float, help=f"seconds of a run (of the five {DURATION:g}; else {defaults})")
    add("--shape", choices=tuple(SECONDS), default="steady", help="the load over time (%(default)s)")
    add("--slo", action="append", default=[], type=checked(objectives.parse_all), help=objectives.HELP)
    add("--photos", type=checked(require_folder), help="FOLDER/TYPE/*.jpg (default: drawn photos)")
    add("--mix", default=MIX, type=checked(parse_mix), help="pipelines (%(default)s)")
    add("--batches", default=BATCHES, type=checked(parse_batches), help="items in a request (%(default)s)")
    add("--out", type=Path, default=ROOT / "build/bench", help="folder to write (build/bench)")
    return parser


def main() -> None:
    args = parser().parse_args()
    is_overload = args.shape == "overload" and not args.users
    if args.target and not (args.rate or args.users or is_overload):
        parser().error("--target needs --rate or --users: without them, the server would get twice its capacity")
    for name in NAMES:
        rmtree(args.out / name, ignore_errors=True)
    with target_of(args) as target:
        if is_overload:
            take_overload(target, args.rate, args.duration or SECONDS["overload"], args.slo)
        elif args.rate or args.users:
            take_asked(target, args)
        else:
            take_five(target, args.duration or DURATION, args.slo)
    page = report.write(args.out)
    held = show(args.out)
    console.print(f"\nLook at it: [bold]{page.resolve().as_uri()}", soft_wrap=True)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
