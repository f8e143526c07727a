"""The processes in which Triton's Python models run ("stubs"), and the shared memory that they talk through.

A server gives all its shared memory one prefix of its own, which is also on every stub's command line:

    triton_python_backend_stub <repository>/<model>/<version>/<file> <shared memory> ... <instance> ...

So they can be told from those of any other server, and whatever a killed one leaves behind can be removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
KILL_SECONDS = 10.0
"""More than a busy machine takes to end a killed process."""


@dataclass(frozen=True)
class Stub:
    """The process of one instance of a model, and the name of its shared memory."""

    pid: int
    model: str
    version: int
    region: str


def find_stubs(prefix: str) -> list[Stub]:
    """All living stubs whose shared memory starts with ``prefix``."""
    found = []
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if len(arguments) > 2 and arguments[2].startswith(prefix):
            version = Path(arguments[1]).parent
            found.append(Stub(int(folder.name), version.parent.name, int(version.name), arguments[2]))
    return found


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than an entry that waits for its parent."""
    try:
        state = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_stubs(prefix: str) -> None:
    """Kill what is left of a server's stubs, and remove their shared memory."""
    stubs = find_stubs(prefix)
    for stub in stubs:
        kill(stub.pid)
    deadline = time.monotonic() + KILL_SECONDS
    while any(is_alive(stub.pid) for stub in stubs) and time.monotonic() < deadline:
        time.sleep(0.01)
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
