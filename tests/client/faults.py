"""Faults on the network between a client and a server."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress


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
