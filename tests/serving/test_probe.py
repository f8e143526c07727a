"""What a probe says of a server whose processes are killed, stopped, hung and starved, and what the server does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from serving.paths import REPOSITORIES, ROOT
from serving.repository.specs import PIPELINES
from serving.server.api import Api
from serving.server.hangs import Hangs
from serving.server.probe import check_live, check_ready, main
from serving.server.server import Server
from serving.server.stubs import PROCESSES, SHARED_MEMORY, Stub, find_stubs, is_alive, kill
from tests.asking import ask_grpc
from tests.pictures import encode, picture

PHOTO = encode(picture(), "JPEG")
RED_SECONDS = 10
"""In which a probe is to notice a process that was stopped."""
SECONDS = 60
"""More than a busy machine takes for anything here."""
PATIENCE = 1.5
"""For a process that hangs; the server's own is longer."""
TROUBLE = """
    def execute(self, requests):
        import os, time
        begun = time.process_time()
        while os.path.exists("{hang}"):
            time.sleep(0.2)
        while os.path.exists("{toil}") and time.process_time() - begun < 0.1:
            pass
        if os.path.exists("{refuse}"):
            refusal = "overloaded: come again", pb_utils.TritonError.UNAVAILABLE
            # One error for each: Triton crashes where two responses share it.
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(*refusal)) for _ in requests]
"""
"""For a model.py: as long as there are such files, the process hangs, has more to compute, or refuses to."""


class Harmed:
    """A server of toys, whose tokenizers can be made to hang, to toil and to refuse."""

    def __init__(self, server: Server, folder: Path):
        self.server = server
        self.folder = folder
        self.api = Api((server.host, server.ports.http), (server.host, server.ports.metrics))

    def stub(self, model: str) -> Stub:
        return next(stub for stub in find_stubs(self.server.shm_prefix) if stub.model == model)

    @contextmanager
    def trouble(self, kind: str, model: str) -> Iterator[None]:
        file = self.folder / f"{kind}-{model}"
        file.touch()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def ready(self, *pipelines: str, timeout: float = 2.5) -> tuple[bool, str]:
        return check_ready(self.api, pipelines or list(PIPELINES), timeout)

    def wait(self, wanted: bool) -> float:
        """Until the probe is green or red; the seconds that took."""
        begin = time.monotonic()
        while self.ready()[0] is not wanted:
            assert time.monotonic() - begin < SECONDS
            time.sleep(0.1)
        return time.monotonic() - begin

    def ask(self, product_type: bytes) -> None:
        with suppress(InferenceServerException):
            ask_grpc(self.server.grpc_url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[product_type])


@pytest.fixture(scope="module")
def harmed(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harmed]:
    folder = tmp_path_factory.mktemp("harmed")
    models = shutil.copytree(toy_repositories[0], folder / "models")
    for model in ("tokenize", "tokenize_prompt"):
        code, signature = models / model / "1" / "model.py", "    def execute(self, requests):\n"
        text = code.read_text()
        assert signature in text
        files = {kind: folder / f"{kind}-{model}" for kind in ("hang", "toil", "refuse")}
        trouble = TROUBLE.format(**files).lstrip("\n")
        code.write_text(text.replace(signature, trouble))
    with Server.start([models, REPOSITORIES[1]]) as server:
        yield Harmed(server, folder)


def command(harmed: Harmed, *options: str) -> list[str]:
    return [
        *options,
        f"--url={harmed.server.http_url}",
        f"--metrics={harmed.server.host}:{harmed.server.ports.metrics}",
    ]


def test_a_server_that_works_is_ready_and_live(harmed: Harmed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(harmed, "--ready")) == 0
    assert main(command(harmed, "--live")) == 0
    assert main(command(harmed, "--ready", "--pipeline=ground")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ready: product_image, whole_image, ground, product_text, enriched_text: answered rightly",
        "live: Triton answers",
        "ready: ground: answered rightly",
    ]


