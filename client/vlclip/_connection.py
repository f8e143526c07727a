"""Where the servers are and how to speak with them, without I/O but for names and key files: arguments of channels."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from vlclip.errors import InvalidInputError, UnavailableError

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),
    # Triton hangs up on a client that pings more often than every 300 s; and only with keepalive switched on
    # does the kernel give up a connection whose peer acknowledges nothing (after keepalive_timeout).
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Find a restarted server soon: gRPC's own waits grow from 1 to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A name that serves more or fewer addresses than before is noticed when a connection ends, at most this late.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # Each client has its own connections: closing one never touches another's.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class TLS:
    """PEM files, or their content.

    TLS()                                      servers that the system's authorities vouch for
    TLS(ca="ca.pem")                           that yours does
    TLS(ca="ca.pem", certificate="me.pem", key="me.key")   mutual TLS
    TLS(ca="ca.pem", server_name="vlclip")     whose certificate is for another name than the address
    """

    ca: str | os.PathLike[str] | bytes | None = None
    certificate: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInputError("tls: a certificate and its key go together, got only one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        ca, key, certificate = (_pem(value) for value in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _pem(given: str | os.PathLike[str] | bytes | None) -> bytes | None:
    return given if given is None or isinstance(given, bytes) else Path(given).read_bytes()


@dataclass(frozen=True)
class Endpoint:
    """What both kinds of channel are made of."""

    label: str
    target: str
    tls: TLS | None
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    compression: grpc.Compression
    several: bool


def endpoint(address: str | Sequence[str], tls: bool | TLS, compression: bool, connect: float) -> Endpoint:
    """One address is left to gRPC, which asks for its name again when connections end; several are looked up here."""
    tls = TLS() if tls is True else tls
    addresses = [address] if isinstance(address, str) else list(address)
    if not addresses:
        raise InvalidInputError("address: expected one or more, got none")
    for one in addresses:
        _check(one)
    # gRPC gives up a host that stays silent after the larger of its two waits, by default 20 s.
    options: tuple[tuple[str, Any], ...] = (*OPTIONS, ("grpc.min_reconnect_backoff_ms", math.ceil(connect * 1e3)))
    target = addresses[0] if len(addresses) == 1 else _several(addresses)
    server_name = tls.server_name if tls else None
    if tls and len(addresses) > 1:
        server_name = server_name or _host_port(addresses[0])[0]
    if server_name:
        options += (("grpc.ssl_target_name_override", server_name), ("grpc.default_authority", server_name))
    return Endpoint(
        label=", ".join(addresses),
        target=target,
        tls=tls or None,
        credentials=tls.credentials() if tls else None,
        options=options,
        compression=grpc.Compression.Gzip if compression else grpc.Compression.NoCompression,
        several=len(addresses) > 1,
    )


def _check(address: str) -> None:
    if "://" in address and address.split("://")[0] in ("http", "https", "grpc", "grpcs"):
        raise InvalidInputError(
            f'address: expected "host:port" of the gRPC endpoint, got "{address}". Leave out the scheme, '
            "and pass tls=True for an encrypted connection"
        )


def _host_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInputError(f'address: expected "host:port" where there are several, got "{address}"')
    return host.strip("[]"), port


def _several(addresses: Sequence[str]) -> str:
    """A target of gRPC's for fixed addresses; names are looked up once."""
    found: list[tuple[int, str]] = []
    for address in addresses:
        host, port = _host_port(address)
        try:
            known = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as exc:
            raise UnavailableError(f'address: "{host}" has no IP address ({exc}). Correct the name') from exc
        found += [(family, _spelled(family, place)) for family, _, _, _, place in known]
    family = socket.AF_INET if any(kind == socket.AF_INET for kind, _ in found) else socket.AF_INET6
    scheme = "ipv4" if family == socket.AF_INET else "ipv6"
    return f"{scheme}:" + ",".join(dict.fromkeys(place for kind, place in found if kind == family))


def _spelled(family: int, place: Any) -> str:
    return f"{place[0]}:{place[1]}" if family == socket.AF_INET else f"[{place[0]}]:{place[1]}"


def with_key(headers: Headers | None) -> Headers | None:
    """With the key to shared memory that the environment tells, for a server that asks for one."""
    key = os.environ.get("VLCLIP_SHARED_MEMORY_KEY")
    if not key:
        return headers
    name = "triton-grpc-protocol-shared-memory-key"
    return lambda: {name: key, **(headers() if callable(headers) else headers or {})}


def metadata(headers: Headers | None) -> list[tuple[str, str]]:
    """gRPC's form of headers, whose names are lower case."""
    given = headers() if callable(headers) else headers or {}
    return [(name.lower(), value) for name, value in given.items()]
