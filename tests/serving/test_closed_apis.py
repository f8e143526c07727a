"""What is closed to callers: each API over gRPC and HTTP, refused without its key, and doing its work with it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
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
from tests.asking import ask_grpc

KEYS = {"admin-key": "of-the-operator", "shared-memory-key": "of-neighbours"}
SHARED_MEMORY = "shared-memory-key"


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """One that other machines could ask, with keys from outside, as those who operate it would give them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLCLIP_ADMIN_KEY", KEYS["admin-key"])
        environment.setenv("VLCLIP_SHARED_MEMORY_KEY", KEYS["shared-memory-key"])
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
    """Somebody with these headers. Raises PermissionError where an API is closed to them."""

    server: Server
    headers: dict[str, str]

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        headers = {f"triton-grpc-protocol-{name}": value for name, value in self.headers.items()}
        with tritonclient.grpc.InferenceServerClient(self.server.grpc_url) as client:
            try:
                answer = getattr(client, method)(*arguments, headers=headers, **options)
            except InferenceServerException as error:
                raise PermissionError(error) if "protocol is restricted" in str(error) else error from error
        return (
            json_format.MessageToDict(answer, preserving_proto_field_name=True)
            if isinstance(answer, Message)
            else answer
        )


@dataclass
class Http:
    """The same over HTTP."""

    server: Server
    headers: dict[str, str]

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.server.http_url}/v2/{path}",
            content if method == "POST" else None,
            self.headers,
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                message = error.read().decode()
            raise PermissionError(message) if error.code == 403 and "restricted" in message else error from error
        return json.loads(text) if text else None


def does(server: Server, model: str) -> bool:
    """Whether a model answers."""
    try:
        ask_grpc(server.grpc_url, model, TEXT=[b"mug"])
    except InferenceServerException:
        return False
    return True


# What each call is to show is asserted by what follows it. Each leaves the server as it was.


def grpc_index(ask: Grpc, region: str) -> None:
    assert "decode" in [model["name"] for model in ask("get_model_repository_index")["models"]]


def http_index(ask: Http, region: str) -> None:
    assert "decode" in [model["name"] for model in ask("POST", "repository/index")]


def grpc_unload_and_load(ask: Grpc, region: str) -> None:
    ask("unload_model", "product_text")
    assert not does(ask.server, "product_text")
    ask("load_model", "product_text")
    assert does(ask.server, "product_text")


def http_unload_and_load(ask: Http, region: str) -> None:
    ask("POST", "repository/models/product_text/unload")
    assert not does(ask.server, "product_text")
    ask("POST", "repository/models/product_text/load")
    assert does(ask.server, "product_text")


def grpc_load(ask: Grpc, region: str) -> None:
    ask("load_model", "product_text")


def http_load(ask: Http, region: str) -> None:
    ask("POST", "repository/models/product_text/load")


def grpc_system_memory(ask: Grpc, region: str) -> None:
    ask("register_system_shared_memory", "mine", region, 64)
    assert list(ask("get_system_shared_memory_status")["regions"]) == ["mine"]
    ask("unregister_system_shared_memory", "mine")
    assert not ask("get_system_shared_memory_status")


def http_system_memory(ask: Http, region: str) -> None:
    ask("POST", "systemsharedmemory/region/mine/register", {"key": region, "offset": 0, "byte_size": 64})
    assert [one["name"] for one in ask("GET", "systemsharedmemory/status")] == ["mine"]
    ask("POST", "systemsharedmemory/region/mine/unregister")
    assert ask("GET", "systemsharedmemory/status") == []


def grpc_memory_status(ask: Grpc, region: str) -> None:
    assert not ask("get_system_shared_memory_status")
    ask("unregister_system_shared_memory")


def http_memory_status(ask: Http, region: str) -> None:
    assert ask("GET", "systemsharedmemory/status") == []
    ask("POST", "systemsharedmemory/unregister")


def grpc_cuda_memory(ask: Grpc, region: str) -> None:
    assert not ask("get_cuda_shared_memory_status")


def http_cuda_memory(ask: Http, region: str) -> None:
    assert ask("GET", "cudasharedmemory/status") == []


def grpc_trace(ask: Grpc, region: str) -> None:
    ask("update_trace_settings", settings={"trace_rate": "77"})
    assert ask("get_trace_settings")["settings"]["trace_rate"]["value"] == ["77"]
    ask("update_trace_settings", settings={"trace_rate": None})


def http_trace(ask: Http, region: str) -> None:
    assert ask("POST", "trace/setting", {"trace_rate": "78"})["trace_rate"] == "78"
    assert ask("GET", "trace/setting")["trace_rate"] == "78"
    ask("POST", "trace/setting", {"trace_rate": None})


def grpc_trace_of_a_model(ask: Grpc, region: str) -> None:
    assert ask("get_trace_settings", "decode")["settings"]["trace_level"]


