"""What a probe says about a server whose processes are killed, stopped or hang, and what the server does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from serving.paths import ROOT
from serving.repository.specs import PIPELINES
from serving.server.api import Api
from serving.server.probe import check_live, check_ready, main
from serving.server.server import Server
from serving.server.stubs import SHARED_MEMORY, Stub, find_stubs, is_alive
from tests.asking import SECONDS, ask_grpc, until
from tests.pictures import PHOTO
from tests.toys import Gate


@dataclass
class Target:
    """A server of toys that tests can break, and the gates of its tokenizers."""

    server: Server
    api: Api
    tokenize: Gate
    tokenize_prompt: Gate

    def stub(self, model: str) -> Stub:
        return next(stub for stub in find_stubs(self.server.shm_prefix) if stub.model == model)

    def probe(self, *pipelines: str, timeout: float = SECONDS) -> tuple[bool, str]:
        return check_ready(self.api, pipelines or list(PIPELINES), timeout)

    def wait_until_ready(self) -> None:
        until(lambda: self.probe()[0])

    def ground(self) -> None:
        with suppress(InferenceServerException):
            ask_grpc(self.server.grpc_url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])


@pytest.fixture(scope="module")
def target(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    models = Path(shutil.copytree(toy_repositories[0], tmp_path_factory.mktemp("target") / "models"))
    gates = Gate(models, "tokenize"), Gate(models, "tokenize_prompt")
    with Server.start([models, toy_repositories[1]]) as server:
        api = Api((server.host, server.ports.http), (server.host, server.ports.metrics))
        yield Target(server, api, *gates)


def options(target: Target) -> list[str]:
    metrics = f"{target.server.host}:{target.server.ports.metrics}"
    return [f"--url={target.server.http_url}", f"--metrics={metrics}", f"--timeout={SECONDS}"]


def test_a_server_that_works_is_ready_and_live(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ready", *options(target)]) == 0
    assert main(["--live", *options(target)]) == 0
    assert main(["--ready", "--pipeline=ground", *options(target)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ready: product_image, whole_image, ground, product_text, enriched_text: correct answers",
        "live: Triton answers",
        "ready: ground: correct answers",
    ]


def test_an_address_where_nothing_listens_is_named_once(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    well = ("127.0.0.1", target.server.ports.metrics)
    for api, option in ((Api(nobody, well), "--url"), (Api(well, nobody), "--metrics")):
        is_ready, message = check_ready(api, list(PIPELINES), SECONDS)
        assert not is_ready
        assert f"is {option} its address?" in message
        assert message.count("refused") == 1


def test_a_probe_imports_little() -> None:
    heavy = "numpy", "cv2", "torch", "grpc", "tritonclient", "google"
    program = (
        "import sys, serving.server.probe\nfrom serving.server.api import samples\nsamples()\n"
        f"print(sys.modules.keys() & set({heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_stopped_process_makes_its_pipelines_unready_and_is_replaced(
    target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    triton, victim = target.server.pid, target.stub("detect")
    os.kill(victim.pid, signal.SIGSTOP)
    # The answer comes once the server has killed the process.
    is_ready, message = target.probe("product_image", "ground", "whole_image")
    assert not is_ready
    assert "product_image does not answer" in message
    assert "ground does not answer" in message
    assert "whole_image" not in message
    target.wait_until_ready()
    assert target.server.pid == triton
    assert not is_alive(victim.pid)
    assert re.search(r"a process of detect was stopped \d+ s ago; killing it", capfd.readouterr().err)


@pytest.mark.slow
def test_a_stopped_triton_is_restarted(target: Target) -> None:
    triton = target.server.pid
    os.kill(triton, signal.SIGSTOP)
    until(lambda: target.server.pid != triton)
    target.wait_until_ready()
    assert check_live(target.api, SECONDS) == (True, "Triton answers")


def test_a_triton_that_never_answers_is_not_live() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        is_live, message = check_live(Api(silent.getsockname(), ("127.0.0.1", 1)), timeout=0.2)
    assert not is_live
    assert "accepts connections and does not answer within 0.2 s" in message


def test_an_overloaded_server_is_ready_unless_a_process_hangs(target: Target) -> None:
    with target.tokenize.closed("refuse"):
        is_ready, message = target.probe("product_text", timeout=1)
        assert is_ready, message
        assert "product_text does not answer" in message
        assert "overloaded: try again later" in message
        with target.tokenize_prompt.closed(), ThreadPoolExecutor(3) as threads:
            threads.submit(target.ground)
            until(target.tokenize_prompt.is_reached)
            for _ in range(2):
                threads.submit(target.ground)
            until(lambda: target.api.queues()["tokenize_prompt", 1].waiting == 2)
            is_ready, message = target.probe("product_text", timeout=1)
            target.tokenize_prompt.open()
    assert not is_ready
    assert "tokenize_prompt has finished none of 2 requests in 1 s" in message
    target.wait_until_ready()


def test_a_server_that_is_stopping_is_live_and_not_ready(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    with target.tokenize_prompt.closed(), ThreadPoolExecutor(2) as threads:
        accepted = threads.submit(ask_grpc, target.server.grpc_url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])
        until(target.tokenize_prompt.is_reached)
        stopping = threads.submit(target.server.stop)
        until(lambda: not target.probe("product_text")[0])
        assert check_live(target.api, SECONDS) == (True, "Triton answers")
        target.tokenize_prompt.open()
        assert accepted.result()["STATUS"].tolist() == [[0]]
        stopping.result()
    assert main(["--ready", *options(target)]) == 1
    assert main(["--live", *options(target)]) == 0
    assert "not ready: cannot read the metrics; is the server running" in capsys.readouterr().out


def test_nothing_is_left_of_a_killed_server(toy_repositories: list[Path]) -> None:
    arguments = [f"--model-repository={toy_repositories[0]}", "--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    with subprocess.Popen(
        [sys.executable, "-m", "serving", "start", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert "Serving" in process.stdout.readline()
        prefix = f"vlclip_{process.pid}_"
        assert find_stubs(prefix)
        process.kill()
    until(lambda: not find_stubs(prefix) and not list(SHARED_MEMORY.glob(f"{prefix}*")))
