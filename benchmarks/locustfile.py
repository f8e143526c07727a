"""Load tests with Locust, of any VL-CLIP server, by gRPC; to be started in the root of the repository.

    locust -f benchmarks/locustfile.py --host localhost:8001                         Locust's page on port 8089
    locust … --headless --rate 20 -t 60s --slo "p99=200ms error-rate=0.1%"           open loop: 20 requests a second
    locust … --headless --rate 40 -t 80s --shape steps                               up to 40 a second, to find the knee
    locust … --headless --loop closed -u 8 -t 60s                                    closed loop: 8 users
    locust … --headless --rate 200 -t 60s --processes 4                              four processes
    locust … --master --expect-workers 2 …    and    locust … --worker --master-host …   two machines
    python -m benchmarks.locustfile                                                  all options beside Locust's own

An open loop asks at the times of a Poisson schedule, which are drawn before, and counts latency from there. What could
not be sent in time is counted as missed. Every request is in Locust's statistics, with that latency. A run leaves its
folder as benchmarks.runs describes it, where Locust was started or its master; it fails, with exit code 1, if an SLO
did not hold. Without SLOs, Locust's own rule holds: exit code 1 if any request failed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import gevent
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, constant, events, task
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from benchmarks import slo
from benchmarks.callers import Answer
from benchmarks.generator import IDLE_SECONDS, Generator, Plan, now
from benchmarks.machine import machine, versions
from benchmarks.runs import Request, Run, write_requests, write_run
from benchmarks.schedule import SECONDS, level_at, shape_steps
from benchmarks.target import checked
from benchmarks.traffic import (
    BATCHES,
    CLIENT_MIX,
    CLIENTS,
    MIX,
    PIPELINES,
    Ask,
    parse_batches,
    parse_shares,
    require_folder,
)

DRAIN_SECONDS = 10.0
"""For the processes to say that they are done, after the last deadline."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    group = parser.add_argument_group("VL-CLIP", "What is asked, and when. -u and -t are Locust's own.")
    group.add_argument("--loop", choices=("open", "closed"), default="open", help="a schedule, or users who wait")
    group.add_argument("--shape", choices=tuple(SECONDS), default="steady", help="of the load over time")
    group.add_argument("--rate", type=float, default=10.0, help="requests a second of an open loop")
    group.add_argument("--spike", type=float, default=3.0, help="times the rate or users in the middle of a spike")
    group.add_argument("--warm-up", type=float, default=3.0, help="seconds before the run that are not counted")
    group.add_argument("--deadline", type=float, default=10.0, help="seconds for an answer")
    group.add_argument("--max-in-flight", type=int, default=256, help="requests under way; more are missed")
    group.add_argument("--mix", type=checked(lambda text: parse_shares(text, PIPELINES)), default=MIX, help="pipelines")
    group.add_argument("--batches", type=checked(parse_batches), default=BATCHES, help="items of a request")
    group.add_argument(
        "--clients", type=checked(lambda text: parse_shares(text, CLIENTS)), default=CLIENT_MIX, help="who asks"
    )
    group.add_argument(
        "--photos",
        type=checked(require_folder),
        default="",
        help="FOLDER/TYPE/*.jpg (default: drawn ones)",
    )
    group.add_argument("--seed", type=int, default=1, help="of the schedule and of what is asked")
    group.add_argument(
        "--slo",
        action="append",
        type=checked(slo.parse_all),
        default=[],
        help=slo.HELP,
    )
    group.add_argument("--out", default="", help="folder to write (build/bench/LOOP-SHAPE)")


class OpenLoop(User):
    """Sends its process's share of the schedule."""

    wait_time = constant(0)

    @task
    def send_next(self) -> None:
        send_next(self)


class ClosedLoop(User):
    """Asks again when it has its answer."""

    wait_time = constant(0)

    @task
    def send_next(self) -> None:
        send_next(self)


class Shape(LoadTestShape):
    """One sender a process in an open loop; in a closed one, as many users as the steps say."""

    use_common_options = True

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        assert self.runner
        conductor = conductors.get(self.runner)
        plan = conductor.plan if conductor else make_plan(self.runner)
        if conductor and conductor.is_done():
            return None
        if plan.loop == "open":
            return len(plan.processes), 100, [OpenLoop]
        second = now() - conductor.begun - plan.warm_up if conductor else 0.0
        # Half a second ahead, because Locust asks about once a second: so users change at the second nearest to a step.
        return round(level_at(plan.steps, second + 0.5)), 100, [ClosedLoop]


