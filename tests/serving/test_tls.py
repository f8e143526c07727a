"""A real handshake with the embedded server: who is heard, and who is not."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tritonclient.http

import vlclip
from deploy import certificates
from serving.errors import ServerError, SetupError
from serving.paths import ROOT
from serving.server.server import Ports, Server
from serving.server.tls import Relay, Tls
from tests.asking import to_array
from tests.serving.test_serve import PHOTO

SOON = vlclip.Timeout(request=5, connect=1)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certificates"
    assert certificates.main(["--out", str(folder), "--host", "localhost", "--host", "127.0.0.1"]) == 0
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another authority signed."""
    folder = tmp_path_factory.mktemp("tls") / "strangers"
    assert certificates.main(["--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path], pems: Path) -> Iterator[Server]:
    """Mutual TLS, as for other machines."""
    tls = Tls(pems / "server.pem", pems / "server.key", pems / "ca.pem")
    with Server.start(toy_repositories, host="0.0.0.0", tls=tls) as server:
        yield server


def of_client(trusted: Path, own: Path | None) -> vlclip.TLS:
    ca = trusted / "ca.pem"
    return vlclip.TLS(ca, own / "client.pem", own / "client.key") if own else vlclip.TLS(ca)


def https_context(trusted: Path, own: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusted / "ca.pem")
    if own:
        context.load_cert_chain(own / "client.pem", own / "client.key")
    return context


def ask_ready(connection: http.client.HTTPConnection) -> int:
    """The HTTP status of the answer."""
    with closing(connection):
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status


def https(port: int, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)


def test_grpc_answers_a_client_that_is_known(server: Server, pems: Path) -> None:
    with vlclip.Client(server.grpc_url, tls=of_client(pems, pems)) as client:
        assert client.embed_images([PHOTO], ["mug"]).status.tolist() == [0]


def test_https_answers_a_client_that_is_known(server: Server, pems: Path) -> None:
    assert server.https_url
    context = https_context(pems, pems)
    with tritonclient.http.InferenceServerClient(
        server.https_url, ssl=True, ssl_context_factory=lambda: context
    ) as client:
        assert client.is_server_ready()
        image = tritonclient.http.InferInput("IMAGE", [64, 1], "BYTES")
        # 13 MB: many pieces of what passes through the relay at a time.
        noise = os.urandom(200_000)
        image.set_data_from_numpy(to_array([PHOTO, *[noise] * 63]))
        answer = client.infer("decode", [image])
        assert answer.as_numpy("DECODED").ravel().tolist() == [0] + [2] * 63
        assert answer.as_numpy("CANVAS").nbytes > 10_000_000


@pytest.mark.parametrize(
    ("trusts", "shows"),
    [("strangers", "pems"), ("pems", None), ("pems", "strangers")],
    ids=["a client that trusts another authority", "a client without a certificate", "a client of another authority"],
)
def test_refuses(server: Server, request: pytest.FixtureRequest, trusts: str, shows: str | None) -> None:
    trusted = request.getfixturevalue(trusts)
    own = request.getfixturevalue(shows) if shows else None
    with (
        vlclip.Client(server.grpc_url, tls=of_client(trusted, own), timeout=SOON) as client,
        pytest.raises(vlclip.UnavailableError),
    ):
        client.embed_images([PHOTO], ["mug"])
    # Under TLS 1.3 a client hears of its refusal with the first answer.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask_ready(https(server.ports.https, https_context(trusted, own)))


def test_refuses_plaintext(server: Server) -> None:
    with (
        vlclip.Client(server.grpc_url, timeout=SOON) as client,
        pytest.raises(vlclip.UnavailableError, match="tls=True"),
    ):
        client.embed_images([PHOTO], ["mug"])
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask_ready(http.client.HTTPConnection("127.0.0.1", server.ports.https, timeout=5))


def test_plain_http_is_for_this_machine_alone(server: Server) -> None:
    assert server.http_url == f"127.0.0.1:{server.ports.http}"
    # All of 127.0.0.0/8 is this machine; what listens on 0.0.0.0 answers on each, what is bound to 127.0.0.1 on that.
    for port in (server.ports.grpc, server.ports.https, server.ports.metrics):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.ports.http), timeout=5)


def test_a_killed_triton_is_mended_behind_tls(server: Server, pems: Path) -> None:
    os.kill(server.pid, signal.SIGKILL)
    with vlclip.Client(server.grpc_url, tls=of_client(pems, pems), timeout=30) as client:
        assert client.embed_images([PHOTO], ["mug"]).status.tolist() == [0]
    assert ask_ready(https(server.ports.https, https_context(pems, pems))) == 200


def test_the_command_serves_with_tls(toy_repositories: list[Path], pems: Path) -> None:
    """Without --tls-client-ca, whoever trusts the server is heard."""
    command = [sys.executable, "-m", "serving.server.start", f"--model-repository={toy_repositories[0]}"]
    command += [f"--{name}-port=0" for name in ("grpc", "http", "https", "metrics")]
    command += ["--tls-cert", str(pems / "server.pem"), "--tls-key", str(pems / "server.key")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed = "".join(iter(process.stdout.readline, "Ctrl-C stops.\n"))
        ports = dict(re.findall(r"(gRPC|HTTPS) .*:(\d+)", printed))
        with vlclip.Client(f"localhost:{ports['gRPC']}", tls=of_client(pems, None)) as client:
            assert client.embed_texts("mug").embedding.shape[0] == 1
        connection = https(int(ports["HTTPS"]), https_context(pems, None))
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().status == 200
        # The connection is kept open: it must not keep the server.
        process.terminate()
        assert process.wait(timeout=20) == 0
        connection.close()


def test_files_that_do_not_go_together_are_named(toy_repositories: list[Path], pems: Path, strangers: Path) -> None:
    for tls in (
        Tls(pems / "server.pem", strangers / "server.key"),
        Tls(pems / "nowhere.pem", pems / "server.key"),
        Tls(pems / "server.pem", pems / "server.key", pems / "server.key"),
    ):
        with pytest.raises(SetupError, match=r"no TLS with .*python -m deploy\.certificates"):
            Server.start(toy_repositories, tls=tls)


def test_taken_https_port_is_named(toy_repositories: list[Path], pems: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"no HTTPS on 127.0.0.1:{port}"):
            Server.start(toy_repositories, ports=Ports(https=port), tls=Tls(pems / "server.pem", pems / "server.key"))


def test_the_relay_ends_a_connection_whose_server_is_away(pems: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        away, port = free.getsockname()[1], 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    relay = Relay("127.0.0.1", port, Tls(pems / "server.pem", pems / "server.key").context(), away)
    with pytest.raises(http.client.RemoteDisconnected):
        ask_ready(https(port, https_context(pems, None)))
    relay.close()


def test_keys_are_for_their_owner_and_nothing_is_written_over(pems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file.name: file.read_bytes() for file in pems.iterdir()}
    assert sorted(before) == sorted(certificates.FILES)
    assert {stat.S_IMODE((pems / name).stat().st_mode) for name in before if name.endswith(".key")} == {0o600}
    assert certificates.main(["--out", str(pems)]) == 1
    assert "name another folder" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in pems.iterdir()} == before


def test_openssl_finds_nothing_wrong(pems: Path) -> None:
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(pems / "ca.pem")]
        done = subprocess.run([*command, str(pems / f"{name}.pem")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
