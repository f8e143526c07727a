"""A server with toy models, whose processes are killed, and which is stopped in many ways."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from serving.errors import ServerError, SetupError
from serving.paths import ROOT
from serving.repository.specs import LEAVES
from serving.server.api import Api
from serving.server.launch import backoff
from serving.server.limits import DRAIN_SECONDS, FIRST_STARTS
from serving.server.options import NEWER_OPTIONS
from serving.server.server import Ports, Server
from serving.server.stubs import SHARED_MEMORY, find_stubs, is_alive
from tests.asking import ask_grpc, ask_http, read_until, until
from tests.pictures import PHOTO
from tests.toys import GRAPHS, Gate, to_onnx


@pytest.fixture(scope="module")
def models(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(toy_repositories[0], tmp_path_factory.mktemp("of Jürgen's") / "models"))


@pytest.fixture(scope="module")
def gate(models: Path) -> Gate:
    """Controls `decode`. Nothing is refused: the first step of a pipeline would take a held `decode` for a slow one."""
    Gate(models, "tokenize_prompt")
    return Gate(models, "decode")


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path], models: Path, gate: Gate) -> Iterator[Server]:
    """A server that recovers from each test."""
    with Server.start([models, toy_repositories[1]]) as server:
        yield server


def assert_correct(url: str) -> None:
    """Every pipeline gives the correct answer."""
    grounded = ask_grpc(url, "product_image", IMAGE=[PHOTO, b""], PRODUCT_TYPE=[b"mug", b"mug"])
    whole = ask_grpc(url, "whole_image", IMAGE=[PHOTO])
    assert grounded["STATUS"].tolist() == [[0], [2]]
    assert whole["STATUS"].tolist() == [[1]]
    np.testing.assert_allclose(grounded["EMBEDDING"][:1], whole["EMBEDDING"])
    assert ask_grpc(url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])["BOX"].tolist() == [[0, 0, 45, 60]]
    assert np.isclose(np.linalg.norm(ask_grpc(url, "product_text", TEXT=[b"mug"])["EMBEDDING"]), 1)
    enriched = ask_grpc(url, "enriched_text", PRODUCT=[b'{"title": "mug"}', b"no product"], IMAGE=[b"", b""])
    assert enriched["STATUS"].tolist() == [[1], [4]]


def wait_until_correct(url: str) -> None:
    """Wait until the pipelines are correct five times in a row, because a model may have several processes."""

    def are_correct() -> bool:
        try:
            for _ in range(5):
                assert_correct(url)
        except InferenceServerException:
            return False
        return True

    until(are_correct)


@pytest.mark.parametrize("leaves", [["decode"], ["detect"], ["tokenize"], LEAVES.keys() - {"observe"}], ids=str)
def test_model_processes_that_are_killed_are_replaced(server: Server, leaves: Collection[str]) -> None:
    triton = server.pid
    victims = [stub for stub in find_stubs(server.shm_prefix) if stub.model in leaves]
    assert {stub.model for stub in victims} == set(leaves)
    for stub in victims:
        os.kill(stub.pid, signal.SIGKILL)
    wait_until_correct(server.grpc_url)
    assert not [stub.model for stub in victims if (SHARED_MEMORY / stub.region).exists()]
    assert server.pid == triton


def test_a_killed_triton_is_restarted_on_the_same_ports(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_until_correct(server.grpc_url)
    assert ask_http(server.http_url, "whole_image", IMAGE=[PHOTO])["STATUS"].tolist() == [[1]]
    assert re.search(
        r"restarting Triton: Triton died, killed by signal 9\. From its log:\n.*\.cc:", capsys.readouterr().err
    )


def send_deep_json(url: str) -> None:
    """Send JSON that overflows the stack of Triton 2.51, which kills it."""
    deep = 60_000
    body = '{"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": %s}]}' % (
        "[" * deep + "]" * deep
    )
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(url, timeout=5)) as connection,
    ):
        connection.request("POST", "/v2/models/product_text/infer", body)
        connection.getresponse()


def test_a_failed_restart_is_tried_again(server: Server, models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graph = models / "fit" / "1" / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(b"broken")
    send_deep_json(server.http_url)
    reports = read_until("Triton is started again in", capfd)
    assert "restarting Triton: Triton died, killed by signal 11" in reports
    assert "Triton did not start, with exit code 1" in reports
    graph.write_bytes(content)
    wait_until_correct(server.grpc_url)


@pytest.mark.slow
def test_a_request_that_kills_triton_again_while_it_restarts_does_not_end_the_server(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    reports = ""

    def has_failed_to_restart() -> bool:
        nonlocal reports
        send_deep_json(server.http_url)
        reports += capfd.readouterr().err
        return "Triton is started again in" in reports

    until(has_failed_to_restart)
    wait_until_correct(server.grpc_url)


def test_requests_in_a_killed_process_end_with_an_error(server: Server, gate: Gate) -> None:
    def ask() -> str | None:
        try:
            ask_grpc(server.grpc_url, "product_image", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])
        except InferenceServerException as error:
            return str(error)
        return None

    with ThreadPoolExecutor(4) as threads, gate.closed():
        running = threads.submit(ask)
        until(gate.is_reached)
        queued = [threads.submit(ask) for _ in range(3)]
        until(lambda: waiting_for(server.ports, "decode") == 3)
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "decode"), signal.SIGKILL)
        gate.open()
        assert running.result()
        assert not [error for one in (running, *queued) if (error := one.result()) and "Deadline" in error]
    wait_until_correct(server.grpc_url)


def waiting_for(ports: Ports, model: str) -> int:
    """The number of requests that wait until a model has finished others."""
    return Api(("127.0.0.1", ports.http), ("127.0.0.1", ports.metrics)).queues()[model, 1].waiting


def test_requests_in_one_batch_get_their_own_answers(server: Server) -> None:
    """Many requests at once, with different batch sizes and lengths."""

    def ask(i: int) -> None:
        tokens = np.full((1 + i % 3, 4 + i % 2), i, np.int64)
        tokens[:, 0] = 0
        expected = (tokens + 1) / np.linalg.norm(tokens + 1, axis=1, keepdims=True)
        np.testing.assert_allclose(ask_grpc(server.grpc_url, "encode_text", TOKENS=tokens)["EMBEDDING"], expected, 1e-5)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(64)))


def test_only_requested_outputs_are_returned(server: Server) -> None:
    answer = ask_grpc(server.grpc_url, "decode", outputs=["SIZE"], IMAGE=[PHOTO])
    assert {name: array.tolist() for name, array in answer.items()} == {"SIZE": [[120, 90, 120, 90]]}


def is_ready(ports: Ports, model: str) -> bool:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        return bool(client.is_model_ready(model))


def assert_nothing_left(processes: list[int], ports: Ports, shm_prefix: str) -> None:
    assert not [pid for pid in processes if is_alive(pid)]
    assert not list(SHARED_MEMORY.glob(f"{shm_prefix}*"))
    for port in (ports.grpc, ports.http, ports.metrics):
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_the_command_finishes_accepted_requests_after_a_signal(
    models: Path, gate: Gate, number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "serving", "start", f"--model-repository={models}"]
    command += [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    (tmp_path / "a b").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "a b"), "HOME": str(tmp_path / "a b")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed = "".join(iter(process.stdout.readline, "Ctrl-C stops.\n"))
        assert "product_image" in printed
        found = dict(re.findall(r"(gRPC|HTTP|metrics) .*:(\d+)", printed))
        ports = Ports(int(found["gRPC"]), int(found["HTTP"]), int(found["metrics"]))
        shm_prefix = f"vlclip_{process.pid}_"
        processes = [process.pid, *(stub.pid for stub in find_stubs(shm_prefix))]

        def ask(rows: int) -> list[list[int]]:
            url = f"127.0.0.1:{ports.grpc}"
            answer = ask_grpc(url, "product_image", IMAGE=[PHOTO] * rows, PRODUCT_TYPE=[b"mug"] * rows)
            statuses: list[list[int]] = answer["STATUS"].tolist()
            return statuses

        idle = http.client.HTTPConnection("127.0.0.1", ports.http)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b""
        with ThreadPoolExecutor(6) as threads, gate.closed():
            leaf = threads.submit(ask_http, f"127.0.0.1:{ports.http}", "decode", IMAGE=[PHOTO])
            until(gate.is_reached)
            answers = [threads.submit(ask, rows) for rows in range(1, 6)]
            until(lambda: waiting_for(ports, "decode") == 5)
            process.send_signal(number)
            until(lambda: not is_ready(ports, "product_image"))
            assert process.poll() is None
            gate.open()
            assert leaf.result()["DECODED"].tolist() == [[0]]
            assert [answer.result() for answer in answers] == [[[0]] * rows for rows in range(1, 6)]
        # The idle connection is not waited for.
        assert process.wait(timeout=DRAIN_SECONDS) == 0
        idle.close()
    assert_nothing_left(processes, ports, shm_prefix)


def test_a_missing_model_is_named_with_the_command_that_makes_it(tmp_path: Path, toy_repositories: list[Path]) -> None:
    bare = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository", bare, ignore=shutil.ignore_patterns("model.onnx"))
    with pytest.raises(SetupError, match=r"crop/1/model\.onnx is missing: run `make models`"):
        Server.start([bare])
    with pytest.raises(SetupError, match=r"holds no models: .* `make models MODELS="):
        Server.start([tmp_path, ROOT / "ensembles"])
    untokenized = Path(shutil.copytree(toy_repositories[0], tmp_path / "untokenized"))
    (untokenized / "tokenize" / "1" / "tokenizer.json").unlink()
    with pytest.raises(SetupError, match=r"tokenize/1/tokenizer\.json is missing: run `make models`"):
        Server.start([untokenized])


CONFIG = "crop/config.pbtxt"
PROMPTS = to_onnx("encode_prompt", GRAPHS["encode_prompt"]).SerializeToString()


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        pytest.param("fit/1/model.onnx", b"x", ServerError, "did not start.*load 'fit'.*Protobuf", id="no ONNX"),
        pytest.param(
            "decode/1/model.py", b"import x", ServerError, "start, with.*load 'decode'.*'x'", id="failing import"
        ),
        pytest.param(CONFIG, b"max_batch_size: 1", ServerError, "did not start.*crop", id="config without tensors"),
        pytest.param(CONFIG, b"max_batch_size: x", SetupError, "crop.*is no model config.*integer", id="wrong type"),
        pytest.param("encode_text/1/model.onnx", PROMPTS, ServerError, "ready, but enriched_text", id="wrong answers"),
    ],
)
def test_a_failed_start_shows_the_lines_that_matter(
    toy_repositories: list[Path], tmp_path: Path, file: str, content: bytes, error: type[Exception], message: str
) -> None:
    models = Path(shutil.copytree(toy_repositories[0], tmp_path / "models"))
    (models / file).write_bytes(content)
    with pytest.raises(error, match="(?s)" + message) as caught:
        Server.start([models, toy_repositories[1]])
    assert len(str(caught.value).splitlines()) < 35
    assert not list(SHARED_MEMORY.glob(f"vlclip_{os.getpid()}_*_none"))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--grpc-port={taken}", r"cannot listen for gRPC on 127\.0\.0\.1:\d+: .*in use"),
        ("--http-port={taken}", r"cannot listen for HTTP on 127\.0\.0\.1:\d+: .*in use"),
        ("--metrics-port=70000", "cannot listen for metrics on .*:70000"),
        ("--host=192.0.2.1", r"cannot listen for gRPC on 192\.0\.2\.1:\d+: .*annot assign"),
        ("--host=", "--host : expected a host name or an IPv4 address: it is empty"),
        (f"--host={'x' * 64}", "expected a host name or an IPv4 address: .*label"),
        ("--host=::1", "--host ::1: expected a host name or an IPv4 address"),
        ("--host=name.invalid", "--host name.invalid: expected a host name or an IPv4 address"),
        ("--profile=nowhere", "there is no profile nowhere: it is embedded-cpu, embedded-gpu, ngc-onnx"),
        ("--profile=/", "there is no profile /"),
        ("--model-repository=nowhere", "nowhere is not a folder: expected a model repository"),
        ("--tls-cert={file} --tls-key={file}", "cannot use TLS with .*expected matching PEM files"),
        ("--triton=nowhere", "found no tritonserver in nowhere"),
        ("--triton={file}", "cannot be run: .*ermission denied"),
        ("--log=nowhere/log", "Triton's log cannot be written: .*nowhere/log"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    toy_repositories: list[Path], tmp_path: Path, option: str, named: str
) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "serving", "start", f"--model-repository={toy_repositories[0]}"]
    command += [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = option.format(taken=taken.getsockname()[1], file=tmp_path / "file").split()
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    first, *remedy = done.stderr.splitlines()
    assert re.search(f"^error: .*{named}", first)
    assert all(line.startswith("    ") for line in remedy)
    if "{taken}" in option:
        assert f"choose another port with {option.partition('=')[0]} " in remedy[0]
        assert "make serve PORT=" in remedy[0]


def start_fake(repositories: list[Path], folder: Path, listed: Sequence[str] = ()) -> str:
    """Start a tritonserver that lists options in its --help, and otherwise prints what it was given and ends."""
    triton = folder / "tritonserver"
    help_text = " ".join(f"'  {option} <value>'" for option in listed) or "''"
    triton.write_text(f"""#!/bin/sh