class Conductor:
    """A run as Locust's master or only process sees it: it tells the plan and gathers what was taken down."""

    def __init__(self, runner: Any, plan: Plan) -> None:
        self.plan, self.begun = plan, now()
        self._runner = runner
        self._requests: dict[str, list[Request]] = {name: [] for name in plan.processes}
        self._finished: dict[str, dict[str, float]] = {}
        options = runner.environment.parsed_options
        self._slos = slo.parse_all(options.slo)
        self._folder = Path(options.out or f"build/bench/{plan.loop}-{plan.shape}")
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in (*self._folder.glob("requests*.csv"), *self._folder.glob("run.json")):
            old.unlink()

    def gather(self, process: str, rows: list[list[Any]]) -> None:
        self._requests.setdefault(process, []).extend(Request(*row) for row in rows)

    def finish(self, process: str, usage: dict[str, float]) -> None:
        self._finished[process] = usage

    def is_done(self) -> bool:
        """Whether all processes are, or had the time to be."""
        plan = self.plan
        late = self.begun + plan.warm_up + plan.seconds + plan.deadline + DRAIN_SECONDS
        return self._finished.keys() >= set(plan.processes) or now() > late

    def close(self) -> None:
        """Writes the folder and says what the SLOs came to."""
        plan, environment = self.plan, self._runner.environment
        requests = [request for share in self._requests.values() for request in share]
        for process, share in self._requests.items():
            write_requests(self._folder / f"requests-{process}.csv", share)
        started = min((usage["started"] for usage in self._finished.values()), default=self.begun + plan.warm_up)
        verdicts = slo.judge(self._slos, requests, plan.seconds)
        run = Run(
            self._folder.name,
            plan.loop,
            plan.shape,
            started,
            plan.seconds,
            plan.steps,
            shlex.join(["locust", *sys.argv[1:]]),
            plan.url,
            machine(),
            versions(plan.url),
            [verdict.to_json() for verdict in verdicts],
            plan.warm_up,
            self._cpu_cores(),
        )
        write_run(self._folder, run)
        broken = [verdict.sentence for verdict in verdicts if not verdict.held]
        lost = sorted(set(plan.processes) - self._finished.keys())
        if lost:
            broken.append(f"{len(lost)} of {len(plan.processes)} processes did not finish: their requests are missing")
        for sentence in broken:
            print(sentence, file=sys.stderr, flush=True)
        print(f"The first {plan.warm_up:g} s were warm-up and are not counted. Written: {self._folder}", flush=True)
        if broken or self._slos:
            environment.process_exit_code = 1 if broken else 0

    def _cpu_cores(self) -> float:
        """Cores that the load generator kept busy, of all its machines together."""
        return sum(usage["cpu_seconds"] / usage["seconds"] for usage in self._finished.values())


conductors: dict[Any, Conductor] = {}
"""Of a runner that is the master or the only process, while a run is under way."""
generators: dict[Any, Generator] = {}
"""Of a runner that sends."""


def make_plan(runner: Any) -> Plan:
    """What the options say; Locust's page may have changed them."""
    options = runner.environment.parsed_options
    if isinstance(runner, MasterRunner):
        processes = [client.id for client in runner.clients.all if client.state != STATE_MISSING]
    else:
        processes = [runner.client_id]
    seconds = float(options.run_time or SECONDS[options.shape])
    level = options.rate if options.loop == "open" else float(options.num_users or 1)
    steps = shape_steps(options.loop, options.shape, level, seconds, options.spike)
    if options.loop == "closed":
        steps = [(float(round(at)), float(max(1, round(users)))) for at, users in steps]
    return Plan(
        url=(runner.environment.host or "localhost:8001").removeprefix("grpc://").removeprefix("http://"),
        loop=options.loop,
        shape=options.shape,
        steps=steps,
        seconds=seconds,
        warm_up=options.warm_up,
        deadline=options.deadline,
        max_in_flight=options.max_in_flight,
        seed=options.seed,
        mix=options.mix,
        batches=options.batches,
        clients=options.clients,
        photos=options.photos,
        processes=processes,
    )


@events.init.add_listener
def prepare(environment: Any, runner: Any, **_: Any) -> None:
    """After Locust has forked its processes, and before any gRPC channel is there."""
    init_gevent()
    if not isinstance(runner, MasterRunner):
        runner.register_message("plan", lambda environment, msg: begin(runner, Plan(**msg.data)))
        environment.events.test_stop.add_listener(lambda **_: end(runner))
    if isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(lambda client_id, data: attach(runner, data))
        return

    def gather(client_id: str, data: dict[str, Any]) -> None:
        if runner in conductors:
            conductors[runner].gather(client_id, data.get("requests", []))

    def finish(environment: Any, msg: Any) -> None:
        if runner in conductors:
            conductors[runner].gather(msg.data["process"], msg.data["requests"])
            conductors[runner].finish(msg.data["process"], msg.data["usage"])

    environment.events.worker_report.add_listener(gather)
    runner.register_message("finished", finish)
    environment.events.test_start.add_listener(lambda **_: conduct(runner))
    environment.events.test_stop.add_listener(lambda **_: conclude(runner))


def conduct(runner: Any) -> None:
    conductors[runner] = Conductor(runner, make_plan(runner))
    runner.send_message("plan", conductors[runner].plan.to_json())


def conclude(runner: Any) -> None:
    if conductor := conductors.pop(runner, None):
        conductor.close()


def begin(runner: Any, plan: Plan) -> None:
    if runner.client_id in plan.processes:
        generators[runner] = Generator(plan, runner.client_id, lambda *what: fire(runner, *what))


def send_next(user: User) -> None:
    """A user's task."""
    runner = user.environment.runner
    if generator := generators.get(runner):
        generator.send_next()
        if generator.finished:
            end(runner)
    else:
        gevent.sleep(IDLE_SECONDS)


def attach(runner: Any, data: dict[str, Any]) -> None:
    if generator := generators.get(runner):
        data["requests"] = generator.take_requests()


def end(runner: Any) -> None:
    """Hands over what was taken down; a second call does nothing."""
    if generator := generators.pop(runner, None):
        generator.close()
        runner.send_message(
            "finished", {"process": runner.client_id, "requests": generator.take_requests(), "usage": generator.usage()}
        )


def fire(runner: Any, ask: Ask, latency: float | None, answer: Answer) -> None:
    """Into Locust's statistics."""
    runner.environment.events.request.fire(
        request_type=ask.client,
        name=ask.pipeline,
        response_time=None if latency is None else 1e3 * latency,
        response_length=0,
        exception=answer.error,
        context={},
    )


if __name__ == "__main__":  # since Locust's own --help knows its own options alone
    parser = argparse.ArgumentParser(
        prog="locust -f benchmarks/locustfile.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.print_help()
