"""The closed APIs, over gRPC and HTTP: each is refused without its key, and works with it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from tritonclient.utils import InferenceServerException

from serving.server.server import Server
from tests.asking import SECONDS, ask_grpc

ADMIN, SHARED_MEMORY = "admin-key", "shared-memory-key"
KEYS = {ADMIN: "of-the-operator", SHARED_MEMORY: "of-neighbours"}


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """A server that other machines can reach, with keys from the environment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLCLIP_ADMIN_KEY", KEYS[ADMIN])
        environment.setenv("VLCLIP_SHARED_MEMORY_KEY", KEYS[SHARED_MEMORY])
        started = Server.start(toy_repositories, host="0.0.0.0")
    with started as server:
        yield server


@pytest.fixture
def region() -> Iterator[str]:
    """The name of a region of shared memory."""
    with closing(SharedMemory(create=True, size=64)) as region:
        yield region.name
        region.unlink()


@dataclass
class Grpc:
    """A caller with these headers. Raises PermissionError if an API is closed to it."""

    server: Server
    headers: dict[str, str]

    def __call__(self, method: str, *arguments: Any) -> str:
        headers = {f"triton-grpc-protocol-{name}": value for name, value in self.headers.items()}
        with tritonclient.grpc.InferenceServerClient(self.server.grpc_url) as client:
            try:
                answer = getattr(client, method)(*arguments, headers=headers)
            except InferenceServerException as error:
                raise PermissionError(error) if "protocol is restricted" in str(error) else error from error
        if isinstance(answer, Message):
            return json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True))
        return str(answer)


