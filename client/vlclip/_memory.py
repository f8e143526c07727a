"""Memory that the client and a server on the same host both see: batches lie there instead of travelling by gRPC.

One region a client, cut into slots. What does not fit travels as usual. If the client ends without a word, a helper
process (``_warden``) takes the region back from the server and removes the file.
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

from vlclip import _warden
from vlclip._connection import Endpoint
from vlclip.errors import InvalidInputError

Kind = Literal["system", "cuda"]
FOLDER = Path("/dev/shm")
REGION_BYTES = 64 << 20
QUARANTINE_SECONDS = 60.0
"""A request that was given up may still be read by the server: until then nothing else is written to its slot."""


@dataclass(frozen=True, order=True)
class Slot:
    offset: int
    size: int


class Store(Protocol):
    """Where the bytes are."""

    def write(self, offset: int, parts: Sequence[bytes]) -> None: ...
    def register(self, stub: Any, name: str) -> tuple[Any, Any]: ...
    def close(self) -> None: ...


class SystemStore:
    """A file in ``/dev/shm``."""

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

    def register(self, stub: Any, name: str) -> tuple[Any, Any]:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=self.size)
        return stub.SystemSharedMemoryRegister, request

    def close(self) -> None:
        self._map.close()
        self.path.unlink(missing_ok=True)


class CudaStore:
    """Memory of the first GPU. Written against CUDA's documentation; it was not run yet, for want of a GPU."""

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

    def register(self, stub: Any, name: str) -> tuple[Any, Any]:
        handle = bytes(self._handle.reserved)
        request = service_pb2.CudaSharedMemoryRegisterRequest(
            name=name, raw_handle=handle, device_id=0, byte_size=self.size
        )
        return stub.CudaSharedMemoryRegister, request

    def close(self) -> None:
        self._checked(self._cuda.cudaFree(self._pointer))

    def _checked(self, came: tuple[Any, ...]) -> Any:
        """The value of a call to CUDA, whose first result is its error."""
        error, *values = came
        if int(error):
            raise InvalidInputError(f'shared_memory="cuda": {error.name}: is there a GPU that this process may use?')
        return values[0] if values else None


class SharedMemory:
    """A client's region; its threads share it."""

    def __init__(self, kind: Kind, size: int = REGION_BYTES) -> None:
        if kind not in ("system", "cuda"):
            raise InvalidInputError(f'shared_memory: expected "system" or "cuda", got {kind!r}')
        self.kind = kind
        self.name = f"vlclip-{os.getpid()}-{os.urandom(4).hex()}"
        self.registered = False
        self._store: Store = SystemStore(self.name, size) if kind == "system" else CudaStore(self.name, size)
        self._size = size
        self._free = [Slot(0, size)]
        self._quarantine: list[tuple[float, Slot]] = []
        self._lock = threading.Lock()
        self._warden: subprocess.Popen[bytes] | None = None

    def put(self, parts: Sequence[bytes]) -> Slot | None:
        """Writes the parts one after the other, if there is a place for them."""
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
        """Whether no request that is on its way, or was given up, may still read the region."""
        with self._lock:
            return self._free == [Slot(0, self._size)]

    def release(self, slot: Slot, answered: bool) -> None:
        with self._lock:
            if answered:
                self._give_back(slot)
            else:
                self._quarantine.append((time.monotonic() + QUARANTINE_SECONDS, slot))

    def register(self, stub: Any) -> tuple[Any, Any]:
        """The method and the request that tell the server of the region."""
        return self._store.register(stub, self.name)

    def unregister(self, stub: Any) -> tuple[Any, Any]:
        """The method and the request that take the region back from the server."""
        return _warden.unregister(stub, self.kind, self.name)

    def watch(self, endpoint: Endpoint, metadata: list[tuple[str, str]]) -> None:
        """Starts the helper process."""
        with self._lock:
            if self._warden is not None:
                return
            self._warden = subprocess.Popen(
                [sys.executable, "-I", _warden.__file__],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._tell(json.dumps({"path": sys.path, "kind": self.kind, "name": self.name}).encode() + b"\n")
            how = {"target": endpoint.target, "options": endpoint.options, "tls": endpoint.tls, "metadata": metadata}
            self._tell(pickle.dumps(how))

    def _tell(self, what: bytes) -> None:
        assert self._warden
        assert self._warden.stdin
        with suppress(BrokenPipeError):
            self._warden.stdin.write(what)
            self._warden.stdin.flush()

    def close(self, unregistered: bool) -> None:
        """Removes the file; what the server has still mapped is left to the helper process."""
        self._store.close()
        if self._warden is None:
            return
        if unregistered:
            self._tell(_warden.BYE)
            self._warden.communicate()
        else:
            assert self._warden.stdin
            self._warden.stdin.close()
            self._warden.returncode = 0  # it is on its own; nobody waits for it

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
