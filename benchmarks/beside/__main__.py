"""The served pipeline beside three other ways to the same embeddings, in turns in one run.

    python -m benchmarks.beside                                   the mini models, about 3 minutes
    python -m benchmarks.beside --model-repository DIR            what `python -m export --out DIR` made
    python -m benchmarks.beside --only latency --turns 20         one of the three measures
    taskset -c 0,1 python -m benchmarks.beside                    on these cores, clients and services alike

    served       product_image, over gRPC
    in process   the same graphs, called one after the other; offline in batches, and photo by photo ("one by one")
    FastAPI      a plain service around those, as people write it first
    LitServe     a LitServe service around those, with dynamic batching

    clients      photos a second under clients that send one photo each (not in process)
    latency      milliseconds of one photo, one client
    offline      photos a second in batches (served and in process)

All run the same weights on the same photos. Services take turns, so that what else the machine does hits them alike,
and sleep between them; ratios are taken turn by turn. The server refuses nothing here, as the others do not. Nobody
wins by being wrong: every embedding is compared with the one made in process.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.beside.load import Turn, take_turn
from benchmarks.beside.services import Ask, FastApi, Here, LitServe, Served, Service, running
from benchmarks.in_process import CORES, REPOSITORY, InProcess
from benchmarks.judge import percentiles
from benchmarks.machine import machine, versions
from benchmarks.photos import load_samples
from benchmarks.target import keep, parser_of
from serving.paths import REPOSITORIES
from serving.repository.profiles import EMBEDDED_CPU, PROFILES
from serving.server.server import Server

BESIDE = "benchmarks.beside"
FILE = Path("build/bench/side_by_side.json")
HERE = ("in process", "one by one")
SAME = 0.9999
"""Cosine from which embeddings agree; batches of another size round differently."""


class Disagreement(Exception):
    """A service gave another embedding than the graphs in this process."""


@dataclass(frozen=True)
class Measure:
    """``photos`` sent in messages of ``batch``, from ``clients`` at once; in process there is one caller."""

    services: tuple[str, ...]
    clients: int
    batch: int
    photos: int
    ratios: tuple[tuple[str, str], ...]


def measures(clients: int, batch: int, in_flight: int, photos: int) -> dict[str, Measure]:
    return {
        "clients": Measure(
            ("served", "FastAPI", "LitServe"), clients, 1, photos, (("served", "FastAPI"), ("served", "LitServe"))
        ),
        "latency": Measure(
            ("served", "in process", "FastAPI", "LitServe"),
            1,
            1,
            max(photos // 4, 8),
            tuple((name, "in process") for name in ("served", "FastAPI", "LitServe")),
        ),
        "offline": Measure(
            ("served", "in process", "one by one"),
            in_flight,
            batch,
            max(photos, in_flight * batch),
            (("served", "in process"), ("served", "one by one")),
        ),
    }


@contextmanager
def services_of(repository: Path, fastapi_threads: int = 0, litserve_workers: int = 1) -> Iterator[dict[str, Service]]:
    """All of them, up and ready; ``fastapi_threads`` are those of an operator, 0 leaves them to ONNX Runtime."""
    with ExitStack() as stack:
        profile = patient(Path(stack.enter_context(TemporaryDirectory())) / "patient")
        server = stack.enter_context(Server.start([repository, *REPOSITORIES[1:]], profile=profile))
        channel = stack.enter_context(grpc.insecure_channel(server.grpc_url, [("grpc.max_receive_message_length", -1)]))
        fastapi_options = ("--threads", str(fastapi_threads))
        fastapi = stack.enter_context(running(f"{BESIDE}.fastapi_service", repository, *fastapi_options))
        litserve_options = ("--workers", str(litserve_workers))
        litserve = stack.enter_context(running(f"{BESIDE}.litserve_service", repository, *litserve_options))
        model = InProcess(repository)
        yield {
            "served": Served(channel, server.pid),
            "in process": Here(model),
            "one by one": Here(model, one_by_one=True),
            "FastAPI": FastApi(*fastapi),
            "LitServe": LitServe(*litserve),
        }


def patient(folder: Path) -> Path:
    """The default profile, but refusing nothing: large models need longer for 32 clients than it lets anybody wait."""
    copytree(PROFILES / EMBEDDED_CPU, folder)
    with (folder / "decode.pbtxt").open("a") as fragment:
        fragment.write('parameters { key: "max_wait_seconds" value: { string_value: "600" } }\n')
    return folder


def run(
    services: Mapping[str, Service], asks: Sequence[Ask], plan: Mapping[str, Measure], turns: int
) -> dict[str, Any]:
    """Every measure in turns of its services, after one that warms up.

    Raises Disagreement.
    """
    asks = asks[: max(measure.photos for measure in plan.values())]
    expected = take_turn(services["in process"], asks, 1, 1).embeddings
    cosines = dict.fromkeys(services, 1.0)
    report: dict[str, Any] = {"cores": CORES, "machine": machine() | versions(), "turns": turns, "measures": {}}
    for name, measure in plan.items():
        wanted = [i % len(asks) for i in range(measure.photos)]
        taken: dict[str, list[Turn]] = {service: [] for service in measure.services}
        for turn in range(turns + 1):
            # Another one begins each time, so that none always follows the same neighbour's heat.
            for service in rotated(measure.services, turn):
                clients = 1 if service in HERE else measure.clients
                with services[service].awake():
                    found = take_turn(services[service], [asks[i] for i in wanted], clients, measure.batch)
                cosines[service] = min(cosines[service], float((found.embeddings * expected[wanted]).sum(1).min()))
                if turn:
                    taken[service].append(found)
        report["measures"][name] = figures_of(measure, taken)
    report["cosine_min"] = cosines
    wrong = [name for name, cosine in cosines.items() if cosine < SAME]
    if wrong:
        raise Disagreement(
            f"{', '.join(wrong)}: the cosine with the graphs in process falls to {min(cosines.values())}"
        )
    return report


def rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def figures_of(measure: Measure, taken: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Per service the rate and the latency, per pair the ratio: of rates, or of latencies where one client asks."""
    one_by_one = measure.clients == measure.batch == 1
    scores = {
        name: [percentile([turn], 50) if one_by_one else turn.rate for turn in turns] for name, turns in taken.items()
    }
    found: dict[str, Any] = {"clients": measure.clients, "batch": measure.batch, "photos a turn": measure.photos}
    found["services"] = {
        name: {
            "photos/s": spread([turn.rate for turn in turns]),
            "p50_ms": percentile(turns, 50),
            "p99_ms": percentile(turns, 99),
            "cpu_ms": statistics.median(turn.cpu_ms for turn in turns),
            "generator_cores": statistics.median(turn.generator_cores for turn in turns),
        }
        for name, turns in taken.items()
    }
    found["ratios"] = {
        f"{a} / {b}": spread([x / y for x, y in zip(scores[a], scores[b], strict=True)]) for a, b in measure.ratios
    }
    return found