def http_trace_of_a_model(ask: Http, region: str) -> None:
    assert ask("GET", "models/decode/trace/setting")["trace_level"] == ["OFF"]


def grpc_logging(ask: Grpc, region: str) -> None:
    ask("update_log_settings", {"log_verbose_level": 1})
    assert ask("get_log_settings")["settings"]["log_verbose_level"]["uint32_param"] == 1
    ask("update_log_settings", {"log_verbose_level": 0})


def http_logging(ask: Http, region: str) -> None:
    assert ask("POST", "logging", {"log_verbose_level": 1})["log_verbose_level"] == 1
    assert ask("GET", "logging")["log_verbose_level"] == 1
    ask("POST", "logging", {"log_verbose_level": 0})


def grpc_statistics(ask: Grpc, region: str) -> None:
    assert len(ask("get_inference_statistics")["model_stats"]) > 1


def http_statistics(ask: Http, region: str) -> None:
    assert len(ask("GET", "models/stats")["model_stats"]) > 1


def http_statistics_of_a_model(ask: Http, region: str) -> None:
    assert ask("GET", "models/decode/versions/1/stats")["model_stats"][0]["name"] == "decode"


Call = Callable[[Any, str], None]
CLOSED: list[tuple[Call, str]] = [
    (grpc_index, "admin-key"),
    (http_index, "admin-key"),
    (grpc_unload_and_load, "admin-key"),
    (http_unload_and_load, "admin-key"),
    (grpc_load, "admin-key"),
    (http_load, "admin-key"),
    (grpc_system_memory, SHARED_MEMORY),
    (http_system_memory, SHARED_MEMORY),
    (grpc_memory_status, SHARED_MEMORY),
    (http_memory_status, SHARED_MEMORY),
    (grpc_cuda_memory, SHARED_MEMORY),
    (http_cuda_memory, SHARED_MEMORY),
    (grpc_trace, "admin-key"),
    (http_trace, "admin-key"),
    (grpc_trace_of_a_model, "admin-key"),
    (http_trace_of_a_model, "admin-key"),
    (grpc_logging, "admin-key"),
    (http_logging, "admin-key"),
    (grpc_statistics, "admin-key"),
    (http_statistics, "admin-key"),
    (http_statistics_of_a_model, "admin-key"),
]


@pytest.mark.parametrize(("call", "key"), CLOSED, ids=[call.__name__ for call, _ in CLOSED])
def test_closed_without_its_key_and_open_with_it(server: Server, region: str, call: Call, key: str) -> None:
    caller = Grpc if call.__name__.startswith("grpc") else Http
    others = {name: value for name, value in KEYS.items() if name != key}
    for headers in ({}, {key: "guessed"}, {key: ""}, others, {key: next(iter(others.values()))}):
        with pytest.raises(PermissionError, match=key):
            call(caller(server, headers), region)
    call(caller(server, {key: KEYS[key]}), region)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "trace/setting"), ("GET", "logging"), ("GET", "models/stats"), ("GET", "cudasharedmemory/status")],
)
def test_spelling_a_path_in_another_way_opens_nothing(server: Server, method: str, path: str) -> None:
    """By its percent-encoded form, a doubled slash or a slash at the end."""
    for spelled in (path.replace("t", "%74"), path.replace("/", "//"), path + "/", "./" + path):
        with pytest.raises((PermissionError, urllib.error.HTTPError)):
            Http(server, {})(method, spelled)


def test_what_callers_need_stays_open(server: Server) -> None:
    ask, ask_http = Grpc(server, {}), Http(server, {})
    assert ask("is_server_ready")
    assert ask("get_server_metadata")["name"] == "triton"
    assert ask("get_model_config", "product_text")["config"]["name"] == "product_text"
    assert ask_http("GET", "models/product_text")["platform"] == "ensemble"
    assert does(server, "product_text")


def test_nothing_shows_the_keys(server: Server) -> None:
    for key in KEYS.values():
        assert key.encode() not in server.log.file.read_bytes()


def test_keys_are_random_where_none_are_given(toy_repositories: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine alone statistics are open: benchmarks and profilers need them."""
    monkeypatch.delenv("VLCLIP_ADMIN_KEY", raising=False)
    monkeypatch.delenv("VLCLIP_SHARED_MEMORY_KEY", raising=False)
    with Server.start(toy_repositories) as server:
        assert len(server.admin_key) == len(server.shared_memory_key) == 32
        assert server.admin_key != server.shared_memory_key
        assert Grpc(server, {})("get_inference_statistics")["model_stats"]
        for name in ("get_model_repository_index", "get_trace_settings", "get_log_settings"):
            with pytest.raises(PermissionError):
                Grpc(server, {})(name)
        assert Grpc(server, {"admin-key": server.admin_key})("get_model_repository_index")