def test_a_probe_imports_little() -> None:
    heavy = "numpy", "cv2", "torch", "grpc", "tritonclient", "google"
    program = (
        "import sys, serving.server.probe\nfrom serving.server.api import samples\nsamples()\n"
        f"print(sys.modules.keys() & set({heavy}))"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_a_stopped_process_is_seen_and_mended(harmed: Harmed, capfd: pytest.CaptureFixture[str]) -> None:
    triton, victim = harmed.server.pid, harmed.stub("detect")
    os.kill(victim.pid, signal.SIGSTOP)
    assert harmed.wait(wanted=False) < RED_SECONDS
    told, words = harmed.ready()
    assert not told
    assert "product_image" in words
    assert "ground" in words
    assert "whole_image" not in words
    assert check_live(harmed.api, timeout=2.5)[0]
    harmed.wait(wanted=True)
    assert harmed.server.pid == triton
    assert not is_alive(victim.pid)
    assert re.search("a process of detect was stopped . s ago; killing it", capfd.readouterr().err)


@pytest.mark.slow
def test_a_process_that_was_stopped_may_go_on(harmed: Harmed) -> None:
    victim = harmed.stub("crop").pid
    os.kill(victim, signal.SIGSTOP)
    assert harmed.wait(wanted=False) < RED_SECONDS
    # Triton has given it up by now and may crash, which is mended too.
    os.kill(victim, signal.SIGCONT)
    harmed.wait(wanted=True)


def test_a_killed_process_is_mended(harmed: Harmed) -> None:
    kill(harmed.stub("encode_image").pid)
    assert harmed.wait(wanted=False) < RED_SECONDS
    harmed.wait(wanted=True)


@pytest.mark.slow
def test_a_stopped_triton_is_neither_ready_nor_live_and_started_anew(harmed: Harmed) -> None:
    os.kill(harmed.server.pid, signal.SIGSTOP)
    assert not harmed.ready(timeout=1)[0]
    live, words = check_live(harmed.api, timeout=1)
    assert not live
    assert "does not answer within 1 s" in words
    harmed.wait(wanted=True)
    assert check_live(harmed.api, timeout=2.5)[0]


def find_for(seconds: float, harmed: Harmed) -> dict[int, str]:
    """What hangs within that time."""
    hangs, deadline = Hangs(harmed.api, PATIENCE), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := hangs.find(harmed.server.pid, find_stubs(harmed.server.shm_prefix)):
            return found
        time.sleep(0.1)
    return {}


def test_a_process_that_hangs_is_seen_and_found(harmed: Harmed) -> None:
    with harmed.trouble("hang", "tokenize_prompt"):
        ready, words = harmed.ready(timeout=1)
        assert not ready
        assert "product_image does not answer within" in words
        assert check_live(harmed.api, timeout=2.5)[0]
        assert list(find_for(SECONDS, harmed)) == [harmed.stub("tokenize_prompt").pid]
        kill(harmed.stub("tokenize_prompt").pid)
    harmed.wait(wanted=True)


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """Leave a process what two others leave of one processor, which is a few thousandths of it."""

    def schedule(policy: int, cores: set[int]) -> None:
        for thread in Path(PROCESSES, str(pid), "task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
            with suppress(PermissionError):  # Without privileges there is no way back.
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))

    cores = os.sched_getaffinity(0)
    program = f"import os\nos.sched_setaffinity(0, {{{min(cores)}}})\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    schedule(os.SCHED_IDLE, {min(cores)})
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
        schedule(os.SCHED_OTHER, cores)


def test_a_starved_process_is_seen_and_left_alone(harmed: Harmed) -> None:
    triton, victim = harmed.server.pid, harmed.stub("tokenize_prompt").pid
    with ThreadPoolExecutor(4) as threads, harmed.trouble("toil", "tokenize_prompt"):
        harmed.wait(wanted=True)
        with starved(victim):
            assert harmed.wait(wanted=False) < RED_SECONDS
            for i in range(4):
                threads.submit(harmed.ask, b"mug" if i % 2 else b"lamp")
            assert find_for(2 * PATIENCE, harmed) == {}
            ready, words = harmed.ready()
            assert not ready
            assert "product_image does not answer" in words
            assert "product_text" not in words
            assert check_live(harmed.api, timeout=2.5)[0]
        harmed.wait(wanted=True)
    assert harmed.server.pid == triton
    assert harmed.stub("tokenize_prompt").pid == victim


@pytest.mark.slow
def test_an_overloaded_server_is_ready_unless_work_piles_up_behind_what_hangs(harmed: Harmed) -> None:
    with harmed.trouble("refuse", "tokenize"):
        ready, words = harmed.ready(timeout=1)
        assert ready, words
        assert "product_text does not answer" in words
        assert "overloaded: come again" in words
        with harmed.trouble("hang", "tokenize_prompt"), ThreadPoolExecutor(3) as threads:
            for _ in range(3):
                threads.submit(harmed.ask, b"mug")
                time.sleep(0.3)
            ready, words = harmed.ready("product_text", timeout=1)
            (harmed.folder / "hang-tokenize_prompt").unlink()
    assert not ready
    assert "tokenize_prompt has finished none of 2 requests in 1 s" in words
    harmed.wait(wanted=True)


def test_a_server_that_is_to_stop_is_live_and_not_ready(harmed: Harmed, capsys: pytest.CaptureFixture[str]) -> None:
    with harmed.trouble("hang", "tokenize_prompt"), ThreadPoolExecutor(2) as threads:
        accepted = threads.submit(ask_grpc, harmed.server.grpc_url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])
        time.sleep(0.5)
        stopping = threads.submit(harmed.server.stop)
        while harmed.ready("product_text", timeout=1)[0]:
            time.sleep(0.05)
        assert check_live(harmed.api, timeout=2.5) == (True, "Triton answers")
        (harmed.folder / "hang-tokenize_prompt").unlink()
        assert accepted.result()["STATUS"].tolist() == [[0]]
        stopping.result()
    assert main(command(harmed, "--ready")) == 1
    assert main(command(harmed, "--live")) == 0
    assert "not ready: no metrics, hence no server" in capsys.readouterr().out


def test_nothing_outlives_a_killed_server(toy_repositories: list[Path]) -> None:
    options = [f"--model-repository={toy_repositories[0]}", "--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    with subprocess.Popen(
        [sys.executable, "-m", "serving.server.start", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert "Serving" in process.stdout.readline()
        prefix = f"vlclip_{process.pid}_"
        assert find_stubs(prefix)
        process.kill()
    until(lambda: not find_stubs(prefix) and not list(SHARED_MEMORY.glob(f"{prefix}*")))


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
