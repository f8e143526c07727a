"""The processes in which Triton's Python models run ("stubs"), and the shared memory by which they talk to Triton.

Each instance of a model has one. All shared memory of a server has one prefix, which is also on the command line of
every stub:

    triton_python_backend_stub <repository>/<model>/<version>/<file> <shared memory> ... <instance> ...

The prefix tells the stubs of one server from those of others, and shows which shared memory a killed one left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from serving.repository.manifest import Manifest
from serving.server.limits import DRAIN_SECONDS, KILL_SECONDS

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Stub:
    """The process of one instance of a model. ``region`` is the name of its shared memory."""

    pid: int
    model: str
    version: int
    region: str

    def remove_region(self) -> None:
        (SHARED_MEMORY / self.region).unlink(missing_ok=True)


class Stubs:
    """The stubs of a running Triton: those to watch, and those that others have replaced."""

    def __init__(self, shm_prefix: str):
        self._prefix = shm_prefix
        self.reset()

    def reset(self) -> None:
        """Watch all stubs of a Triton that has just started."""
        self._watched = {stub.pid: stub for stub in find_stubs(self._prefix)}
        self._replaced_at: dict[int, float] = {}

    @property
    def watched(self) -> list[Stub]:
        return list(self._watched.values())

    def find_dead(self) -> list[Stub]:
        return [stub for stub in self.watched if not is_alive(stub.pid)]

    def update(self, manifest: Manifest | None) -> None:
        """Watch the new stubs after models were loaded, and no longer those that were replaced or have another version.

        The replaced stubs finish their requests, and end by themselves or in :meth:`end_replaced`.
        """
        known = self._watched.keys() | self._replaced_at.keys()
        new = {stub.pid: stub for stub in find_stubs(self._prefix) if stub.pid not in known}
        renewed = {(stub.model, stub.version) for stub in new.values()}

        def is_outdated(stub: Stub) -> bool:
            return manifest is not None and stub.model in manifest.leaves and stub.version != manifest.version

        replaced = {pid for pid, stub in self._watched.items() if (stub.model, stub.version) in renewed}
        replaced |= {pid for pid, stub in (self._watched | new).items() if is_outdated(stub)}
        self._replaced_at.update(dict.fromkeys(replaced, time.monotonic()))
        self._watched = {pid: stub for pid, stub in (self._watched | new).items() if pid not in replaced}

    def end_replaced(self) -> None:
        """Kill replaced stubs that have had DRAIN_SECONDS to finish their requests.

        Triton would end them itself, but if another stub of the model died, it waits for that one forever.
        """
        due = {pid for pid, since in self._replaced_at.items() if time.monotonic() - since > DRAIN_SECONDS}
        # Look the stubs up again, because the kernel may have given a pid to another process.
        for stub in find_stubs(self._prefix) if due else ():
            if stub.pid in due:
                kill(stub.pid)
                stub.remove_region()
        for pid in due:
            del self._replaced_at[pid]


def find_stubs(prefix: str) -> list[Stub]:
    """All running stubs whose shared memory starts with ``prefix``."""
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
    """Whether the process exists and is not a zombie."""
    try:
        state = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_stubs(prefix: str) -> None:
    """Kill a server's remaining stubs, and remove their shared memory."""
    stubs = find_stubs(prefix)
    for stub in stubs:
        kill(stub.pid)
    deadline = time.monotonic() + KILL_SECONDS
    while any(is_alive(stub.pid) for stub in stubs) and time.monotonic() < deadline:
        time.sleep(0.01)
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
