"""Compare the served pipeline with three other ways to the same embeddings, in turns in one run.

    python -m benchmarks.beside                                   the mini models, about 3 minutes
    python -m benchmarks.beside --model-repository DIR            the models of `python -m export --out DIR`
    python -m benchmarks.beside --only latency --turns 20         one of the three measures
    taskset -c 0,1 python -m benchmarks.beside                    clients and services on these cores

    served       product_image over gRPC
    in process   the same graphs, called one after the other in this process; offline in batches, and in "one by one"
                 photo by photo
    FastAPI      a plain service that calls these graphs, as people write it first
    LitServe     a LitServe service that calls these graphs, with dynamic batching

    clients      photos a second from clients that send one photo each (not in process)
    latency      milliseconds for one photo from one client
    offline      photos a second in batches (served and in process)

All services run the same weights on the same photos. They take turns, so that other work on the machine affects them
equally, and are stopped between their turns. Ratios are taken turn by turn. The server's admission is off, because the
other services have none. Every embedding is compared with the one made in process, and a difference is an error.
"""

from __future__ import annotations

import os
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
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks import photos
from benchmarks.beside.services import Array, Connection, FastApi, InThisProcess, LitServe, Served, Service, running
from benchmarks.engine import Answer, Engine, User
from benchmarks.machine import cpu_seconds, machine, versions
from benchmarks.photos import Sample
from benchmarks.runs import Request, frame
from benchmarks.slo import percentile
from benchmarks.target import keep, parser_of
from benchmarks.traffic import Ask
from export.in_process import CORES, REPOSITORY, InProcess
from serving.paths import REPOSITORIES
from serving.repository.profiles import EMBEDDED_CPU, PROFILES
from serving.server.server import Server

MODULE = "benchmarks.beside"
FILE = Path("build/bench/side_by_side.json")
LOCAL = ("in process", "one by one")
SAME = 0.9999
"""The smallest cosine of embeddings that agree. Batches of another size round differently."""


class DisagreementError(Exception):
    """A service returned another embedding than the graphs in this process."""


@dataclass(frozen=True)
class Measure:
    """``photos`` in messages of ``batch``, from ``clients`` connections at once; a single one in process."""

    services: tuple[str, ...]
    clients: int
    batch: int
    photos: int
    ratios: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Message(Ask):
    """A request with its content as the service takes it."""

    number: int
    content: Any


@dataclass(frozen=True)
class Turn:
    """The figures of one turn of a service."""

    requests: pl.DataFrame
    rate: float
    """Photos a second, from the first message to the last answer."""
    generator_cores: float
    """Cores that this process used."""
    cpu_ms: float
    """CPU time of the service's processes for each photo. Other work on the machine affects it little."""
    embeddings: Array  # [N, D], in the order of the samples


