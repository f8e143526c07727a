"""Addresses, TLS and headers: the arguments of gRPC channels. The only I/O is to resolve names and read PEM files."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from vlclip.errors import InvalidInputError, UnavailableError

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

EXPECTED = 'expected "host:port" of the gRPC endpoint, such as "localhost:8001"'
PLACE = re.compile(r"(\[[^\[\]\s]+\]|[^\s:/@,?#\[\]]+):[0-9]{1,5}")
RESOLVED_SCHEMES = ("dns", "ipv4", "ipv6")
UNCHECKED_SCHEMES = ("unix", "unix-abstract", "vsock", "xds")
"""gRPC's names of servers that need no port."""

SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),
    # Triton disconnects a client that pings more often than every 300 s. Keepalive is needed all the same: without
    # it the kernel does not close a connection whose peer acknowledges nothing (after keepalive_timeout).
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Reconnect to a restarted server soon: gRPC's default backoff grows from 1 to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # gRPC resolves the name again when a connection ends, but not more often than this.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # Each client has its own connections, so that closing one client does not affect another.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class TLS:
    """Certificates, as paths of PEM files or as their content in bytes.

    TLS()                                      trust the certificate authorities of the system
    TLS(ca="ca.pem")                           trust this certificate authority
    TLS(ca="ca.pem", certificate="me.pem", key="me.key")   mutual TLS
    TLS(ca="ca.pem", server_name="vlclip")     the server's certificate has another name than the address
    """

    ca: str | os.PathLike[str] | bytes | None = None
    certificate: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInputError("expected both a certificate and its key, got only one of them", argument="tls")

    def credentials(self) -> grpc.ChannelCredentials:
        ca, key, certificate = (_pem(getattr(self, name), name) for name in ("ca", "key", "certificate"))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _pem(given: str | os.PathLike[str] | bytes | None, name: str) -> bytes | None:
    """The content of a PEM file. gRPC would log what is wrong with it, and say that the server does not answer."""
    if given is None:
        return None
    if isinstance(given, bytes):
        content, where = given, ""
    elif isinstance(given, str | os.PathLike) and "-----BEGIN" not in str(given):
        content, where = Path(given).read_bytes(), f' in "{os.fspath(given)}"'
    else:
        got = "its content as str" if isinstance(given, str) else type(given).__name__
        raise InvalidInputError(f"expected the path of a PEM file, or its content as bytes, got {got}", argument=name)
    kind = "PRIVATE KEY" if name == "key" else "CERTIFICATE"
    if not re.search(rb"-----BEGIN [A-Z0-9 ]*" + kind.encode() + b"-----", content):
        problem = f'expected PEM with "-----BEGIN {kind}-----", found none{where}'
        raise InvalidInputError(problem, argument=name)
    return content


@dataclass(frozen=True)
class Endpoint:
    """The arguments of a channel, synchronous or asynchronous."""

    label: str
    target: str
    tls: TLS | None
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    compression: grpc.Compression
    several: bool


def endpoint(address: str | Sequence[str], tls: bool | TLS, compression: bool, connect: float) -> Endpoint:
    """The endpoint for one address, which gRPC resolves, or for several, which are resolved here, once."""
    if not isinstance(tls, bool | TLS):
        raise InvalidInputError(f"expected True, False or a vlclip.TLS, got {type(tls).__name__}", argument="tls")
    tls = TLS() if tls is True else tls
    addresses = _checked(address)
    # This is also gRPC's time-out for a connection attempt, by default 20 s.
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


def _checked(given: Any) -> list[str]:
    """The addresses. Refuses what gRPC would take for another address: without a port it connects to port 443."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    addresses = list(given) if several else [given]
    if not addresses:
        raise InvalidInputError("expected one or more addresses, got none", argument="address")
    for one in addresses:
        if not isinstance(one, str):
            raise InvalidInputError(f"{EXPECTED}, got {reprlib.repr(one)}", argument="address")
        _check(one)
    return addresses


def _check(address: str) -> None:
    scheme, _, rest = address.partition(":")
    if scheme in UNCHECKED_SCHEMES:
        return
    advice = ""
    if scheme in RESOLVED_SCHEMES and not rest.isdigit():
        places = rest.rpartition("/")[2].split(",")
    elif "://" in address:
        places = []
        secure = scheme.lower() in ("https", "grpcs")
        advice = "Remove the scheme and the path" + (", and pass {tls} for an encrypted connection" if secure else "")
        if re.search(r":800[02]\b", rest):
            advice += ". 8000 and 8002 are usually HTTP and metrics; gRPC is usually 8001"
    else:
        places = [address]
        advice = "" if ":" in address else "Add the port of gRPC, usually 8001"
    if not places or not all(PLACE.fullmatch(place) and int(place.rpartition(":")[2]) < 1 << 16 for place in places):
        raise InvalidInputError(f'{EXPECTED}, got "{address}"', argument="address", advice=advice)


def _host_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    if not PLACE.fullmatch(address):
        raise InvalidInputError(
            f'expected "host:port" for each of several servers, got "{address}"', argument="address"
        )
    return host.strip("[]"), port


def _several(addresses: Sequence[str]) -> str:
    """gRPC's target for a fixed list of addresses."""
    found: list[tuple[int, str]] = []
    for address in addresses:
        host, port = _host_port(address)
        try:
            resolved = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as exc:
            problem = f'"{host}" could not be resolved ({exc})'
            raise UnavailableError(problem, argument="address", advice="Correct the host name") from exc
        found += [(family, _text(family, place)) for family, _, _, _, place in resolved]
    family = socket.AF_INET if any(kind == socket.AF_INET for kind, _ in found) else socket.AF_INET6
    scheme = "ipv4" if family == socket.AF_INET else "ipv6"
    return f"{scheme}:" + ",".join(dict.fromkeys(place for kind, place in found if kind == family))


def _text(family: int, place: Any) -> str:
    return f"{place[0]}:{place[1]}" if family == socket.AF_INET else f"[{place[0]}]:{place[1]}"


def with_key(headers: Headers | None) -> Headers | None:
    """The headers, and the shared-memory key of the environment if it is set. A server may require it."""
    key = os.environ.get("VLCLIP_SHARED_MEMORY_KEY")
    if not key:
        return headers
    name = "triton-grpc-protocol-shared-memory-key"
    return lambda: {name: key, **(headers() if callable(headers) else headers or {})}


def metadata(headers: Headers | None) -> list[tuple[str, str]]:
    """The headers as gRPC metadata, whose names are lower case. A value may be secret, so no error shows it."""
    given = headers() if callable(headers) else headers or {}
    if not isinstance(given, Mapping):
        problem = f"expected a mapping of names to values, got {type(given).__name__}"
        raise InvalidInputError(problem, argument="headers")
    for name, value in given.items():
        if not (isinstance(name, str) and re.fullmatch(r"[0-9a-z_.-]+", name.lower())):
            raise InvalidInputError(
                f"expected names of ASCII letters, digits, - _ and ., got {reprlib.repr(name)}", argument="headers"
            )
        if not (isinstance(value, str) and re.fullmatch(r"[ -~]*", value)):
            raise InvalidInputError(
                f'expected the value of "{name}" as one line of printable ASCII, got something else. Remove line '
                "breaks, such as one at the end of a file",
                argument="headers",
            )
    return [(name.lower(), value) for name, value in given.items()]
