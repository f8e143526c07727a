"""The command line of tritonserver: addresses, TLS, the keys of closed APIs, and the options by version of Triton."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.errors import ServerError, SetupError
from serving.server.limits import DRAIN_SECONDS

LOOPBACK = "127.0.0.1"
SHARED_MEMORY_KEY = "VLCLIP_SHARED_MEMORY_KEY"
"""The environment variable with the key of the shared memory APIs, for the server and the clients on its host."""
ADMIN_KEY = "VLCLIP_ADMIN_KEY"
"""The environment variable with the key of the other closed APIs, for operators."""
ADMIN_APIS = ("model-repository", "trace", "logging")
"""APIs that need the admin key: the first loads code, the other two write files whose names the caller chooses."""
STATISTICS_APIS = ("statistics",)
"""APIs that need the admin key if other machines can reach the server. Benchmarks and profilers use them."""


@dataclass(frozen=True)
class NewerOption:
    """An option that the embedded Triton (2.51) does not know. Triton exits if it is given an unknown option.

    ``release`` is the first release of NVIDIA's container with the option, and ``version`` its version of Triton.
    ``value`` is what we pass; None leaves Triton's default.
    """

    name: str
    release: str
    version: str
    value: str | None
    why: str


NEWER_OPTIONS = (
    # The server always offers shared memory, but only to callers with its key.
    NewerOption("--allow-client-shm", "26.04", "2.68", "true", "by default Triton refuses clients' shared memory"),
    NewerOption("--grpc-infer-thread-count", "25.04", "2.57", None, "the default, 2, is what older versions use"),
    # The client sends KServe's binary tensors, which are not limited. `decode` limits the size of an image.
    NewerOption("--http-max-input-size", "25.06", "2.59", None, "the default, 64 MiB, limits JSON and raw requests"),
    NewerOption("--grpc-max-response-pool-size", "25.03", "2.56", None, "by default nothing is limited, as before"),
)


@dataclass(frozen=True)
class Ports:
    """TCP ports. 0 stands for a free one."""

    grpc: int = 0
    http: int = 0
    metrics: int = 0


FREE_PORTS = Ports()


@dataclass(frozen=True)
class Tls:
    """PEM files to encrypt gRPC with. Triton reads them when it starts.

    With ``client_ca``, only clients with a certificate that this authority signed are accepted (mutual TLS).
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Raise SetupError if a file is missing or the files do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.certificate, self.key, self.client_ca) if file)
            raise SetupError(f"cannot use TLS with {files}, expected matching PEM files: {error}") from error

    def options(self) -> list[str]:
        return [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate}",
            f"--grpc-server-key={self.key}",
            *(["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca}"] if self.client_ca else []),
        ]


def key_in(variable: str) -> Callable[[], str]:
    """Returns the key in an environment variable, or a random one."""
    return lambda: os.environ.get(variable) or secrets.token_hex(16)


