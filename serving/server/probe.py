"""Ask a server whether it works: for probes of Kubernetes, health checks of containers, and people.

    python -m serving probe --ready                      may it be sent requests?
    python -m serving probe --live                       would starting it anew help?
    python -m serving probe --ready --url host:8000 --metrics host:8002 --timeout 5

One line says what is right or wrong; the exit code is 0 or 1.

--ready asks every pipeline about a photo, as a client would, and is red while one of them gives no answer or a wrong
one: models still load, a model's process is dead or hung, or the server is to stop. A server that only refuses because
it has too much to do is ready, or its load would fall on its neighbours, which would refuse in turn. But its models
must finish something, since in front of one that hangs work piles up, too.

--live is red only where Triton lets a connection come and never answers it. While nothing listens, `serving start` is
loading the models or starting Triton anew, and it ends by itself once it cannot. Dead and hung models it mends: to
start everything anew would take longer, and drop what the others are doing. After SIGTERM, what was accepted is
answered first, and the server is live, and not ready.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from serving.repository.specs import PIPELINES
from serving.server.api import FAILURES, Api, Kind

TIMEOUT, LAST_LOOK = 2.5, 0.5
"""Seconds. Kubernetes gives the readiness probe 4, of which Python needs some to start on a busy machine."""


def check_ready(api: Api, pipelines: Sequence[str], timeout: float) -> tuple[bool, str]:
    """Whether every pipeline works, and what is to be said of it; takes about ``timeout`` seconds at most."""
    deadline = time.monotonic() + timeout
    try:
        before = api.queues(timeout)
        inputs = {name: [tensor.name for tensor in PIPELINES[name].inputs] for name in pipelines}
        problems = api.find_problems(inputs, deadline - time.monotonic())
        if not problems:
            return True, f"{', '.join(pipelines)}: answered rightly"
        if broken := [str(problem) for problem in problems if problem.kind is not Kind.OVERLOADED]:
            return False, "; ".join(broken)
        after = api.queues(LAST_LOOK)
    except FAILURES as error:
        return False, f"no metrics, hence no server, or another --metrics: {error}"
    stuck = sorted(
        f"{model} has finished none of {queue.waiting} requests in {timeout:g} s"
        for (model, version), queue in after.items()
        if (was := before.get((model, version))) and min(was.waiting, queue.waiting) and was.finished == queue.finished
    )
    return not stuck, "; ".join(stuck or map(str, problems))


def check_live(api: Api, timeout: float) -> tuple[bool, str]:
    """Whether Triton answers, or is not there to answer; within ``timeout`` seconds."""
    try:
        api.check_live(timeout)
    except TimeoutError:
        return False, f"Triton lets itself be connected to and does not answer within {timeout:g} s"
    except FAILURES as error:
        return True, f"not at work now, loading models or ending: {error}"
    return True, "Triton answers"


def split(address: str) -> tuple[str, int]:
    """``host:port``, as argparse takes it."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise argparse.ArgumentTypeError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ready", action="store_true", help="may it be sent requests?")
    what.add_argument("--live", action="store_true", help="would starting it anew help?")
    add("--url", type=split, default="localhost:8000", metavar="HOST:PORT", help="of HTTP (%(default)s)")
    add("--metrics", type=split, default="localhost:8002", metavar="HOST:PORT", help="of the metrics (%(default)s)")
    add("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for all of it (%(default)s)")
    add("--pipeline", action="append", choices=PIPELINES, help="to be asked, may be repeated (all)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    api = Api(arguments.url, arguments.metrics)
    if arguments.live:
        is_well, words = check_live(api, arguments.timeout)
    else:
        is_well, words = check_ready(api, arguments.pipeline or list(PIPELINES), arguments.timeout)
    print(f"{'' if is_well else 'not '}{'live' if arguments.live else 'ready'}: {' '.join(words.split())}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
