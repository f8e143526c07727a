"""The helper process of ``_memory``: cleans up after a client that ended without doing so.

It waits on a pipe from the client. Until that is closed it imports nothing, and so costs next to nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from contextlib import suppress
from typing import Any

BYE = b"bye"
GRACE_SECONDS = 3.0
"""The server may be reading what the client wrote last; a region that is taken back under its hands could crash it."""


def unregister(stub: Any, kind: str, name: str) -> tuple[Any, Any]:
    from tritonclient.grpc import service_pb2

    if kind == "system":
        return stub.SystemSharedMemoryUnregister, service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    return stub.CudaSharedMemoryUnregister, service_pb2.CudaSharedMemoryUnregisterRequest(name=name)


def main() -> None:
    client = json.loads(sys.stdin.buffer.readline() or b"null")
    server = sys.stdin.buffer.read()  # and waits until the other end is closed
    if client is None or server.endswith(BYE):
        return
    if client["kind"] == "system":
        with suppress(FileNotFoundError):
            os.unlink(f"/dev/shm/{client['name']}")
    time.sleep(GRACE_SECONDS)
    sys.path[:] = client["path"]

    import grpc
    from tritonclient.grpc import service_pb2_grpc

    how = pickle.loads(server)
    if how["tls"]:
        channel = grpc.secure_channel(how["target"], how["tls"].credentials(), how["options"])
    else:
        channel = grpc.insecure_channel(how["target"], how["options"])
    method, request = unregister(service_pb2_grpc.GRPCInferenceServiceStub(channel), client["kind"], client["name"])
    method(request, timeout=5, metadata=how["metadata"])


if __name__ == "__main__":
    main()
