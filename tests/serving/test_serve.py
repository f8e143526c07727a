"""A server of toys, harmed in every way that the real one must survive."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from serving.errors import ServerError, SetupError
from serving.paths import ROOT
from serving.repository.specs import LEAVES
from serving.server.server import Ports, Server
from serving.server.stubs import SHARED_MEMORY, find_stubs, is_alive
from tests.asking import ask_grpc, ask_http
from tests.pictures import encode, picture

MEND_SECONDS = 10
PHOTO = encode(picture(), "JPEG")


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """One that may be harmed: it must recover from each test."""
    with Server.start(toy_repositories) as server:
        yield server


def assert_right(url: str) -> None:
    """Every pipeline gives the right answer."""
    grounded = ask_grpc(url, "product_image", IMAGE=[PHOTO, b""], PRODUCT_TYPE=[b"mug", b"mug"])
    whole = ask_grpc(url, "whole_image", IMAGE=[PHOTO])
    assert grounded["STATUS"].tolist() == [[0], [2]]
    assert whole["STATUS"].tolist() == [[1]]
    np.testing.assert_allclose(grounded["EMBEDDING"][:1], whole["EMBEDDING"])
    assert ask_grpc(url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])["BOX"].tolist() == [[0, 0, 45, 60]]
    assert np.isclose(np.linalg.norm(ask_grpc(url, "product_text", TEXT=[b"mug"])["EMBEDDING"]), 1)
    enriched = ask_grpc(url, "enriched_text", PRODUCT=[b'{"title": "mug"}', b"no product"], IMAGE=[b"", b""])
    assert enriched["STATUS"].tolist() == [[1], [4]]


def seconds_until_right(url: str, times: int = 5) -> float:
    """Until the pipelines have been right this many times on end, as models may have more than one process."""
    begin, rights = time.monotonic(), 0
    while rights < times:
        try:
            assert_right(url)
            rights += 1
        except InferenceServerException:
            rights = 0
            assert time.monotonic() - begin < 60
            time.sleep(0.05)
    return time.monotonic() - begin


def own_processes(server: Server) -> list[int]:
    """Triton first, then the processes of its models."""
    return [server.pid, *(stub.pid for stub in find_stubs(server.shm_prefix))]


@pytest.mark.parametrize("leaf", LEAVES)
def test_killed_model_process_is_mended(server: Server, leaf: str) -> None:
    victims = [stub for stub in find_stubs(server.shm_prefix) if stub.model == leaf]
    os.kill(victims[0].pid, signal.SIGKILL)
    assert seconds_until_right(server.grpc_url) < MEND_SECONDS
    assert not (SHARED_MEMORY / victims[0].region).exists()


def test_all_model_processes_killed_at_once_are_mended(server: Server) -> None:
    for stub in find_stubs(server.shm_prefix):
        os.kill(stub.pid, signal.SIGKILL)
    assert seconds_until_right(server.grpc_url) < MEND_SECONDS


def test_killed_triton_is_mended_on_the_same_ports(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    os.kill(server.pid, signal.SIGKILL)
    assert seconds_until_right(server.grpc_url) < MEND_SECONDS
    assert ask_http(server.http_url, "whole_image", IMAGE=[PHOTO])["STATUS"].tolist() == [[1]]
    assert re.search(r"Triton died, killed by signal 9; .*From its log:\n.*\.cc:", capsys.readouterr().err)


@pytest.mark.parametrize("leaf", ["decode", pytest.param("encode_image", marks=pytest.mark.slow)])
def test_requests_in_a_killed_process_do_not_hang(server: Server, leaf: str) -> None:
    def ask(_: int) -> float:
        begin = time.monotonic()
        with contextlib.suppress(InferenceServerException):
            ask_grpc(server.grpc_url, "product_image", IMAGE=[PHOTO] * 16, PRODUCT_TYPE=[b"mug"] * 16)
        return time.monotonic() - begin

    with ThreadPoolExecutor(8) as threads:
        took = threads.map(ask, range(60))
        time.sleep(0.1)
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == leaf), signal.SIGKILL)
        assert max(took) < MEND_SECONDS
    assert seconds_until_right(server.grpc_url) < MEND_SECONDS


def test_requests_merged_by_the_batcher_are_told_apart(server: Server) -> None:
    """Many at once, of unlike batch sizes and lengths."""

    def ask(i: int) -> None:
        tokens = np.full((1 + i % 3, 4 + i % 2), i, np.int64)
        tokens[:, 0] = 0
        expected = (tokens + 1) / np.linalg.norm(tokens + 1, axis=1, keepdims=True)
        np.testing.assert_allclose(ask_grpc(server.grpc_url, "encode_text", TOKENS=tokens)["EMBEDDING"], expected, 1e-5)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(64)))


def test_request_that_the_graph_refuses_says_why(server: Server) -> None:
    with pytest.raises(InferenceServerException, match=r"invalid dimensions for input: TOKENS"):
        ask_grpc(server.grpc_url, "encode_prompt", TOKENS=np.zeros((1, 15), np.int64))


def test_only_what_is_asked_for_comes_back(server: Server) -> None:
    answer = ask_grpc(server.grpc_url, "decode", outputs=["SIZE"], IMAGE=[PHOTO])
    assert {name: array.tolist() for name, array in answer.items()} == {"SIZE": [[120, 90, 120, 90]]}


def test_model_control_is_closed_to_others(server: Server) -> None:
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.unload_model("decode")


def test_stop_gives_everything_back(toy_repositories: list[Path]) -> None:
    server = Server.start(toy_repositories)
    processes = own_processes(server)
    assert len(processes) > len(LEAVES)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < MEND_SECONDS
    assert_nothing_left(processes, server.ports, server.shm_prefix)


def test_an_idle_connection_holds_no_stop_and_costs_no_answer(toy_repositories: list[Path], tmp_path: Path) -> None:
    hold = tmp_path / "hold"

    def let_it_wait(models: Path) -> None:
        code, signature = models / "tokenize/1/model.py", "    def execute(self, requests):\n"
        wait = f"        import os, time\n        while os.path.exists({str(hold)!r}):\n            time.sleep(0.05)\n"
        text = code.read_text()
        assert signature in text
        code.write_text(text.replace(signature, signature + wait))

    server = Server.start(copy_with(toy_repositories, tmp_path, let_it_wait))
    idle = http.client.HTTPConnection("127.0.0.1", server.ports.http)
    idle.request("GET", "/v2/health/ready")
    assert idle.getresponse().read() == b""
    hold.touch()
    with ThreadPoolExecutor(3) as threads:
        leaf = threads.submit(ask_http, server.http_url, "tokenize", TEXT=[b"mug"])
        pipeline = threads.submit(ask_grpc, server.grpc_url, "product_text", TEXT=[b"mug"])
        time.sleep(0.5)
        stopping = threads.submit(server.stop)
        time.sleep(0.5)
        assert not stopping.done()
        begin = time.monotonic()
        hold.unlink()
        assert leaf.result()["TOKENS"].size
        assert np.isclose(np.linalg.norm(pipeline.result()["EMBEDDING"]), 1)
        stopping.result()
    assert time.monotonic() - begin < MEND_SECONDS
    idle.close()


def assert_nothing_left(processes: list[int], ports: Ports, shm_prefix: str) -> None:
    assert not [pid for pid in processes if is_alive(pid)]
    assert not list(SHARED_MEMORY.glob(f"{shm_prefix}*"))
    for port in (ports.grpc, ports.http, ports.metrics):
        socket.create_server(("127.0.0.1", port)).close()


class Command(NamedTuple):
    """`python -m serving start` as a process, ready."""

    process: subprocess.Popen[str]
    ports: Ports
    printed: str

    @property
    def shm_prefix(self) -> str:
        return f"vlclip_{self.process.pid}_"


@pytest.fixture
def command(toy_repositories: list[Path]) -> Iterator[Command]:
    arguments = [f"--model-repository={toy_repositories[0]}"]
    arguments += [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    with subprocess.Popen(
        [sys.executable, "-m", "serving.server.start", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        printed = "".join(lines)
        ports = dict(re.findall(r"(gRPC|HTTP|metrics) .*:(\d+)", printed))
        try:
            yield Command(process, Ports(int(ports["gRPC"]), int(ports["HTTP"]), int(ports["metrics"])), printed)
        finally:
            process.terminate()


class Request(NamedTuple):
    begin: float
    end: float
    error: str | None


def keep_asking(url: str) -> list[Request]:
    """One request after the other, each of some length, until the server is gone; an overloaded one is asked again."""
    requests: list[Request] = []
    while not requests or requests[-1].error is None:
        begin, error = time.monotonic(), None
        try:
            ask_grpc(url, "product_image", IMAGE=[PHOTO] * 32, PRODUCT_TYPE=[b"mug"] * 32)
        except InferenceServerException as exception:
            error = str(exception)
            if "overloaded: " in error:
                time.sleep(0.05)
                continue
        requests.append(Request(begin, time.monotonic(), error))
    return requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_under_load_finishes_what_was_accepted(command: Command, number: signal.Signals) -> None:
    assert "product_image" in command.printed
    processes = [command.process.pid, *(stub.pid for stub in find_stubs(command.shm_prefix))]
    with ThreadPoolExecutor(6) as threads:
        clients = [threads.submit(keep_asking, f"127.0.0.1:{command.ports.grpc}") for _ in range(6)]
        time.sleep(2)
        signalled = time.monotonic()
        command.process.send_signal(number)
        requests = [request for client in clients for request in client.result()]
    assert command.process.wait(timeout=30) == 0
    accepted = [one for one in requests if one.begin < signalled - 0.1 and one.end > signalled]
    assert accepted
    assert not [one.error for one in accepted if one.error]
    assert_nothing_left(processes, command.ports, command.shm_prefix)


def test_missing_model_is_named_with_the_remedy(tmp_path: Path) -> None:
    bare = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository", bare, ignore=shutil.ignore_patterns("model.onnx"))
    with pytest.raises(SetupError, match=r"crop/1/model\.onnx is missing: run `make models`"):
        Server.start([bare])


def test_repository_without_models_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"holds no models: `python -m export --out"):
        Server.start([tmp_path, ROOT / "ensembles"])


def test_missing_tokenizer_is_named_with_the_remedy(tmp_path: Path, toy_repositories: list[Path]) -> None:
    bare = shutil.copytree(toy_repositories[0], tmp_path / "models")
    (bare / "tokenize" / "1" / "tokenizer.json").unlink()
    with pytest.raises(SetupError, match=r"tokenize/1/tokenizer\.json is missing: run `make models`"):
        Server.start([bare])


def copy_with(toy_repositories: list[Path], to: Path, change: Callable[[Path], object]) -> list[Path]:
    models = shutil.copytree(toy_repositories[0], to / "models")
    change(models)
    return [models, toy_repositories[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda models: (models / "fit/1/model.onnx").write_bytes(b"broken"), "failed to load 'fit'.*Protobuf"),
        (
            lambda models: (models / "decode/1/model.py").write_text("import nowhere"),
            "failed to load 'decode'.*nowhere",
        ),
        (lambda models: (models / "crop/config.pbtxt").write_text("max_batch_size: 1"), "crop"),
    ],
    ids=["no ONNX", "failing import", "config without tensors"],
)
def test_failed_start_shows_the_lines_that_matter(
    toy_repositories: list[Path], tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(ServerError, match=r"(?s)did not start:.*" + message) as caught:
        Server.start(copy_with(toy_repositories, tmp_path, change))
    assert len(str(caught.value).splitlines()) < 35
    assert not list(SHARED_MEMORY.glob(f"vlclip_{os.getpid()}_*_none"))


def test_config_that_is_none_is_named(toy_repositories: list[Path], tmp_path: Path) -> None:
    def spoil(models: Path) -> None:
        (models / "crop/config.pbtxt").write_text("max_batch_size: x")

    with pytest.raises(SetupError, match=r"crop/config\.pbtxt is no model config.*integer"):
        Server.start(copy_with(toy_repositories, tmp_path, spoil))


def test_server_that_answers_wrongly_does_not_count_as_started(toy_repositories: list[Path], tmp_path: Path) -> None:
    def forget_unit_length(models: Path) -> None:
        shutil.copy(models / "encode_text/1/model.onnx", tmp_path / "spare.onnx")
        shutil.copy(models / "encode_prompt/1/model.onnx", models / "encode_text/1/model.onnx")

    with pytest.raises(ServerError, match="is ready, but enriched_text does not answer"):
        Server.start(copy_with(toy_repositories, tmp_path, forget_unit_length))


def test_taken_port_is_named(toy_repositories: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"no HTTP on 127.0.0.1:{port}: .*in use"):
            Server.start(toy_repositories, ports=Ports(http=port))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--grpc-port={taken}", r"no gRPC on 127\.0\.0\.1:\d+: .*in use"),
        ("--metrics-port=70000", "no metrics on .*:70000"),
        ("--host=192.0.2.1", r"no gRPC on 192\.0\.2\.1:\d+: .*annot assign"),
        ("--profile=nowhere", "there is no profile nowhere"),
        ("--model-repository=nowhere", "nowhere holds no models"),
        ("--tls-cert={file} --tls-key={file}", "no TLS with .*python -m deploy.certificates"),
        ("--triton=nowhere", "found no tritonserver in nowhere"),
        ("--triton={file}", "cannot be run: .*ermission denied"),
        ("--log=nowhere/log", "Triton's log cannot be written: .*nowhere/log"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(
    toy_repositories: list[Path], tmp_path: Path, option: str, named: str
) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "serving.server.start", f"--model-repository={toy_repositories[0]}"]
    command += [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "https")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = option.format(taken=taken.getsockname()[1], file=tmp_path / "file").split()
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (1, "")
    first, *remedy = done.stderr.splitlines()
    assert re.search(f"^error: .*{named}", first)
    assert all(line.startswith("    ") for line in remedy)


@pytest.mark.parametrize(("said", "expected"), [(None, "1"), ("0", "0")], ids=["by default", "unless it is said"])
def test_telemetry_is_off(
    toy_repositories: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str
) -> None:
    """With a program that tells its environment for a Triton."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if said:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    triton = tmp_path / "tritonserver"
    triton.write_text('#!/bin/sh\necho "error: telemetry $ORT_DISABLE_TELEMETRY"\nexit 1\n')
    triton.chmod(0o755)
    with pytest.raises(ServerError, match=f"error: telemetry {expected}$"):
        Server.start(toy_repositories, triton=str(triton))