@dataclass(frozen=True)
class Access:
    """Who can reach Triton. ``interface`` is the IPv4 address to listen on; with TLS, HTTP uses the loopback only.

    Triton's HTTP has no TLS. For HTTPS, put an ingress or Envoy in front of it.
    """

    interface: str
    ports: Ports
    tls: Tls | None = None
    admin_key: str = field(default_factory=key_in(ADMIN_KEY), repr=False)
    shared_memory_key: str = field(default_factory=key_in(SHARED_MEMORY_KEY), repr=False)

    @property
    def host(self) -> str:
        """The host by which this machine reaches gRPC and the metrics."""
        return LOOPBACK if self.interface == "0.0.0.0" else self.interface

    @property
    def http_host(self) -> str:
        """The host by which this machine reaches HTTP."""
        return LOOPBACK if self.tls else self.host

    def options(self) -> list[str]:
        """Options for tritonserver. Raises ServerError if a port is taken."""
        http_interface = LOOPBACK if self.tls else self.interface
        require_free("gRPC", self.interface, self.ports.grpc, "--grpc-port")
        require_free("HTTP", http_interface, self.ports.http, "--http-port")
        require_free("metrics", self.interface, self.ports.metrics, "--metrics-port")
        is_local = self.interface.startswith("127.")
        admin = ",".join(ADMIN_APIS if is_local else ADMIN_APIS + STATISTICS_APIS)
        return [
            f"--grpc-address={self.interface}",
            f"--http-address={http_interface}",
            f"--metrics-address={self.interface}",
            f"--grpc-port={self.ports.grpc}",
            f"--http-port={self.ports.http}",
            f"--metrics-port={self.ports.metrics}",
            f"--grpc-restricted-protocol={admin}:admin-key={self.admin_key}",
            f"--http-restricted-api={admin}:admin-key={self.admin_key}",
            # A caller who can register a region can make the server read it.
            f"--grpc-restricted-protocol=shared-memory:shared-memory-key={self.shared_memory_key}",
            f"--http-restricted-api=shared-memory:shared-memory-key={self.shared_memory_key}",
            *(self.tls.options() if self.tls else []),
        ]


def resolve(host: str) -> str:
    """The IPv4 address of ``host``. Triton's HTTP and metrics take no names: they would listen on 255.255.255.255."""
    try:
        if not host:
            raise OSError("it is empty, and would open the server to all machines; 0.0.0.0 does so on purpose")
        return socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:
        raise SetupError(f"--host {host}: expected a host name or an IPv4 address: {error}") from error


def require_free(protocol: str, host: str, port: int, option: str) -> None:
    """Raise ServerError if a port is taken. Triton itself would notice only after it has loaded all models."""
    try:
        # Triton decides about ports that are shared, as with --reuse-grpc-port.
        socket.create_server((host, port), reuse_port=True).close()
    except (OSError, OverflowError) as error:
        message = f"cannot listen for {protocol} on {host}:{port}: {error}"
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            message += (
                f"\n    choose another port with {option} (0 takes a free one), or with `make serve PORT=9000`"
                "\n    (HTTP on 9000, gRPC on 9001 and metrics on 9002)"
            )
        raise ServerError(message) from error


def replace_zeros(ports: Ports) -> Ports:
    """Replace each 0 by a free port."""
    with contextlib.ExitStack() as open_at_once:
        sockets = [open_at_once.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(3)]
        free = [one.getsockname()[1] for one in sockets]
    return Ports(ports.grpc or free[0], ports.http or free[1], ports.metrics or free[2])


def fixed_options(view: Path, shm_prefix: str) -> list[str]:
    """Options that every version from 2.51 to 26.08 knows."""
    return [
        f"--model-repository={view}",
        # Explicit control: the server decides when Triton loads a model.
        "--model-control-mode=explicit",
        "--load-model=*",
        # With strict readiness, a load balancer would remove the server while another version is loading. Without it,
        # Triton calls itself ready even if a model process is dead, in 26.04 and newer too: see watch.py.
        "--strict-readiness=false",
        # The configs are complete. To check them, Triton would start every Python model twice.
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--exit-timeout-secs={DRAIN_SECONDS}",
        # Quantiles of latency, for the rules in deploy/prometheus.
        "--metrics-config=summary_latencies=true",
        *([] if Path("/dev/nvidiactl").exists() else ["--allow-gpu-metrics=false"]),
    ]


def newer_options(binary: Path) -> list[str]:
    """The options of ``NEWER_OPTIONS`` that have a value and are listed by --help of this tritonserver.

    Raises SetupError if it cannot be run.
    """
    try:
        # It prints on stderr and exits with 1.
        done = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{binary} cannot be run: {error}") from error
    known = set(re.findall(r"^\s*(--[\w-]+)", done.stdout + done.stderr, re.MULTILINE))
    return [f"{option.name}={option.value}" for option in NEWER_OPTIONS if option.value and option.name in known]
