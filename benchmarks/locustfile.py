"""Load tests with Locust, of any VL-CLIP server, over gRPC. Start it in the root of the repository.

    locust -f benchmarks/locustfile.py --host localhost:8001                         Locust's page on port 8089
    locust … --headless --rate 20 -t 60s --slo "p99=200ms error-rate=0.1%"           open loop: 20 requests a second
    locust … --headless --rate 40 -t 80s --shape steps                               up to 40 a second, to find the knee
    locust … --headless --loop closed -u 8 -t 60s                                    closed loop: 8 users
    locust … --headless --rate 200 -t 60s --processes 4                              four processes
    locust … --master --expect-workers 2 …    and    locust … --worker --master-host …   two machines
    python -m benchmarks.locustfile                                                  all options besides Locust's own

An open loop sends requests at the times of a Poisson schedule, which is drawn before the run. Latency counts from these
times, also in Locust's statistics. A request that cannot be sent in time is counted as missed. Locust's page shows each
process as one user; the process runs its share of the load with benchmarks.engine.

A run writes the folder that benchmarks.runs describes, on the master or the only process. The exit code is 1 if an SLO
did not hold. Without SLOs it is Locust's own: 1 if any request failed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, constant, events, task
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from benchmarks import engine, slo
from benchmarks.callers import Callers
from benchmarks.engine import Answer, Engine, now
from benchmarks.machine import cpu_seconds, machine, versions
from benchmarks.runs import Request, Run, frame, write_run
from benchmarks.schedule import SECONDS, Steps, draw_poisson, shape_steps, user_spans
from benchmarks.target import checked
from benchmarks.traffic import (
    BATCHES,
    CLIENT_MIX,
    MIX,
    Traffic,
    drawn_photos,
    parse_batches,
    parse_clients,
    parse_mix,
    require_folder,
)

SPARE_THREADS = 10
DRAIN_SECONDS = 10.0
"""Seconds after the last deadline in which the processes must report that they are done."""


def add_options(parser: Any) -> None:
    group = parser.add_argument_group("VL-CLIP", "What is sent, and when. -u and -t are Locust's own.")
    add = group.add_argument
    add("--loop", choices=("open", "closed"), default="open", help="a schedule, or users who wait for answers")
    add("--shape", choices=tuple(SECONDS), default="steady", help="the load over time")
    add("--rate", type=float, default=10.0, help="requests a second of an open loop")
    add("--spike", type=float, default=3.0, help="factor of the rate or the users in the middle of a spike")
    add("--warm-up", type=float, default=3.0, help="seconds before the run that are not counted")
    add("--deadline", type=float, default=10.0, help="seconds to wait for an answer")
    add("--max-in-flight", type=int, default=256, help="requests in flight at most; more are missed")
    add("--mix", type=checked(parse_mix), default=MIX, help="pipelines")
    add("--batches", type=checked(parse_batches), default=BATCHES, help="items in a request")
    add("--clients", type=checked(parse_clients), default=CLIENT_MIX, help="clients that send the requests")
    add("--photos", type=checked(require_folder), default="", help="FOLDER/TYPE/*.jpg (default: drawn photos)")
    add("--seed", type=int, default=1, help="seed of the schedule and of the requests")
    add("--slo", action="append", type=checked(slo.parse_all), default=[], help=slo.HELP)
    add("--out", default="", help="folder to write (build/bench/LOOP-SHAPE)")


@dataclass(frozen=True)
class Plan:
    """A run, as the master sends it to all processes."""

    url: str
    loop: str
    shape: str
    steps: Steps
    seconds: float
    warm_up: float
    """Seconds before the start. Their requests are not recorded."""
    deadline: float
    """Seconds from sending a request until it counts as late."""
    max_in_flight: int
    """Limit for all processes together, in an open loop."""
    seed: int
    mix: str
    batches: str
    clients: str
    photos: str
    """A folder; empty for drawn photos."""
    processes: Sequence[str]
    """Names of the processes. Each one sends every n-th request."""


@dataclass
class Share:
    """A process's share of a plan."""

    plan: Plan
    runner: Any
    requests: list[Request] = field(default_factory=list)
    begun: float = field(default_factory=now)
    cpu_before: float = field(default_factory=lambda: cpu_seconds(os.getpid()))

    @property
    def started(self) -> float:
        """Second 0 of the plan on this process's clock."""
        return self.begun + self.plan.warm_up

    def run(self) -> None:
        """Send all requests of the share and wait for their answers."""
        plan, processes = self.plan, len(self.plan.processes)
        index = plan.processes.index(self.runner.client_id)
        photos = Path(plan.photos) if plan.photos else drawn_photos()
        traffic = Traffic(photos, plan.seed, plan.mix, plan.batches, plan.clients)
        callers = Callers(plan.url, plan.deadline)
        sender = Engine(traffic.ask, self.record)
        spans = user_spans(plan.steps, plan.seconds) if plan.loop == "closed" else []
        # gRPC waits for each answer in a thread of gevent's pool. Its default of 10 would delay the further answers.
        gevent.get_hub().threadpool.maxsize = SPARE_THREADS + max(plan.max_in_flight, len(spans))
        self.begun, self.cpu_before = now(), cpu_seconds(os.getpid())
        try:
            if plan.loop == "open":
                arrivals = enumerate(draw_poisson(plan.steps, plan.seconds, plan.warm_up, plan.seed).tolist())
                due = [(number, self.started + second) for number, second in arrivals]
                sender.send_by_schedule(due[index::processes], callers.send, -(-plan.max_in_flight // processes))
            else:
                begins_ends = [(self.started + at, self.started + end) for at, end in spans[index::processes]]
                users = [engine.User(callers.send, begins, ends) for begins, ends in begins_ends]
                sender.send_as_users(users, count(index, processes))
        finally:
            callers.close()

    def record(self, request: Request, answer: Answer) -> None:
        """Keep the request, unless it belongs to the warm-up, and add it to Locust's statistics."""
        if self.started <= request.scheduled < self.started + self.plan.seconds:
            self.requests.append(request)
        self.runner.environment.events.request.fire(
            request_type=request.user,
            name=request.pipeline,
            response_time=None if request.done is None else 1e3 * (request.done - request.scheduled),
            response_length=0,
            exception=answer.error,
            context={},
        )

    def report(self) -> dict[str, Any]:
        """A message to the master: the requests, the start, and the cores that this process used."""
        cores = (cpu_seconds(os.getpid()) - self.cpu_before) / (now() - self.begun)
        return {
            "process": self.runner.client_id,
            "requests": [list(request) for request in self.requests],
            "started": self.started,
            "cores": cores,
        }


class Process(User):
    """The single user of each process. It runs the process's share."""

    wait_time = constant(0.1)

    @task
    def run_share(self) -> None:
        node: Node = self.environment.node
        if node.share:
            node.share.run()
            node.finish()


class Shape(LoadTestShape):
    """One user a process, until all processes are done."""

    use_common_options = True

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        runner: Any = self.runner
        conductor = runner.environment.node.conductor
        if conductor and conductor.is_done():
            return None
        processes = conductor.plan.processes if conductor else make_plan(runner).processes
        return len(processes), 100, [Process]


class Conductor:
    """A run on Locust's master or its only process: it sends the plan and collects the requests."""

    def __init__(self, runner: Any, plan: Plan) -> None:
        self.plan, self.begun = plan, now()
        self._environment = runner.environment
        self._reports: dict[str, dict[str, Any]] = {}
        self._slos = slo.parse_all(runner.environment.parsed_options.slo)
        self._folder = Path(runner.environment.parsed_options.out or f"build/bench/{plan.loop}-{plan.shape}")
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in (*self._folder.glob("requests*.csv"), *self._folder.glob("run.json")):
            old.unlink()

    def receive(self, report: dict[str, Any]) -> None:
        self._reports[report["process"]] = report

    def is_done(self) -> bool:
        """Whether all processes have reported, or should have by now."""
        plan = self.plan
        latest = self.begun + plan.warm_up + plan.seconds + plan.deadline + DRAIN_SECONDS
        return self._reports.keys() >= set(plan.processes) or now() > latest

    def close(self) -> None:
        """Write the folder and print the verdicts of the SLOs."""
        plan, reports = self.plan, self._reports.values()
        for report in reports:
            frame(report["requests"]).write_csv(self._folder / f"requests-{report['process']}.csv")
        requests = frame(request for report in reports for request in report["requests"])
        verdicts = slo.judge(self._slos, requests, plan.seconds)
        run = Run(
            name=self._folder.name,
            loop=plan.loop,
            shape=plan.shape,
            started=min((report["started"] for report in reports), default=self.begun + plan.warm_up),
            seconds=plan.seconds,
            steps=plan.steps,
            command=shlex.join(["locust", *sys.argv[1:]]),
            target=plan.url,
            machine=machine(),
            versions=versions(plan.url),
            slos=[verdict.to_json() for verdict in verdicts],
            warm_up=plan.warm_up,
            generator_cores=sum(report["cores"] for report in reports),
        )
        write_run(self._folder, run)
        broken = [verdict.sentence for verdict in verdicts if not verdict.held]
        if lost := len(plan.processes) - len(reports):
            broken.append(f"{lost} of {len(plan.processes)} processes did not finish: their requests are missing")
        for sentence in broken:
            print(sentence, file=sys.stderr, flush=True)
        print(f"The first {plan.warm_up:g} s were warm-up and are not counted. Written: {self._folder}", flush=True)
        if broken or self._slos:
            self._environment.process_exit_code = 1 if broken else 0


def make_plan(runner: Any) -> Plan:
    """The plan that the options describe. Locust's page may have changed them."""
    options = runner.environment.parsed_options
    if isinstance(runner, MasterRunner):
        processes = [client.id for client in runner.clients.all if client.state != STATE_MISSING]
    else:
        processes = [runner.client_id]
    seconds = float(options.run_time or SECONDS[options.shape])
    level = options.rate if options.loop == "open" else float(options.num_users or 1)
    same = ("loop", "shape", "warm_up", "deadline", "max_in_flight", "seed", "mix", "batches", "clients", "photos")
    return Plan(
        url=(runner.environment.host or "localhost:8001").removeprefix("grpc://").removeprefix("http://"),
        steps=shape_steps(options.loop, options.shape, level, seconds, options.spike),
        seconds=seconds,
        processes=processes,
        **{name: getattr(options, name) for name in same},
    )


class Node:
    """This process's part in a run: a conductor on the master, a share where requests are sent, or both."""

    conductor: Conductor | None = None
    share: Share | None = None

    def __init__(self, runner: Any) -> None:
        self.runner, on = runner, runner.environment.events
        if not isinstance(runner, MasterRunner):
            runner.register_message("plan", self.begin)
            on.test_stop.add_listener(self.finish)
        if not isinstance(runner, WorkerRunner):
            runner.register_message("finished", self.receive)
            on.test_start.add_listener(self.conduct)
            on.test_stop.add_listener(self.conclude)

    def conduct(self, **_: Any) -> None:
        self.conductor = Conductor(self.runner, make_plan(self.runner))
        self.runner.send_message("plan", asdict(self.conductor.plan))

    def begin(self, msg: Any, **_: Any) -> None:
        plan = Plan(**msg.data)
        self.share = Share(plan, self.runner) if self.runner.client_id in plan.processes else None

    def finish(self, **_: Any) -> None:
        """Send the share's requests to the master. A second call does nothing."""
        share, self.share = self.share, None
        if share:
            self.runner.send_message("finished", share.report())

    def receive(self, msg: Any, **_: Any) -> None:
        if self.conductor:
            self.conductor.receive(msg.data)

    def conclude(self, **_: Any) -> None:
        conductor, self.conductor = self.conductor, None
        if conductor:
            conductor.close()


def prepare(environment: Any, runner: Any, **_: Any) -> None:
    """Called after Locust has forked its processes and before any gRPC channel exists."""
    init_gevent()
    environment.node = Node(runner)


if __name__ == "__main__":  # Locust's own --help does not know these options
    parser = argparse.ArgumentParser(
        prog="locust -f benchmarks/locustfile.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.print_help()
else:
    listeners: Any = events
    listeners.init_command_line_parser.add_listener(add_options)
    listeners.init.add_listener(prepare)
