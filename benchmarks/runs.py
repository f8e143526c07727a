"""What a load run leaves behind: a folder of files that people and the report can read.

    build/bench/steps/run.json        how it was made: Run
    build/bench/steps/requests.csv    one line a request: Request, whose fields are the columns
    build/bench/steps/server.json     Triton's statistics and metrics around it: see benchmarks.truth

A run spread over several processes or machines has a requests-*.csv of each, which are read as one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

OK, MISSED = "ok", "missed"


@dataclass(frozen=True)
class Request:
    """A request as its sender saw it; times in seconds of the Unix clock."""

    scheduled: float
    """When it was to be sent. Latency counts from here; in a closed loop it is when it was sent."""
    sent: float | None
    """None for one that the load generator could not send in time, whose outcome is ``missed``."""
    done: float | None
    user: str
    """What sent it: ``vlclip`` or ``tritonclient``."""
    pipeline: str
    items: int
    outcome: str
    """``ok``, ``missed``, or the name of what the server answered: UNAVAILABLE, DEADLINE_EXCEEDED, …"""
    fallbacks: int = 0
    """Items that were embedded whole because no box reached the threshold."""
    refused: int = 0
    """Items with a status that says that they are no image, or over a limit."""

    @property
    def latency(self) -> float | None:
        """Seconds from the scheduled sending to the answer, or None where there was none."""
        return None if self.done is None else self.done - self.scheduled


@dataclass(frozen=True)
class Run:
    """How a run was made."""

    name: str
    loop: str
    """``open`` (a schedule drawn ahead) or ``closed`` (users who wait for an answer before they ask again)."""
    shape: str
    """``steady``, ``steps``, ``spike`` or ``soak``."""
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
    """Seconds of load before ``started``, which are not among the requests."""
    generator_cores: float = 0.0
    """Cores that the load generator kept busy itself: on the server's own machine, the server did not have them."""


def write_run(folder: Path, run: Run) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(asdict(run), indent=2) + "\n")


def read_run(folder: Path) -> Run:
    values = json.loads((folder / "run.json").read_text())
    return Run(**{**values, "steps": [(at, rate) for at, rate in values["steps"]]})


def write_requests(file: Path, requests: Iterable[Request]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow([column.name for column in fields(Request)])
        rows.writerows(["" if value is None else value for value in asdict(request).values()] for request in requests)


def read_requests(folder: Path) -> list[Request]:
    """Those of all files, in the order in which they were to be sent."""
    requests = []
    for file in folder.glob("requests*.csv"):
        with file.open(newline="") as table:
            requests += [_request(row) for row in csv.DictReader(table)]
    return sorted(requests, key=lambda request: request.scheduled)


def _request(row: dict[str, str]) -> Request:
    sent, done = (float(row[name]) if row[name] else None for name in ("sent", "done"))
    return Request(
        float(row["scheduled"]),
        sent,
        done,
        row["user"],
        row["pipeline"],
        int(row["items"]),
        row["outcome"],
        int(row["fallbacks"]),
        int(row["refused"]),
    )
