"""TLS handshakes with the embedded server: which clients are accepted, and which are not."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

import vlclip
from serving.errors import SetupError
from serving.server.options import Tls
from serving.server.server import Server
from tests.asking import SECONDS, until
from tests.pictures import PHOTO


def write_certificates(folder: Path) -> Path:
    """Write ca.pem, and server and client as .pem and .key, all of a new authority. Return the folder."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    return write_certificates(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path], pems: Path) -> Iterator[Server]:
    """Mutual TLS, reachable from other machines."""
    tls = Tls(pems / "server.pem", pems / "server.key", pems / "ca.pem")
    with Server.start(toy_repositories, host="0.0.0.0", tls=tls) as server:
        yield server


def client_tls(trusted: Path, own: Path | None) -> vlclip.TLS:
    ca = trusted / "ca.pem"
    return vlclip.TLS(ca, own / "client.pem", own / "client.key") if own else vlclip.TLS(ca)


def test_a_known_client_is_accepted(server: Server, pems: Path) -> None:
    with vlclip.Client(server.grpc_url, tls=client_tls(pems, pems)) as client:
        assert client.embed_images([PHOTO], ["mug"]).status.tolist() == [0]


@pytest.mark.parametrize(
    ("trusts", "shows"),
    [("strangers", "pems"), ("pems", None), ("pems", "strangers")],
    ids=["a client that trusts another authority", "a client without a certificate", "a client of another authority"],
)
def test_refuses(server: Server, request: pytest.FixtureRequest, trusts: str, shows: str | None) -> None:
    tls = client_tls(request.getfixturevalue(trusts), request.getfixturevalue(shows) if shows else None)
    with (
        vlclip.Client(server.grpc_url, tls=tls, retry=None, timeout=SECONDS) as client,
        pytest.raises(vlclip.UnavailableError),
    ):
        client.embed_images([PHOTO], ["mug"])


def test_refuses_plaintext(server: Server) -> None:
    with (
        vlclip.Client(server.grpc_url, retry=None, timeout=SECONDS) as client,
        pytest.raises(vlclip.UnavailableError, match="pass `tls`"),
    ):
        client.embed_images([PHOTO], ["mug"])


def test_http_is_for_this_machine_only(server: Server) -> None:
    assert server.http_url == f"127.0.0.1:{server.ports.http}"
    with closing(http.client.HTTPConnection(server.http_url, timeout=SECONDS)) as connection:
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().status == 200
    # A server on 0.0.0.0 answers on every address of 127.0.0.0/8, and one on 127.0.0.1 only there.
    for port in (server.ports.grpc, server.ports.metrics):
        socket.create_connection(("127.0.0.2", port), timeout=SECONDS).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.ports.http), timeout=SECONDS)


def test_a_killed_triton_is_restarted_with_tls(server: Server, pems: Path) -> None:
    triton = server.pid
    os.kill(triton, signal.SIGKILL)
    until(lambda: server.pid != triton)
    with vlclip.Client(server.grpc_url, tls=client_tls(pems, pems), timeout=SECONDS) as client:
        assert client.embed_images([PHOTO], ["mug"]).status.tolist() == [0]


def test_without_a_client_ca_every_client_that_trusts_the_server_is_accepted(
    toy_repositories: list[Path], pems: Path
) -> None:
    tls = Tls(pems / "server.pem", pems / "server.key")
    with (
        Server.start(toy_repositories, tls=tls) as server,
        vlclip.Client(f"localhost:{server.ports.grpc}", tls=client_tls(pems, None)) as client,
    ):
        assert client.embed_texts("mug").embedding.shape[0] == 1


def test_files_that_do_not_belong_together_are_named(pems: Path, strangers: Path) -> None:
    for tls in (
        Tls(pems / "server.pem", strangers / "server.key"),
        Tls(pems / "nowhere.pem", pems / "server.key"),
        Tls(pems / "server.pem", pems / "server.key", pems / "server.key"),
    ):
        with pytest.raises(SetupError, match=r"cannot use TLS with .*server\.key.*expected matching PEM files"):
            tls.check()