@dataclass
class Http:
    """The same over HTTP."""

    server: Server
    headers: dict[str, str]

    def __call__(self, method: str, path: str, body: object = None) -> str:
        content = (b"" if body is None else json.dumps(body).encode()) if method == "POST" else None
        url = f"http://{self.server.http_url}/v2/{path}"
        request = urllib.request.Request(url, content, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                message = error.read().decode()
            raise PermissionError(message) if error.code == 403 and "restricted" in message else error from error


def works(server: Server, model: str) -> bool:
    try:
        ask_grpc(server.grpc_url, model, TEXT=[b"mug"])
    except InferenceServerException:
        return False
    return True


# Calls in order. The last element of each is a part of its answer. Together they leave the server as it was.
Calls = list[tuple[Any, ...]]
GRPC_ADMIN: Calls = [
    ("get_model_repository_index", "decode"),
    ("unload_model", "product_text", ""),
    ("load_model", "product_text", ""),
    ("update_trace_settings", "", {"trace_rate": "77"}, "77"),
    ("get_trace_settings", '["77"]'),
    ("get_trace_settings", "decode", "trace_level"),
    ("update_trace_settings", "", {"trace_rate": None}, ""),
    ("update_log_settings", {"log_verbose_level": 1}, ""),
    ("get_log_settings", '"log_verbose_level": {"uint32_param": 1}'),
    ("update_log_settings", {"log_verbose_level": 0}, ""),
    ("get_inference_statistics", "decode"),
]
HTTP_ADMIN: Calls = [
    ("POST", "repository/index", "decode"),
    ("POST", "repository/models/product_text/unload", ""),
    ("POST", "repository/models/product_text/load", ""),
    ("POST", "trace/setting", {"trace_rate": "78"}, "78"),
    ("GET", "trace/setting", '"78"'),
    ("GET", "models/decode/trace/setting", "trace_level"),
    ("POST", "trace/setting", {"trace_rate": None}, ""),
    ("POST", "logging", {"log_verbose_level": 1}, '"log_verbose_level":1'),
    ("GET", "logging", '"log_verbose_level":1'),
    ("POST", "logging", {"log_verbose_level": 0}, ""),
    ("GET", "models/stats", "decode"),
    ("GET", "models/decode/versions/1/stats", "decode"),
]
GRPC_MEMORY: Calls = [
    ("register_system_shared_memory", "mine", "REGION", 64, ""),
    ("get_system_shared_memory_status", "mine"),
    ("unregister_system_shared_memory", "mine", ""),
    ("get_system_shared_memory_status", "{}"),
    ("unregister_system_shared_memory", ""),
    ("get_cuda_shared_memory_status", "{}"),
]
HTTP_MEMORY: Calls = [
    ("POST", "systemsharedmemory/region/mine/register", {"key": "REGION", "offset": 0, "byte_size": 64}, ""),
    ("GET", "systemsharedmemory/status", "mine"),
    ("POST", "systemsharedmemory/region/mine/unregister", ""),
    ("GET", "systemsharedmemory/status", "[]"),
    ("POST", "systemsharedmemory/unregister", ""),
    ("GET", "cudasharedmemory/status", "[]"),
]


@pytest.mark.parametrize(
    ("caller", "key", "calls"),
    [
        pytest.param(Grpc, ADMIN, GRPC_ADMIN, id="admin"),
        pytest.param(Http, ADMIN, HTTP_ADMIN, id="admin over HTTP"),
        pytest.param(Grpc, SHARED_MEMORY, GRPC_MEMORY, id="shared memory"),
        pytest.param(Http, SHARED_MEMORY, HTTP_MEMORY, id="shared memory over HTTP"),
    ],
)
def test_an_api_is_closed_without_its_key_and_open_with_it(
    server: Server, region: str, caller: type[Grpc | Http], key: str, calls: Calls
) -> None:
    others = {name: value for name, value in KEYS.items() if name != key}
    calls = json.loads(json.dumps(calls).replace("REGION", region))
    for headers in ({}, {key: "guessed"}, {key: ""}, others, {key: next(iter(others.values()))}):
        for *call, _ in calls:
            with pytest.raises(PermissionError, match=key):
                caller(server, headers)(*call)
    for *call, expected in calls:
        assert expected in caller(server, {key: KEYS[key]})(*call)
        if "unload" in "".join(map(str, call)):
            assert not works(server, "product_text")
    assert works(server, "product_text")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "trace/setting"), ("GET", "logging"), ("GET", "models/stats"), ("GET", "cudasharedmemory/status")],
)
def test_another_spelling_of_a_path_opens_nothing(server: Server, method: str, path: str) -> None:
    """Percent-encoded, with a doubled slash or with a slash at the end."""
    for spelled in (path.replace("t", "%74"), path.replace("/", "//"), path + "/", "./" + path):
        with pytest.raises((PermissionError, urllib.error.HTTPError)):
            Http(server, {})(method, spelled)


def test_what_callers_need_is_open(server: Server) -> None:
    ask, ask_http = Grpc(server, {}), Http(server, {})
    assert ask("is_server_ready") == "True"
    assert "triton" in ask("get_server_metadata")
    assert "product_text" in ask("get_model_config", "product_text")
    assert "ensemble" in ask_http("GET", "models/product_text")
    assert works(server, "product_text")


def test_the_log_does_not_show_the_keys(server: Server) -> None:
    for key in KEYS.values():
        assert key.encode() not in server.log.file.read_bytes()


def test_keys_are_random_by_default(toy_repositories: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics are open if only this machine can reach the server: benchmarks and profilers need them."""
    monkeypatch.delenv("VLCLIP_ADMIN_KEY", raising=False)
    monkeypatch.delenv("VLCLIP_SHARED_MEMORY_KEY", raising=False)
    with Server.start(toy_repositories, host="localhost") as server:
        assert server.metrics_url.startswith("http://127.0.0.1:")
        assert len(server.admin_key) == len(server.shared_memory_key) == 32
        assert server.admin_key != server.shared_memory_key
        assert "decode" in Grpc(server, {})("get_inference_statistics")
        for name in ("get_model_repository_index", "get_trace_settings", "get_log_settings"):
            with pytest.raises(PermissionError):
                Grpc(server, {})(name)
        assert "decode" in Grpc(server, {ADMIN: server.admin_key})("get_model_repository_index")