if [ "$1" = --help ]; then printf '%s\\n' {help_text} >&2; exit 1; fi
echo "error: telemetry $ORT_DISABLE_TELEMETRY, options $*"
exit 1
""")
    triton.chmod(0o755)
    with pytest.raises(ServerError) as caught:
        Server.start(repositories, triton=str(triton))
    return str(caught.value)


def test_telemetry_is_off_by_default(
    toy_repositories: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert "telemetry 1," in start_fake(toy_repositories, tmp_path)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert "telemetry 0," in start_fake(toy_repositories, tmp_path)


@pytest.mark.parametrize(("end", "starts"), [("exit 1", 1), ("kill -s SEGV $$", FIRST_STARTS)])
def test_only_a_crash_is_tried_again_before_the_server_has_ever_worked(
    toy_repositories: list[Path], tmp_path: Path, end: str, starts: int
) -> None:
    triton = tmp_path / "tritonserver"
    triton.write_text(f"#!/bin/sh\ncase $1 in --help) exit 1;; esac\necho >> {tmp_path}/starts\n{end}\n")
    triton.chmod(0o755)
    with pytest.raises(ServerError, match=r"Triton did not start, (with exit code 1|killed by signal 11):"):
        Server.start(toy_repositories, triton=str(triton))
    assert (tmp_path / "starts").read_text().count("\n") == starts


def test_waits_between_starts_grow_up_to_a_limit_and_have_jitter() -> None:
    longest = list(itertools.islice(backoff(max), 8))
    assert longest == [1, 2, 4, 8, 16, 32, 60, 60]
    assert list(itertools.islice(backoff(min), 8)) == [seconds / 2 for seconds in longest]


def test_newer_options_are_passed_to_a_triton_that_lists_them(toy_repositories: list[Path], tmp_path: Path) -> None:
    names = [option.name for option in NEWER_OPTIONS]
    started = start_fake(toy_repositories, tmp_path, names)
    assert [name for name in names if name in started] == ["--allow-client-shm"]
    assert "--allow-client-shm=true" in started
    older = start_fake(toy_repositories, tmp_path, ["--allow-client-shm-of-another-name"])
    assert not [name for name in names if name in older]
