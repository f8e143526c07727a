"""The files of a load run: a folder that people and the report can read.

    build/bench/steps/run.json        how the run was made: Run
    build/bench/steps/requests.csv    one line a request, with the fields of Request as columns
    build/bench/steps/server.json     Triton's metrics before and after the run: benchmarks.truth

A run of several processes or machines has one requests-*.csv for each of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

OK, MISSED, LATE, REFUSED = "ok", "missed", "DEADLINE_EXCEEDED", "UNAVAILABLE"
"""Outcomes of a request. Other outcomes are the names of other gRPC status codes."""
GROUNDED = ("product_image", "ground")
"""Pipelines that look for a product and fall back to the whole image."""


class Request(NamedTuple):
    """A request as its sender saw it. Times are seconds of the Unix clock."""

    scheduled: float
    """When it was due. Latency counts from here. In a closed loop this is when it was sent."""
    sent: float | None
    """None if the load generator could not send it in time; the outcome is then ``missed``."""
    done: float | None
    user: str
    """The client that sent it: ``vlclip`` or ``tritonclient``."""
    pipeline: str
    items: int
    outcome: str
    """``ok``, ``missed``, or the name of the gRPC status: UNAVAILABLE, DEADLINE_EXCEEDED, …"""
    fallbacks: int = 0
    """Items that were embedded whole because no box reached the threshold."""
    refused: int = 0
    """Items whose status says that they are not an image or exceed a limit."""


SCHEMA = {
    **dict.fromkeys(("scheduled", "sent", "done"), pl.Float64()),
    "user": pl.String(),
    "pipeline": pl.String(),
    "items": pl.Int64(),
    "outcome": pl.String(),
    "fallbacks": pl.Int64(),
    "refused": pl.Int64(),
}


@dataclass(frozen=True)
class Run:
    """How a run was made."""

    name: str
    loop: str
    """``open`` (a schedule) or ``closed`` (users who wait for an answer before they send again)."""
    shape: str
    """``steady``, ``steps``, ``spike``, ``soak`` or ``overload``."""
    started: float
    seconds: float
    steps: Sequence[tuple[float, float]]
    """(second from the start, requests a second) of an open loop, (second, users) of a closed one."""
    command: str
    target: str
    machine: dict[str, str]
    versions: dict[str, str]
    slos: Sequence[dict[str, Any]] = field(default=())
    """Each with ``slo``, ``measured`` and ``held``."""
    warm_up: float = 0.0
    """Seconds of load before ``started``. Their requests are not recorded."""
    generator_cores: float = 0.0
    """Cores that the load generator used. On the server's own machine, the server did not have them."""


def frame(requests: Iterable[Sequence[Any]]) -> pl.DataFrame:
    """Requests as a data frame with the columns of SCHEMA."""
    return pl.DataFrame(list(requests), SCHEMA, orient="row")


def write_run(folder: Path, run: Run) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(asdict(run), indent=2) + "\n")


def read_run(folder: Path) -> Run:
    values = json.loads((folder / "run.json").read_text())
    return Run(**{**values, "steps": [(at, rate) for at, rate in values["steps"]]})


def read_requests(folder: Path) -> pl.DataFrame:
    """The requests of all processes, in the order in which they were due."""
    files = [pl.read_csv(file, schema=SCHEMA) for file in folder.glob("requests*.csv")]
    return pl.concat([frame([]), *files]).sort("scheduled")
