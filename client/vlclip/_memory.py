"""Shared memory between a client and a server on the same host: requests refer to it instead of carrying the items.

A client has one region in each process, which is divided into slots. A batch that does not fit into a free slot is
sent over gRPC. If the client is killed, a helper process (``_cleanup``) unregisters the region at the server and
removes the file.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import subprocess
import sys
import threading
import time
from bisect import insort
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tritonclient.grpc import service_pb2

from vlclip import _cleanup
from vlclip._connection import Endpoint
from vlclip.errors import InvalidInputError

Kind = Literal["system", "cuda"]
FOLDER = Path("/dev/shm")
REGION_BYTES = 64 << 20
QUARANTINE_SECONDS = 60.0
"""Seconds before the slot of a request without an answer is used again, since the server may still read it."""


@dataclass(frozen=True, order=True)
class Slot:
    """A part of the region, in bytes."""

    offset: int
    size: int


class Store(Protocol):
    """The memory of a region."""

    def write(self, offset: int, parts: Sequence[bytes]) -> None: ...
    def registration(self, name: str) -> tuple[str, Any]: ...
    def close(self) -> None: ...


class SystemStore:
    """A file in ``/dev/shm``, for ``shared_memory="system"``."""

    def __init__(self, name: str, size: int) -> None:
        self.path, self.size = FOLDER / name, size
        file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # a full /dev/shm is an error here, not a crash later
            self._map = mmap.mmap(file, size)
        except BaseException:
            self.path.unlink()
            raise
        finally:
            os.close(file)

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        for part in parts:
            self._map[offset : offset + len(part)] = part
            offset += len(part)

    def registration(self, name: str) -> tuple[str, Any]:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=self.size)
        return "SystemSharedMemoryRegister", request

    def close(self) -> None:
        self._map.close()
        self.path.unlink(missing_ok=True)


class CudaStore:
    """Memory of the first GPU, for ``shared_memory="cuda"``. Not tested on a GPU yet."""

    def __init__(self, name: str, size: int) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as exc:
            raise InvalidInputError(
                'shared_memory="cuda" needs the package cuda-python: `pip install cuda-python`'
            ) from exc
        self._cuda, self.size = runtime, size
        self._checked(runtime.cudaSetDevice(0))
        self._pointer = int(self._checked(runtime.cudaMalloc(size)))
        self._handle = self._checked(runtime.cudaIpcGetMemHandle(self._pointer))

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        content = b"".join(parts)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self._cuda.cudaMemcpy(self._pointer + offset, content, len(content), kind))

    def registration(self, name: str) -> tuple[str, Any]:
        handle = bytes(self._handle.reserved)
        request = service_pb2.CudaSharedMemoryRegisterRequest(
            name=name, raw_handle=handle, device_id=0, byte_size=self.size
        )
        return "CudaSharedMemoryRegister", request

    def close(self) -> None:
        self._checked(self._cuda.cudaFree(self._pointer))

    def _checked(self, results: tuple[Any, ...]) -> Any:
        """The value that a CUDA function returned after its error code."""
        error, *values = results
        if int(error):
            raise InvalidInputError(f'shared_memory="cuda": expected a GPU that this process can use, got {error.name}')
        return values[0] if values else None


class SharedMemory:
    """The region of one client. Threads may share it."""

    def __init__(self, kind: Kind, size: int = REGION_BYTES) -> None:
        if kind not in ("system", "cuda"):
            raise InvalidInputError(f'expected "system" or "cuda", got {kind!r}', argument="shared_memory")
        self.kind = kind
        self.name = f"vlclip-{os.getpid()}-{os.urandom(4).hex()}"
        self.registered = False
        self._store: Store = SystemStore(self.name, size) if kind == "system" else CudaStore(self.name, size)
        self._size = size
        self._free = [Slot(0, size)]
        self._quarantine: list[tuple[float, Slot]] = []
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None

    def put(self, parts: Sequence[bytes]) -> Slot | None:
        """Writes the parts one after the other. Returns their slot, or ``None`` if no free slot is large enough."""
        size = max(1, sum(map(len, parts)))
        with self._lock:
            slot = self._claim(size)
        if slot is not None:
            try:
                self._store.write(slot.offset, parts)
            except ValueError:  # closed in the meantime
                return None
        return slot

    @property
    def idle(self) -> bool:
        """Whether the server can no longer read any request in the region."""
        with self._lock:
            return self._free == [Slot(0, self._size)]

    def release(self, slot: Slot, answered: bool) -> None:
        """Makes a slot free again: at once if its request was answered, else after ``QUARANTINE_SECONDS``."""
        with self._lock:
            if answered:
                self._give_back(slot)
            else:
                self._quarantine.append((time.monotonic() + QUARANTINE_SECONDS, slot))

    def registration(self) -> tuple[str, Any]:
        """The RPC that registers the region at the server, and its request."""
        return self._store.registration(self.name)

    def unregistration(self) -> tuple[str, Any]:
        """The RPC that unregisters the region at the server, and its request."""
        return _cleanup.unregistration(self.kind, self.name)

    def watch(self, endpoint: Endpoint, metadata: list[tuple[str, str]]) -> None:
        """Starts the helper process, which cleans up if this process is killed."""
        with self._lock:
            if self._helper is not None:
                return
            # By its path, since `-m` would import the whole client. In "/", so that no folder is held or searched.
            program = f"import runpy; runpy.run_path({_cleanup.__file__!r}, run_name='__main__')"
            self._helper = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                bufsize=0,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
            client = {"kind": self.kind, "name": self.name}
            server = {"target": endpoint.target, "options": endpoint.options, "tls": endpoint.tls, "metadata": metadata}
            self._write_to(self._helper, json.dumps(client).encode() + b"\n" + pickle.dumps(server))

    @staticmethod
    def _write_to(process: subprocess.Popen[bytes], message: bytes) -> None:
        assert process.stdin
        with suppress(BrokenPipeError):
            process.stdin.write(message)

    def close(self, unregistered: bool) -> None:
        """Removes the file. The helper process unregisters the region later if the server may still read it."""
        self._store.close()
        if self._helper is None:
            return
        if unregistered:
            self._write_to(self._helper, _cleanup.CLOSED)
            self._helper.communicate()
        else:
            assert self._helper.stdin
            self._helper.stdin.close()
            self._helper.returncode = 0  # it outlives this process, so nothing waits for it

    def leave_to_parent(self) -> None:
        """Closes, in a child process, what would keep the helper process waiting after the parent's end."""
        if self._helper is not None:
            assert self._helper.stdin
            self._helper.stdin.close()
            self._helper.returncode = 0  # it is no child of this process, so nothing waits for it

    def _claim(self, size: int) -> Slot | None:
        now = time.monotonic()
        while self._quarantine and self._quarantine[0][0] < now:
            self._give_back(self._quarantine.pop(0)[1])
        for place, slot in enumerate(self._free):
            if slot.size >= size:
                del self._free[place]
                if slot.size > size:
                    insort(self._free, Slot(slot.offset + size, slot.size - size))
                return Slot(slot.offset, size)
        return None

    def _give_back(self, slot: Slot) -> None:
        insort(self._free, slot)
        merged: list[Slot] = []
        for one in self._free:
            if merged and merged[-1].offset + merged[-1].size == one.offset:
                merged[-1] = Slot(merged[-1].offset, merged[-1].size + one.size)
            else:
                merged.append(one)
        self._free = merged