def measures(clients: int, batch: int, in_flight: int, photos: int) -> dict[str, Measure]:
    network, others = ("FastAPI", "LitServe"), ("in process", "one by one")
    return {
        "clients": Measure(("served", *network), clients, 1, photos, tuple(("served", name) for name in network)),
        "latency": Measure(
            ("served", "in process", *network),
            1,
            1,
            max(photos // 4, 8),
            tuple((name, "in process") for name in ("served", *network)),
        ),
        "offline": Measure(
            ("served", *others),
            in_flight,
            batch,
            max(photos, in_flight * batch),
            tuple(("served", name) for name in others),
        ),
    }


@contextmanager
def services_of(repository: Path) -> Iterator[dict[str, Service]]:
    """Start all services and wait until they are ready."""
    with ExitStack() as stack:
        profile = without_admission(Path(stack.enter_context(TemporaryDirectory())) / "profile")
        server = stack.enter_context(Server.start([repository, *REPOSITORIES[1:]], profile=profile))
        channel = stack.enter_context(grpc.insecure_channel(server.grpc_url, [("grpc.max_receive_message_length", -1)]))
        fastapi = stack.enter_context(running(f"{MODULE}.fastapi_service", repository))
        litserve = stack.enter_context(running(f"{MODULE}.litserve_service", repository))
        model = InProcess(repository)
        yield {
            "served": Served(channel, server.pid),
            "in process": InThisProcess(model),
            "one by one": InThisProcess(model, one_by_one=True),
            "FastAPI": FastApi(*fastapi),
            "LitServe": LitServe(*litserve),
        }


def without_admission(folder: Path) -> Path:
    """The default profile with a long wait: 32 clients wait longer for large models than the default allows."""
    copytree(PROFILES / EMBEDDED_CPU, folder)
    with (folder / "decode.pbtxt").open("a") as fragment:
        fragment.write('parameters { key: "max_wait_seconds" value: { string_value: "600" } }\n')
    return folder


def take_turn(name: str, service: Service, samples: Sequence[Sample], clients: int, batch: int) -> Turn:
    """Send the samples in messages of ``batch``, from ``clients`` connections at once."""
    parts = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    messages = []
    for number, part in enumerate(parts):
        photos, types = zip(*part, strict=True)
        messages.append(Message(name, "product_image", types, photos, number, service.message(part)))
    answers: list[Any] = [None] * len(messages)
    requests: list[Request] = []

    def user_of(connection: Connection) -> User:
        def send(message: Ask) -> Answer:
            assert isinstance(message, Message)
            answers[message.number] = connection(message.content)
            return Answer()

        return User(send)

    with ExitStack() as stack:
        users = [user_of(stack.enter_context(service.connect())) for _ in range(clients)]
        engine = Engine(messages.__getitem__, lambda request, _: requests.append(request))
        before, busy_before = cpu_seconds(service.pid), cpu_seconds(os.getpid())
        engine.send_as_users(users, range(len(messages)))
        spent, busy = cpu_seconds(service.pid) - before, cpu_seconds(os.getpid()) - busy_before
    table = frame(requests)
    seconds = table.select(pl.col("done").max() - pl.col("sent").min()).item()
    embeddings = np.concatenate([service.embeddings(answer) for answer in answers])
    return Turn(table, len(samples) / seconds, busy / seconds, 1e3 * spent / len(samples), embeddings)


def run(
    services: Mapping[str, Service], samples: Sequence[Sample], plan: Mapping[str, Measure], turns: int
) -> dict[str, Any]:
    """Take every measure in turns of its services, after one turn to warm up. Raises DisagreementError."""
    samples = samples[: max(measure.photos for measure in plan.values())]
    expected = take_turn("in process", services["in process"], samples, 1, 1).embeddings
    cosines = dict.fromkeys(services, 1.0)
    report: dict[str, Any] = {"cores": CORES, "machine": machine() | versions(), "turns": turns, "measures": {}}
    for name, measure in plan.items():
        wanted = [i % len(samples) for i in range(measure.photos)]
        taken: dict[str, list[Turn]] = {service: [] for service in measure.services}
        for turn in range(turns + 1):
            # Each turn begins with another service, so that none always follows the same one.
            first = turn % len(measure.services)
            for service in measure.services[first:] + measure.services[:first]:
                clients = 1 if service in LOCAL else measure.clients
                with services[service].running():
                    sent = [samples[i] for i in wanted]
                    found = take_turn(service, services[service], sent, clients, measure.batch)
                cosines[service] = min(cosines[service], float((found.embeddings * expected[wanted]).sum(1).min()))
                if turn:
                    taken[service].append(found)
        report["measures"][name] = figures_of(measure, taken)
    report["cosine_min"] = cosines
    if wrong := [f"{name} {cosine:.6f}" for name, cosine in cosines.items() if cosine < SAME]:
        raise DisagreementError(
            f"expected a cosine of at least {SAME} with the embeddings made in process: {', '.join(wrong)}"
        )
    return report


def figures_of(measure: Measure, taken: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """The rate and latency of each service, and the ratio of each pair: of rates, or of latencies for one client."""
    is_latency = measure.clients == measure.batch == 1
    scores = {
        name: [percentile(turn.requests, 50) if is_latency else turn.rate for turn in turns]
        for name, turns in taken.items()
    }
    together = {name: pl.concat(turn.requests for turn in turns) for name, turns in taken.items()}
    return {
        "clients": measure.clients,
        "batch": measure.batch,
        "photos a turn": measure.photos,
        "services": {
            name: {
                "photos/s": spread([turn.rate for turn in turns]),
                "p50_ms": 1e3 * percentile(together[name], 50),
                "p99_ms": 1e3 * percentile(together[name], 99),
                "cpu_ms": statistics.median(turn.cpu_ms for turn in turns),
                "generator_cores": statistics.median(turn.generator_cores for turn in turns),
            }
            for name, turns in taken.items()
        },
        "ratios": {
            f"{a} / {b}": spread([x / y for x, y in zip(scores[a], scores[b], strict=True)]) for a, b in measure.ratios
        },
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(report: dict[str, Any]) -> None:
    console = Console()
    for name, measure in report["measures"].items():
        what = f"{measure['clients']} at once, {measure['batch']} a message"
        table = Table(title=f"{name}: {what}, medians of {report['turns']} turns (min to max), {report['cores']} cores")
        table.add_column("")
        for column in ("photos/s", "p50 ms", "p99 ms", "CPU ms a photo", "cores of the clients"):
            table.add_column(column, justify="right")
        for service, found in measure["services"].items():
            latencies = (f"{found[column]:.1f}" for column in ("p50_ms", "p99_ms", "cpu_ms"))
            cores = "" if service in LOCAL else f"{found['generator_cores']:.2f}"
            table.add_row(service, spread_text(found["photos/s"], ".1f"), *latencies, cores)
        table.add_section()
        for pair, ratio in measure["ratios"].items():
            table.add_row(f"[bold]{pair}", f"[bold]{spread_text(ratio, '.2f')}")
        console.print(table)
    cosines = ", ".join(f"{name} {cosine:.7f}" for name, cosine in report["cosine_min"].items())
    console.print(f"Smallest cosine with the embeddings made in process, one by one: {cosines}")


def spread_text(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def main() -> int:
    parser = parser_of("beside", __doc__, url=False)
    photos.add_options(parser)
    add = parser.add_argument
    add("--model-repository", type=Path, default=REPOSITORY, metavar="DIR", help="the models (model_repository/)")
    add("--only", choices=list(measures(1, 1, 1, 1)), help="take only this measure")
    add("--turns", type=int, default=7, help="turns of each service (%(default)s)")
    add("--clients", type=int, default=32, help="clients that send one photo each (%(default)s)")
    add("--batch", type=int, default=32, help="photos a message, offline (%(default)s)")
    add("--in-flight", type=int, default=4, help="messages at once, offline (%(default)s)")
    add("--photos-per-turn", type=int, default=160, help="photos in a turn (%(default)s)")
    args = parser.parse_args()
    samples = photos.load_samples(args.photos, args.type, 64, 7)
    plan = measures(args.clients, args.batch, args.in_flight, args.photos_per_turn)
    if args.only:
        plan = {args.only: plan[args.only]}
    with services_of(args.model_repository) as services:
        try:
            report = run(services, samples, plan, args.turns)
        except DisagreementError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    show(report)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    for file in (FILE, args.json):
        keep(report, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
