"""What stands between a client and a server on a bad day."""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
from tritonclient.grpc import service_pb2_grpc


class TcpProxy:
    """Passes bytes to and fro; cuts connections, stalls them, or slows them down.

    Connections are cut with a reset, as when a host vanishes.
    """

    def __init__(self, upstream: str) -> None:
        host, port = upstream.rsplit(":", 1)
        self.upstream = (host, int(port))
        self.stalled = False
        self.delay = 0.0
        """Seconds before each piece of an answer is passed on."""
        self.cut_after: int | None = None
        """Bytes that a connection answers before it is cut."""
        self.connections = 0
        self.sent = 0
        """Bytes from clients."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection that is open."""
        with self._lock:
            victims = list(self._open)
        for victim in victims:
            self._reset(victim)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self.upstream)
        except OSError:
            self._reset(client)
            return
        with self._lock:
            self._open |= {client, server}
        answered = 0
        watch = selectors.DefaultSelector()
        try:
            watch.register(client, selectors.EVENT_READ, server)
            watch.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in watch.select(timeout=1):
                    while self.stalled:
                        time.sleep(0.01)
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is client:
                        self.sent += len(data)
                    else:
                        time.sleep(self.delay)
                        answered += len(data)
                        if self.cut_after is not None and answered > self.cut_after:
                            return
                    key.data.sendall(data)
        except (OSError, ValueError):
            return
        finally:
            watch.close()
            with self._lock:
                self._open -= {client, server}
            self._reset(client)
            self._reset(server)

    @staticmethod
    def _reset(victim: socket.socket) -> None:
        with suppress(OSError):
            victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            victim.shutdown(socket.SHUT_RDWR)
        victim.close()


class Moody(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A gRPC server before another one, which refuses a share of the requests, some before and some after the work."""

    def __init__(self, upstream: str, unavailable: float, seed: int = 0) -> None:
        self.unavailable = unavailable
        self.refused = self.passed = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(upstream)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._server = grpc.server(ThreadPoolExecutor(16))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ModelConfig(self, request, context):
        return self._stub.ModelConfig(request)

    def ModelInfer(self, request, context):
        with self._lock:
            mood = self._random.random() / self.unavailable if self.unavailable else 1.0
            if mood < 1:
                self.refused += 1
            else:
                self.passed += 1
        if mood < 0.5:
            context.abort(grpc.StatusCode.UNAVAILABLE, "in a mood")
        response = self._stub.ModelInfer(request, timeout=context.time_remaining())
        if mood < 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "in a mood, after all the work")
        return response

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()
