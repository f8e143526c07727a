"""What the command line says about servers: their health, their models, and why a request failed."""

from __future__ import annotations

import re
import signal
import socket

import grpc
import pytest

from tests.client.command import VERSION, Run, cells, objects, process
from tests.client.conftest import FakeTriton
from vlclip import cli


def test_health(triton: FakeTriton, run: Run) -> None:
    code, out, err = run("health")
    assert (code, err) == (cli.OK, "")
    assert out.split()[3:] == [triton.address, "ready", "fake", "1.0"]
    triton.is_ready = False
    code, out, _ = run("health", "--json")
    assert code == cli.NO_SERVER
    assert objects(out) == [
        {"address": triton.address, "live": True, "ready": False, "server": "fake", "version": "1.0"}
    ]


def test_each_server_is_asked_for_its_health(triton: FakeTriton, run: Run) -> None:
    code, out, err = run("health", "--address", "127.0.0.1:1", "--timeout", "2", "--json")
    assert code == cli.NO_SERVER
    assert {one["address"]: one["ready"] for one in objects(out)} == {"127.0.0.1:1": False, triton.address: True}
    assert "from 127.0.0.1:1, allowed 2 s: UNAVAILABLE" in err
    assert "start one with `make serve`" in err


def test_models(run: Run) -> None:
    code, out, _ = run("models")
    assert code == cli.OK
    lines = cells(out)
    label = "version 2: mini + mini, 2026-11-28, fp32"
    assert lines[:2] == [
        ["pipeline", "state", "version", "models", "batch"],
        ["product_image", "ready", VERSION, label, "4"],
    ]
    assert ["ground", "not ready"] in lines
    _, out, _ = run("models", "--json")
    shown = {"name": "product_image", "ready": True, "version": VERSION, "label": label, "max_batch_size": 4}
    assert objects(out)[0] == shown


RETRYABLE = ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"]


@pytest.mark.parametrize("code", [*RETRYABLE, "INTERNAL", "NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"])
def test_exit_codes_of_failures(triton: FakeTriton, run: Run, code: str) -> None:
    triton.fail = grpc.StatusCode[code]
    exit_code, out, err = run("embed-text", "1", "--timeout", "0.3")
    assert (exit_code, out) == (cli.NO_SERVER if code in RETRYABLE else cli.REFUSED, "")
    assert err.startswith("vlclip: product_text from ")
    assert len(err.splitlines()) == 1


def test_ctrl_c_while_a_server_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with process("embed-text", "1", "--timeout", "600", "--address", address, start_new_session=True) as vl:
            connection, _ = silent.accept()
            assert connection.recv(3) == b"PRI"  # HTTP/2's first bytes: the request waits for the server's
            vl.send_signal(signal.SIGINT)
            out, err = vl.communicate(timeout=60)
            connection.close()
    assert (vl.returncode, out, err) == (cli.INTERRUPTED, b"", b"vlclip: interrupted\n")


@pytest.mark.parametrize("command", [["embed-text", "1"], ["health"], ["models"]])
def test_one_line_of_error_if_the_server_does_not_use_tls(triton: FakeTriton, command: list[str]) -> None:
    with process(*command, "--tls", "--timeout", "1", "--address", triton.address) as vl:
        _, err = vl.communicate(timeout=60)
    assert vl.returncode == cli.NO_SERVER
    (line,) = err.decode().splitlines()
    assert "Tls handshake failed: WRONG_VERSION_NUMBER). The server does not use TLS on this port: remove --tls" in line
    assert not re.search("SSL_|TSI_|OPENSSL|all backends|`tls`", line)
