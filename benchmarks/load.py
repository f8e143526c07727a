"""Load tests in one command: what a server takes, how it answers then, and a report.

    python -m benchmarks.load                                        a server of its own, five runs, under 3 minutes
    python -m benchmarks.load --target host:8001 --rate 40           one run against any server, 40 requests a second
    python -m benchmarks.load --target host:8001 --rate 40 --slo "p99=50ms error-rate=0.1%" --duration 600
    python -m benchmarks.load --target host:8001 --rate 200 --shape steps          up to 200 a second, to find the knee
    python -m benchmarks.load --target host:8001 --rate 40 --users 8               and 8 users who wait for answers

Without --rate and --users it takes five runs: concurrency, a closed loop of 1 to 8 users, for what the server takes;
steps, an open loop of rising rates, for the knee; steady, an open loop at 60 % of the knee; closed, beside it, a closed
loop of as many users as then were waiting; and spike, an open loop that goes up to twice the knee and back. Every run
is one of Locust's (benchmarks/locustfile.py), headless, with the server's own statistics read before and after it,
and with the key in VLCLIP_ADMIN_KEY where they are closed to others.
SLOs are judged in every run of --rate or --users, and of the five in the steady one; the exit code is 1 if one broke.
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

from rich.console import Console
from rich.table import Table

from benchmarks import figures, report, slo, truth
from benchmarks.figures import Part
from benchmarks.runs import MISSED, read_requests, read_run
from benchmarks.schedule import SECONDS
from benchmarks.target import checked
from benchmarks.traffic import MIX, PIPELINES, drawn_photos, parse_shares, require_folder
from serving.server.server import Server

ROOT = Path(__file__).parent.parent
DURATION = 18.0
STEADY, SPIKE = 0.6, 2.0
"""Times the knee."""
TOP = 1.4
"""Times what a closed loop got out of the server, where the steps end."""
USERS = 8
"""At most, of the first closed loop."""
WARM_UP, DEADLINE = 3.0, 5.0
NAMES = ("concurrency", "steps", "steady", "closed", "spike", "soak")
console = Console()


@dataclass(frozen=True)
class Target:
    grpc_url: str
    metrics_url: str | None
    photos: Path
    mix: str
    out: Path


@contextmanager
def target_of(args: argparse.Namespace) -> Iterator[Target]:
    """The server that is to be loaded; one is started if none was named."""
    photos = Path(args.photos) if args.photos else drawn_photos()
    if args.target:
        metrics_url = args.metrics or f"http://{args.target.rpartition(':')[0]}:8002/metrics"
        yield Target(args.target, metrics_url, photos, args.mix, args.out)
        return
    with Server.start() as server:
        yield Target(server.grpc_url, server.metrics_url, photos, args.mix, args.out)


def run(target: Target, name: str, *options: str, slos: Sequence[str] = ()) -> Part:
    """One run of Locust, in a folder of its own; what came of it as a whole. Raises SystemExit where it did not run."""
    folder = target.out / name
    folder.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks/locustfile.py"), "--headless", "--only-summary"),
        *("--host", target.grpc_url, "--out", str(folder.resolve()), "--photos", str(target.photos.resolve())),
        *("--mix", target.mix, "--warm-up", str(WARM_UP), *options),
        *(part for one in slos for part in ("--slo", one)),
    ]
    before = truth.snapshot(target.grpc_url, target.metrics_url)
    log = folder / "locust.log"
    with log.open("w") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    if code not in (0, 1) or not (folder / "run.json").exists():
        raise SystemExit(f"Locust failed with exit code {code}; {log} ends with:\n{log.read_text()[-2000:]}")
    truth.write(folder, before, truth.snapshot(target.grpc_url, target.metrics_url))
    whole = figures.whole(read_run(folder), read_requests(folder))
    if not whole.achieved:
        outcomes = ", ".join(whole.outcomes) or "nothing was sent"
        raise SystemExit(f"{target.grpc_url} answered no request of {name}: {outcomes}. See {log}")
    return whole


def take_five(target: Target, seconds: float, slos: Sequence[str]) -> None:
    """Users in steps, rates in steps, a steady open loop, a closed one beside it, and a spike."""
    options = ("--deadline", str(DEADLINE))
    say(f"concurrency: 1 to {USERS} users, {seconds:.0f} s")
    run(target, "concurrency", *_closed("steps", USERS, seconds), *options)
    capacity = max(part.achieved for part in _steps_of(target, "concurrency"))
    say(f"steps: up to {TOP * capacity:.3g} requests a second, {2 * seconds:.0f} s")
    run(target, "steps", *_open("steps", TOP * capacity, 2 * seconds), *options)
    found = figures.knee(_steps_of(target, "steps"))
    knee = found.offered if found else TOP * capacity / 4
    rate = STEADY * knee
    say(f"the knee is at {knee:.3g} requests a second" if found else "no knee: the lowest step is beyond it")
    say(f"steady: {rate:.3g} requests a second, {seconds:.0f} s")
    steady = run(target, "steady", *_open("steady", rate, seconds), *options, slos=slos)
    users = max(1, round(steady.achieved * steady.p50 / 1e3)) if steady.achieved else 1
    say(f"closed: {users} user{'s' * (users > 1)}, {seconds:.0f} s")
    run(target, "closed", *_closed("steady", users, seconds), *options)
    say(f"spike: {rate:.3g} requests a second, and {SPIKE * knee:.3g} in the middle, {seconds:.0f} s")
    run(target, "spike", *_open("spike", rate, seconds), "--spike", f"{SPIKE / STEADY:g}", *options)


def take_asked(target: Target, args: argparse.Namespace) -> None:
    """What --rate and --users say."""
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


def _steps_of(target: Target, name: str) -> list[Part]:
    """What each step of a run came to."""
    return figures.steps(read_run(target.out / name), read_requests(target.out / name))


def say(what: str) -> None:
    console.print(what, highlight=False)


def show(out: Path) -> bool:
    """Print what the runs came to; whether every SLO held."""
    table = Table(title="Requests, and ms of good answers")
    table.add_column("")
    for column in ("offered/s", "answered/s", "p50", "p95", "p99", "failed", "missed"):
        table.add_column(column, justify="right")
    sentences, notes, generator_cores = [], [], 0.0
    for folder in sorted((file.parent for file in out.glob("*/run.json")), key=lambda one: read_run(one).started):
        if folder.name not in NAMES:
            continue
        made = read_run(folder)
        part = figures.whole(made, read_requests(folder))
        table.add_row(
            made.name if made.name == made.loop else f"{made.name}, {made.loop}",
            *(f"{value:.1f}" for value in (part.offered, part.achieved)),
            *(f"{value:.0f}" for value in (part.p50, part.p95, part.p99)),
            f"{100 * figures.failed_share(part.outcomes):.1f} %",
            f"{100 * figures.failed_share(part.outcomes, MISSED):.1f} %",
        )
        generator_cores = max(generator_cores, made.generator_cores)
        if found := truth.read(folder):
            notes += found.notes
        for one in made.slos:
            sentences.append((one["held"], f"{made.name}: {slo.sentence(slo.parse(one['slo']), one['measured'])}"))
    console.print(table)
    say(
        f"Open loops count from the schedule. The first {WARM_UP:g} s of a run were warm-up. The load generator took "
        f"{generator_cores:.2f} cores at most."
    )
    for note in dict.fromkeys(notes):
        console.print(f"The server did not tell all: {note}", style="yellow", highlight=False, markup=False)
    for held, sentence in sentences:
        console.print(sentence, style="green" if held else "bold red", highlight=False)
    return all(held for held, _ in sentences)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", help="gRPC address of a running server, host:port (default: one is started)")
    parser.add_argument("--metrics", help="its metrics (http://HOST:8002/metrics)")
    parser.add_argument("--rate", type=float, help="requests a second of an open loop")
    parser.add_argument("--users", type=int, help="of a closed loop")
    parser.add_argument(
        "--duration", type=float, help=f"seconds of a run (of the five {DURATION:.0f}, of steps {2 * DURATION:.0f})"
    )
    parser.add_argument("--shape", choices=tuple(SECONDS), default="steady", help="of the load (%(default)s)")
    parser.add_argument("--slo", action="append", default=[], type=checked(slo.parse_all), help=slo.HELP)
    parser.add_argument("--photos", type=checked(require_folder), help="FOLDER/TYPE/*.jpg (default: drawn ones)")
    parser.add_argument(
        "--mix", default=MIX, type=checked(lambda text: parse_shares(text, PIPELINES)), help="pipelines (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench", help="folder to write (build/bench)")
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.target and not args.rate and not args.users:
        parser().error("--target needs --rate or --users: without, it would be loaded to twice what it takes")
    for name in NAMES:
        rmtree(args.out / name, ignore_errors=True)
    with target_of(args) as target:
        if args.rate or args.users:
            take_asked(target, args)
        else:
            take_five(target, args.duration or DURATION, args.slo)
    page = report.write(args.out)
    held = show(args.out)
    console.print(f"\nLook at it: [bold]{page.resolve().as_uri()}", soft_wrap=True)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
