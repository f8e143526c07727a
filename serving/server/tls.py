"""Encryption of what reaches the server from other machines.

Triton encrypts gRPC by itself. It has no HTTPS, so with a certificate its HTTP listens on the loopback alone, and a
relay here takes HTTPS for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SetupError

LOOPBACK = "127.0.0.1"
HANDSHAKE_SECONDS = 10.0
CHUNK_BYTES = 256 << 10


@dataclass(frozen=True)
class Tls:
    """PEM files, read when the server starts. With ``client_ca``, only clients whose certificate it signed are heard.

    `python -m deploy.certificates` writes all of them.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTPS. Raises SetupError for files that are missing or do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.client_ca)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.certificate, self.key, self.client_ca) if file)
            raise SetupError(f"no TLS with {files}: {error}; `python -m deploy.certificates` makes some") from error
        return context

    def options(self) -> list[str]:
        """For tritonserver's gRPC."""
        return [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate}",
            f"--grpc-server-key={self.key}",
            *(["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca}"] if self.client_ca else []),
        ]


class Relay:
    """Takes TLS connections on ``host:port`` and passes what they carry to a port of the loopback, until closed."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, target: int):
        """Raises OSError if the port is taken."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        listening = asyncio.start_server(
            self._pass_on, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        try:
            self._server = self._loop.run_until_complete(listening)
        except OSError:
            self._loop.close()
            raise
        # Strangers who scan the port fail at the handshake, which is no news.
        self._loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let no connection in any more, and end those that are there."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers, directions = [writer], list[asyncio.Task[None]]()
        try:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self._target)
            writers.append(inner_writer)
            directions = [
                asyncio.create_task(pump(reader, inner_writer)),
                asyncio.create_task(pump(inner_reader, writer)),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # Triton is being started anew
        except asyncio.CancelledError:
            for one in writers:
                one.transport.abort()
        finally:
            for direction in directions:
                direction.cancel()
            for one in writers:
                one.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, no faster than the other side takes it."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
