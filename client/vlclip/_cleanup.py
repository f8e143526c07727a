"""The helper process of ``_memory``: unregisters and removes the shared memory of a client that was killed.

It waits until its pipe to the client is closed. It imports nothing until then, so it needs little memory.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from contextlib import suppress
from typing import Any

CLOSED = b"closed"
GRACE_SECONDS = 3.0
"""The server may still read the last request. Unmapping the region while it reads could crash it."""


def unregistration(kind: str, name: str) -> tuple[str, Any]:
    """The RPC that unregisters a region at the server, and its request."""
    from tritonclient.grpc import service_pb2

    if kind == "system":
        return "SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    return "CudaSharedMemoryUnregister", service_pb2.CudaSharedMemoryUnregisterRequest(name=name)


def main() -> None:
    client = json.loads(sys.stdin.buffer.readline() or b"null")
    connection = sys.stdin.buffer.read()  # returns when the client's end is closed
    if client is None or connection.endswith(CLOSED):
        return
    if client["kind"] == "system":
        with suppress(FileNotFoundError):
            os.unlink(f"/dev/shm/{client['name']}")
    time.sleep(GRACE_SECONDS)

    import grpc
    from tritonclient.grpc import service_pb2_grpc

    server = pickle.loads(connection)
    if server["tls"]:
        channel = grpc.secure_channel(server["target"], server["tls"].credentials(), server["options"])
    else:
        channel = grpc.insecure_channel(server["target"], server["options"])
    method, request = unregistration(client["kind"], client["name"])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    getattr(stub, method)(request, timeout=5, metadata=server["metadata"])


if __name__ == "__main__":
    main()
