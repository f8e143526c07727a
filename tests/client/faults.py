"""A proxy between a client and a server, which ends connections and counts what clients send."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Forwards bytes. A connection ends after ``cut_after`` bytes of responses."""

    def __init__(self, upstream: str, cut_after: float = math.inf) -> None:
        host, port = upstream.rsplit(":", 1)
        self._upstream = host, int(port)
        self._cut_after = cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.sent = 0
        """Bytes from clients."""

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            responses = threading.Thread(target=self._forward, args=(server, client))
            responses.start()
            self._forward(client, server)
            responses.join()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        is_response = source.getpeername() == self._upstream
        answered = 0
        with suppress(OSError):
            while answered <= self._cut_after and (data := source.recv(65536)):
                if is_response:
                    answered += len(data)
                else:
                    self.sent += len(data)
                sink.sendall(data)
        for connection in (source, sink):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """The address of a server that sends ``content`` on each connection and closes it, whatever it is asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(content)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        listener.close()
        thread.join()
