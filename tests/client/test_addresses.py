"""Which addresses and settings of a client are refused, and what the messages say."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.faults import answering
from tests.client.twins import Twin, first_column
from vlclip._connection import endpoint
from vlclip.cli.exits import FLAGS

EXPECTED = 'address: expected "host:port" of the gRPC endpoint, such as "localhost:8001", got '

REFUSED: dict[str, tuple[Any, str]] = {
    "a port": (8001, "got 8001"),
    "None": (None, "got None"),
    "bytes": (b"localhost:8001", "got b'localhost:8001'"),
    "a path": (Path("localhost:8001"), "got PosixPath"),
    "empty": ("", 'got ""'),
    "no port": ("localhost", 'got "localhost". Add the port of gRPC, usually 8001'),
    "no host": (":8001", 'got ":8001"'),
    "blanks": (" localhost:8001", 'got " localhost:8001"'),
    "the name of a port": ("localhost:http", 'got "localhost:http"'),
    "port 65536": ("localhost:65536", 'got "localhost:65536"'),
    "a path after it": ("localhost:8001/v2", 'got "localhost:8001/v2"'),
    "two in one": ("a:8001,b:8001", 'got "a:8001,b:8001"'),
    "IPv6 without brackets": ("::1:8001", 'got "::1:8001"'),
    "http": ("http://localhost:8000", "Remove the scheme and the path. 8000 and 8002 are usually HTTP and metrics"),
    "grpc": ("grpc://localhost:8001/", 'got "grpc://localhost:8001/". Remove the scheme and the path'),
    "https": ("https://shop.example/v2", "Remove the scheme and the path, and pass `tls` for an encrypted connection"),
    "capital letters": ("HTTPS://shop.example", "Remove the scheme and the path, and pass `tls`"),
    "DNS without port": ("dns:///vlclip.shop.svc", 'got "dns:///vlclip.shop.svc"'),
    "one of several": (["localhost:8001", "localhost"], 'got "localhost"'),
    "a number in a list": ([8001], "got 8001"),
}


@pytest.mark.parametrize(("address", "message"), REFUSED.values(), ids=list(REFUSED))
def test_an_address_that_is_refused(twin: Twin, address: Any, message: str) -> None:
    with pytest.raises(vlclip.InvalidInputError) as caught, twin(address):
        pass
    assert str(caught.value).startswith(EXPECTED)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8001",
        "my_host.example:1",
        "127.0.0.1:65535",
        "[::1]:8001",
        "dns:///vlclip.shop.svc:8001",
        "dns://1.1.1.1/vlclip.shop.svc:8001",
        "dns:vlclip:8001",
        "ipv4:10.0.0.1:8001,10.0.0.2:8001",
        "ipv6:[::1]:8001",
        "unix:/run/vlclip.sock",
        "unix:///run/vlclip.sock",
        "xds:///vlclip",
    ],
)
def test_an_address_that_is_given_to_grpc(address: str) -> None:
    assert endpoint(address, False, False, 5.0).target == address


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"address": []}, "address: expected one or more addresses, got none"),
    "a scheme in a list": ({"address": ["dns:///a:1", "b:1"]}, 'address: expected "host:port" for each of several'),
    "no batch in flight": ({"max_in_flight": 0}, "max_in_flight: expected 1 or more, got 0"),
    "a text of batches": ({"max_in_flight": "4"}, "max_in_flight: expected 1 or more, got '4'"),
    "a text of seconds": ({"timeout": "5"}, "timeout: expected request as a number of seconds above 0, got '5'"),
    "a number of retries": ({"retry": 3}, "retry: expected a vlclip.Retry or None, got 3"),
    "a path as tls": ({"tls": "ca.pem"}, "tls: expected True, False or a vlclip.TLS, got str"),
    "another memory": ({"shared_memory": "cpu"}, 'shared_memory: expected "system" or "cuda", got \'cpu\''),
    "a list of headers": ({"headers": [("a", "b")]}, "headers: expected a mapping of names to values, got list"),
    "a blank in a name": (
        {"headers": {"a b": "c"}},
        "headers: expected names of ASCII letters, digits, - _ and ., got",
    ),
    "a line break": (
        {"headers": {"Authorization": "s3cret\n"}},
        'headers: expected the value of "Authorization" as one',
    ),
    "bytes as a value": ({"headers": {"a": b"s3cret"}}, 'headers: expected the value of "a" as one line'),
}


@pytest.mark.parametrize(("settings", "message"), SETTINGS.values(), ids=list(SETTINGS))
def test_a_setting_that_is_refused(twin: Twin, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(vlclip.InvalidInputError) as caught, twin(**{"address": "localhost:8001", **settings}):
        pass
    assert str(caught.value).startswith(message)
    assert "s3cret" not in str(caught.value)


def test_headers_of_a_function_are_checked_at_each_call(triton: FakeTriton, twin: Twin) -> None:
    tokens = iter(["good", "good", "bad\n"])
    with twin(triton.address, headers=lambda: {"authorization": next(tokens)}) as client:
        assert first_column(client.embed_texts("7")) == [7]
        with pytest.raises(vlclip.InvalidInputError, match="headers: expected the value"):
            client.embed_texts("7")


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (b"", "not its gRPC port (usually 8001, while 8000 is HTTP), or it requires TLS: pass "),  # as Triton 2.51
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "This port is one of HTTP, while the client needs that of gRPC"),
    ],
)
def test_the_advice_about_a_port_of_http(twin: Twin, answer: bytes, advice: str) -> None:
    with answering(answer) as address, twin(address, retry=None) as client:
        with pytest.raises(vlclip.UnavailableError) as caught:
            client.embed_texts("1")
        assert advice in str(caught.value)


def test_the_advice_about_port_8000_if_nothing_answers() -> None:
    with socket.socket() as unused, vlclip.Client("127.0.0.9:8000", retry=None) as client:
        unused.bind(("127.0.0.9", 8000))
        with pytest.raises(vlclip.UnavailableError, match="Port 8000 is usually that of HTTP"):
            client.embed_texts("1")


def test_the_failure_of_one_address_of_localhost_does_not_hide_the_other(triton: FakeTriton, twin: Twin) -> None:
    """gRPC reports the address that it tried last."""
    port = triton.address.rpartition(":")[2]
    with (
        twin(f"localhost:{port}", tls=True, retry=None) as client,
        pytest.raises(vlclip.UnavailableError, match=r"remove `tls`|of ::1.*, use 127\.0\.0\.1"),
    ):
        client.embed_texts("1")


def test_the_advice_names_arguments_or_flags() -> None:
    error = vlclip.UnavailableError("no {timeout}", advice="pass {tls}")
    assert str(error) == "no {timeout}. pass `tls`"
    assert error.message(FLAGS) == "no {timeout}. pass --tls"
    error.argument = "address"
    assert (str(error), error.message(FLAGS)) == (
        f"address: {error.problem}. pass `tls`",
        f"--address: {error.problem}. pass --tls",
    )


def test_every_argument_in_an_advice_has_a_name_in_python_and_on_the_command_line() -> None:
    advice = [*vlclip.errors._ADVICE.values(), *vlclip.errors._ADVICE_BY_DETAILS.values()]
    named = {name for one in advice for name in re.findall(r"{(\w+)}", one)}
    assert named
    assert named <= {*vlclip.errors.ARGUMENTS} & {*FLAGS}
