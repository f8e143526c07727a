"""Ask a server whether it works: for probes of Kubernetes, health checks of containers, and people.

    python -m deploy.probe --ready                      may it be sent requests?
    python -m deploy.probe --live                       would starting it anew help?
    python -m deploy.probe --ready --url host:8000 --metrics host:8002 --timeout 5

One line says what is right or wrong; the exit code is 0 or 1.

--ready asks every pipeline about a photo, as a client would, and is red while one of them gives no answer or a wrong
one: models still load, a model's process is dead or hung, or the server is to stop. A server that only refuses because
it has too much to do is ready, or its load would fall on its neighbours, which would refuse in turn; but its models must
finish something, since in front of one that hangs work piles up, too.

--live is red only where Triton lets a connection come and never answers it. While nothing listens, deploy.serve is
loading the models or starting Triton anew, and it ends by itself once it cannot. Dead and hung models it mends: to
start everything anew would take longer, and drop what the others are doing. After SIGTERM, what was accepted is answered
first, and the server is live, and not ready.
"""

from __future__ import annotations

import argparse
import sys
import time

from deploy.api import FAILURES, Api, Kind
from export.specs import PIPELINES

TIMEOUT = 2.5
"""Seconds. A probe that Kubernetes gives 3 has to say what is wrong within them."""
LOOK_SECONDS = 0.2


def check_ready(api: Api, pipelines: list[str], timeout: float) -> tuple[bool, str]:
    """Whether every pipeline works, and what is to be said of it; within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    inputs = {name: [tensor.name for tensor in PIPELINES[name].inputs] for name in pipelines}
    problems = api.find_problems(inputs, timeout)
    broken = [problem for problem in problems if problem.kind is not Kind.OVERLOADED]
    if broken:
        return False, "; ".join(map(str, broken))
    if not problems:
        return True, f"{', '.join(pipelines)} answer rightly"
    return True, "; ".join(map(str, problems))


def check_live(api: Api, timeout: float) -> tuple[bool, str]:
    """Whether Triton answers, or is not there to answer; within ``timeout`` seconds."""
    try:
        api.check_live(timeout)
    except TimeoutError:
        return False, f"Triton lets itself be connected to and does not answer within {timeout:g} s"
    except FAILURES as error:
        return True, f"not at work now, loading models or ending: {error}"
    return True, "Triton answers"
