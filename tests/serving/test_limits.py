"""Requests whose stated size is wrong: Triton answers with an error, and allocates no memory for bytes not sent."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.server.server import Server
from tests.asking import SECONDS, ask_grpc
from tests.pictures import PHOTO

MEBIBYTES = 64
"""By how much Triton may grow. The stated sizes are gigabytes."""


def peak(server: Server) -> int:
    """The peak of Triton's resident memory, in MiB."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found
    return int(found[1]) >> 10


def ask_raw(
    server: Server, body: dict[str, Any], json_bytes: int | None = None, binary: bytes = b""
) -> tuple[int, str]:
    """Send JSON, whose stated size is ``json_bytes``, and binary data. Return the HTTP status and the answer."""
    content = json.dumps(body).encode()
    length = str(len(content) if json_bytes is None else json_bytes)
    with closing(http.client.HTTPConnection(server.http_url, timeout=SECONDS)) as connection:
        headers = {"Inference-Header-Content-Length": length}
        connection.request("POST", "/v2/models/decode/infer", content + binary, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def image(rows: int, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "IMAGE", "shape": [rows, 1], "datatype": "BYTES", **more}]}


@pytest.mark.parametrize(
    ("body", "json_bytes", "message"),
    [
        pytest.param(image(65, data=["x"] * 65), None, "batch-size must be <= 64", id="65 images"),
        pytest.param(image(1 << 40, data=[]), None, "expected 1 string elements", id="a trillion rows"),
        pytest.param(
            image(1, parameters={"binary_data_size": 1 << 62}), None, "unexpected size for input 'IMAGE'", id="exabytes"
        ),
        pytest.param(image(1, data=["x"]), 2 << 30, "inference header size should be in range", id="2 GiB of JSON"),
        pytest.param(image(1, data=["x"]), -1, "inference header size should be in range", id="a negative size"),
    ],
)
def test_a_wrong_size_is_an_error(server: Server, body: dict[str, Any], json_bytes: int | None, message: str) -> None:
    before = peak(server)
    status, answer = ask_raw(server, body, json_bytes)
    assert (status, message in answer) == (400, True), answer
    assert peak(server) - before < MEBIBYTES


@pytest.mark.parametrize(
    "raw", [struct.pack("<I", 0xFFFFFFFF) + PHOTO, b"\x01\0\0", b""], ids=["4 GiB", "cut", "empty"]
)
def test_a_wrong_length_of_a_string_is_an_error(server: Server, raw: bytes) -> None:
    before = peak(server)
    status, answer = ask_raw(server, image(1, parameters={"binary_data_size": len(raw)}), binary=raw)
    assert (status, "IMAGE" in answer) == (400, True), answer
    assert peak(server) - before < MEBIBYTES


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF], ids=["2 GiB", "4 GiB"])
def test_grpc_allocates_nothing_for_a_message_that_is_only_announced(server: Server, size: int) -> None:
    """The frames are made here, because no client would send them."""
    method = b"/inference.GRPCInferenceService/ModelInfer"
    headers = {b":method": b"POST", b":scheme": b"http", b":path": method, b":authority": b"x"}
    headers |= {b"content-type": b"application/grpc", b"te": b"trailers"}
    literal = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(to)]) + to for name, to in headers.items())
    before = peak(server)
    with socket.create_connection((server.host, server.ports.grpc), timeout=SECONDS) as connection:
        announced = b"\0" + struct.pack(">I", size) + bytes(1000)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
        # The answer to a ping shows that the server has read what came before it.
        connection.sendall(preface + frame(1, 4, 1, literal) + frame(0, 0, 1, announced) + frame(6, 0, 0, b"are read"))
        answer = b""
        while frame(6, 1, 0, b"are read") not in answer:
            received = connection.recv(4096)
            assert received
            answer += received
        assert ask_grpc(server.grpc_url, "decode", IMAGE=[PHOTO])["DECODED"].tolist() == [[0]]
    assert peak(server) - before < MEBIBYTES


def test_files_over_the_limit_fail_only_their_rows(server: Server) -> None:
    large = np.random.default_rng(0).bytes(33 << 20)
    answer = ask_grpc(server.grpc_url, "decode", IMAGE=[PHOTO, large, PHOTO])
    assert answer["DECODED"].ravel().tolist() == [0, 3, 0]