def percentile(turns: Sequence[Turn], percent: float) -> float:
    return percentiles([1e-3 * ms for turn in turns for ms in turn.latencies_ms], [percent])[0]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(report: dict[str, Any]) -> None:
    console = Console()
    for name, measure in report["measures"].items():
        what = f"{measure['clients']} at once, {measure['batch']} a message"
        table = Table(title=f"{name}: {what}, medians of {report['turns']} turns (min to max), {report['cores']} cores")
        table.add_column("")
        for column in ("photos/s", "p50 ms", "p99 ms", "CPU ms a photo", "generator's cores"):
            table.add_column(column, justify="right")
        for service, found in measure["services"].items():
            mine = "" if service in HERE else f"{found['generator_cores']:.2f}"
            table.add_row(
                service,
                told(found["photos/s"], ".1f"),
                *(f"{found[column]:.1f}" for column in ("p50_ms", "p99_ms", "cpu_ms")),
                mine,
            )
        table.add_section()
        for pair, ratio in measure["ratios"].items():
            table.add_row(f"[bold]{pair}", f"[bold]{told(ratio, '.2f')}")
        console.print(table)
    cosines = ", ".join(f"{name} {cosine:.7f}" for name, cosine in report["cosine_min"].items())
    console.print(f"Smallest cosine with the embedding made in process, one by one: {cosines}")


def told(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def main() -> int:
    parser = parser_of("beside", __doc__, url=False)
    add = parser.add_argument
    add("--model-repository", type=Path, default=REPOSITORY, metavar="DIR", help="the models (model_repository/)")
    add("--photos", type=Path, metavar="DIR", help="a folder of photos (default: drawn scenes)")
    add("--type", default="product", help="their product type, without a photos.csv (%(default)s)")
    add("--only", choices=list(measures(1, 1, 1, 1)), help="one of the measures")
    add("--turns", type=int, default=7, help="of each service (%(default)s)")
    add("--clients", type=int, default=32, help="(%(default)s)")
    add("--batch", type=int, default=32, help="photos a message, offline (%(default)s)")
    add("--in-flight", type=int, default=4, help="messages of a batch at once (%(default)s)")
    add("--photos-per-turn", type=int, default=160, help="(%(default)s)")
    add("--fastapi-threads", type=int, default=0, help="of its graphs (default: ONNX Runtime's own, which spin)")
    add("--litserve-workers", type=int, default=1, help="which share the cores (%(default)s)")
    args = parser.parse_args()
    asks = load_samples(args.photos, args.type, 64, 7)
    plan = measures(args.clients, args.batch, args.in_flight, args.photos_per_turn)
    if args.only:
        plan = {args.only: plan[args.only]}
    with services_of(args.model_repository, args.fastapi_threads, args.litserve_workers) as services:
        try:
            report = run(services, asks, plan, args.turns)
        except Disagreement as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    show(report)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    for file in (FILE, args.json):
        keep(report, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
