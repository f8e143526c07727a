"""Faults between a client and a server: a TCP proxy, and a gRPC server that refuses requests."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


class TcpProxy:
    """Forwards bytes; resets connections, stalls them, or slows them down."""

    def __init__(self, upstream: str) -> None:
        host, port = upstream.rsplit(":", 1)
        self.upstream = (host, int(port))
        self.delay = 0.0
        """Seconds before each part of a response is forwarded."""
        self.cut_after: int | None = None
        """Bytes of responses after which a connection is reset."""
        self.refuse_connections = 0
        """The number of connections that are reset at once."""
        self.connections = 0
        self.sent = 0
        """Bytes from clients."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Forwards nothing more, until the proxy is closed."""
        self._flowing.clear()

    def reset(self) -> None:
        """Resets every open connection."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            self._reset(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refuse_connections > 0:
            self.refuse_connections -= 1
            self._reset(client)
            return
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
                    self._flowing.wait()
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
    def _reset(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def add_rpcs(servicer: object, server: Any) -> None:
    """Adds the RPCs of KServe v2 for which ``servicer`` has a method of the same name."""
    requests = {
        name.removesuffix("Request"): getattr(service_pb2, name)
        for name in vars(service_pb2)
        if name.endswith("Request")
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name), request.FromString, lambda response: response.SerializeToString()
        )
        for name, request in requests.items()
        if hasattr(servicer, name)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])


class RefusingServer:
    """Forwards requests to a server, but refuses every third one: in turn before and after the server has answered."""

    def __init__(self, upstream: str) -> None:
        self.received = self.refused = 0
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(upstream)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._server = grpc.server(ThreadPoolExecutor(16))
        add_rpcs(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ModelConfig(self, request: Any, context: Any) -> Any:
        return self._stub.ModelConfig(request)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        with self._lock:
            self.received += 1
            number = self.received
            self.refused += number % 3 == 0
        if number % 6 == 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "refused")
        response = self._stub.ModelInfer(request, timeout=context.time_remaining())
        if number % 6 == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "refused after the answer")
        return response

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()
