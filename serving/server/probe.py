"""Check whether a server works: for Kubernetes probes, container health checks, and people.

    python -m serving probe --ready                      can it take requests?
    python -m serving probe --live                       must it be restarted?
    python -m serving probe --ready --url host:8000 --metrics host:8002 --timeout 5

It prints one line. The exit code is 0 if the server is ready or live, and 1 if it is not.

--ready sends a photo to every pipeline, as a client would. The server is not ready if one of them gives no answer or an
incorrect one: its models are loading, a model process is dead or hangs, or the server is stopping. A server that
refuses requests because it is overloaded is ready. If it were not, its load would move to the other replicas and
overload them as well. But its models must finish some requests, because requests also pile up for a model that hangs.

--live fails only if Triton accepts a connection and never answers. While nothing listens, `serving start` is loading
models or restarting Triton, which it tries again and again. It also replaces dead and hung model processes itself: to
restart the container would take longer and drop the other requests. After SIGTERM, accepted requests finish first;
meanwhile the server is live and not ready.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from serving.repository.specs import PIPELINES
from serving.server.api import FAILURES, Api

UNREADABLE = "cannot read the metrics; is the server running, and is --metrics its address?"
TIMEOUT, LAST_LOOK = 2.5, 0.5
"""Seconds. Kubernetes allows the readiness probe 4, and Python needs some of them to start on a busy machine."""


def check_ready(api: Api, pipelines: Sequence[str], timeout: float) -> tuple[bool, str]:
    """Whether every pipeline works, and a message. Takes about ``timeout`` seconds at most."""
    deadline = time.monotonic() + timeout
    try:
        before = api.queues(timeout)
    except FAILURES as error:
        return False, f"{UNREADABLE} {error}"
    try:
        api.check_live(max(0.01, deadline - time.monotonic()))
    except FAILURES as error:
        return False, f"Triton does not answer over HTTP; is --url its address? {error}"
    inputs = {name: [tensor.name for tensor in PIPELINES[name].inputs] for name in pipelines}
    problems = api.find_problems(inputs, deadline - time.monotonic())
    if not problems:
        return True, f"{', '.join(pipelines)}: correct answers"
    if broken := [problem.words for problem in problems if not problem.is_overload]:
        return False, "; ".join(broken)
    try:
        after = api.queues(LAST_LOOK)
    except FAILURES as error:
        return False, f"{UNREADABLE} {error}"
    stuck = sorted(
        f"{model} has finished none of {queue.waiting} requests in {timeout:g} s"
        for (model, version), queue in after.items()
        if (was := before.get((model, version))) and min(was.waiting, queue.waiting) and was.finished == queue.finished
    )
    return not stuck, "; ".join(stuck or (problem.words for problem in problems))


def check_live(api: Api, timeout: float) -> tuple[bool, str]:
    """Whether Triton answers within ``timeout`` seconds or is not running, and a message."""
    try:
        api.check_live(timeout)
    except TimeoutError:
        return False, f"Triton accepts connections and does not answer within {timeout:g} s"
    except FAILURES as error:
        return True, f"Triton is not running; it is loading models, restarting or stopping: {error}"
    return True, "Triton answers"


def split(address: str) -> tuple[str, int]:
    """``host:port`` as a host and a port, for argparse."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ready", action="store_true", help="can it take requests?")
    what.add_argument("--live", action="store_true", help="must it be restarted?")
    add("--url", type=split, default="localhost:8000", metavar="HOST:PORT", help="the address of HTTP (%(default)s)")
    add(
        "--metrics",
        type=split,
        default="localhost:8002",
        metavar="HOST:PORT",
        help="the address of the metrics (%(default)s)",
    )
    add("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="time-out for the whole probe (%(default)s)")
    add("--pipeline", action="append", choices=PIPELINES, help="check only this pipeline; can be repeated")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    api = Api(arguments.url, arguments.metrics)
    if arguments.live:
        is_well, message = check_live(api, arguments.timeout)
    else:
        is_well, message = check_ready(api, arguments.pipeline or list(PIPELINES), arguments.timeout)
    print(f"{'' if is_well else 'not '}{'live' if arguments.live else 'ready'}: {' '.join(message.split())}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
