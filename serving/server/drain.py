"""How the server stops: accepted requests finish first, then Triton ends."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from pathlib import Path

from serving.repository.view import View
from serving.server.api import FAILURES, Api
from serving.server.launch import Triton
from serving.server.limits import DRAIN_SECONDS, LINGER_SECONDS
from serving.server.log import Log, report

POLL_SECONDS = 0.05


def stop_triton(triton: Triton, view: View, api: Api, http_port: int, log: Log) -> None:
    """Wait for accepted requests, then ask Triton to exit. The caller kills the processes that are left."""
    if triton.process.poll() is not None:
        return
    has_no_models = drain(view, api, http_port)
    log.mark()
    triton.process.terminate()
    deadline = time.monotonic() + (LINGER_SECONDS if has_no_models else DRAIN_SECONDS + 10)
    while triton.process.poll() is None and time.monotonic() < deadline:
        log.follow()
        # All requests are answered. To unload would take seconds more, and would never end if a model process died.
        if log.has("All models are stopped"):
            time.sleep(0.5)
            break
        time.sleep(POLL_SECONDS)


def drain(view: View, api: Api, http_port: int) -> bool:
    """Wait until the pipelines have answered what they accepted. Return whether no model is loaded any more.

    A Triton that is ending accepts no request for any model, not even from a pipeline that has done half of its steps.
    So the pipelines are unloaded before it is asked to end.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    is_drained = unload(view.pipelines, api, deadline)
    # An ending Triton waits for open HTTP connections, even idle ones, which only their owners can close. It does not
    # if no model is loaded. Without open connections, unloading the other models would only take time.
    return is_drained and has_connections(http_port) and unload(view.models, api, deadline)


def unload(models: Collection[str], api: Api, deadline: float) -> bool:
    """Unload models, and wait until they have answered what they accepted. Return whether they have."""
    try:
        for model in models:
            api.unload(model)
        while api.is_unloading(models):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
    except FAILURES as error:
        report(f"could not unload {', '.join(models)}: {error}")
        return False
    return True


def has_connections(port: int) -> bool:
    """Whether a client is connected to a TCP port of this machine."""
    tables = [table.read_text() for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    established = rf"^ *\d+: \w+:{port:04X} \w+:\w+ 01 "
    return any(re.search(established, table, re.MULTILINE) for table in tables)
