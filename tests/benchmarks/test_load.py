"""Locust against a real server of toys: what a stall looks like in both loops, exit codes, misses, several processes.

Locust patches the standard library for gevent, so it always runs in processes of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager

import pytest

from benchmarks import figures, truth
from benchmarks.runs import MISSED, OK, read_requests, read_run
from benchmarks.schedule import draw_poisson
from benchmarks.slo import percentile
from benchmarks.traffic import ROOT
from serving.server.server import Server
from tests.pictures import encode, picture

SEED, WARM_UP = 3, 1.0


@pytest.fixture(scope="module")
def toys(toy_repositories):
    """A server of our own, which may be stopped and let go on."""
    with Server.start(toy_repositories) as server:
        yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "mug").mkdir()
    (folder / "mug" / "1.jpg").write_bytes(encode(picture(), "JPEG"))
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def locust(url, photos, folder, *options, mix="product_text=1"):
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--host", url, "--photos", str(photos)]
    command += ["--out", str(folder), "--seed", str(SEED), "--warm-up", str(WARM_UP), "--mix", mix, "--batches", "1=1"]
    return subprocess.Popen(
        [*command, "--headless", "--only-summary", *options],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_until_sending(*runs):
    for run in runs:
        for line in run.stdout:
            if "All users spawned" in line:
                break


@contextmanager
def stopped(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(toys, photos, tmp_path):
    """Both at once, so that they meet the same stall; the open one in two processes."""
    port = str(free_port())
    open_loop = locust(
        toys.grpc_url, photos, tmp_path / "open", "--rate", "30", "-t", "6s", "--processes", "2",
        "--master-bind-port", port, "--master-port", port, "--slo", "p99=1s error-rate=0.1%",
    )  # fmt: skip
    closed_loop = locust(
        toys.grpc_url, photos, tmp_path / "closed", "--loop", "closed", "-u", "1", "-t", "6s", "--slo", "p99=1s"
    )
    wait_until_sending(open_loop, closed_loop)
    time.sleep(WARM_UP + 1)
    with stopped(toys):
        time.sleep(2)
    said, _ = open_loop.communicate(timeout=60)
    hidden, _ = closed_loop.communicate(timeout=60)

    asked, waited = read_requests(tmp_path / "open"), read_requests(tmp_path / "closed")
    # A third of the six seconds was stalled, and who asked at its start waited through all of it.
    assert 1.5 < percentile(asked, 99) < 4
    assert percentile(asked, 80) > 0.3
    assert percentile(waited, 99) < 1
    assert max(request.latency for request in waited) > 1.5

    assert open_loop.returncode == 1, said
    assert "p99 was " in said
    assert ", the SLO is 1 s" in said
    assert "error-rate" not in said
    assert f"The first {WARM_UP:g} s were warm-up and are not counted" in said
    assert closed_loop.returncode == 0, hidden
    assert "the SLO is" not in hidden
    run = read_run(tmp_path / "open")
    assert [slo["held"] for slo in run.slos] == [False, True]
    assert (run.loop, run.shape, run.warm_up, run.steps) == ("open", "steady", WARM_UP, [(0.0, 30.0)])
    assert run.versions["triton"].startswith("2.")
    assert 0 < run.generator_cores < 2

    # The two processes together sent the one schedule, nothing twice and nothing not at all.
    arrivals = draw_poisson([(0, 30)], 6, WARM_UP, SEED)
    assert len(list((tmp_path / "open").glob("requests-*.csv"))) == 2
    assert len(asked) == (arrivals >= 0).sum()
    assert {request.user for request in asked} == {"vlclip", "tritonclient"}
    assert {request.outcome for request in asked + waited} == {OK}


@pytest.mark.slow
def test_what_cannot_be_sent_is_missed_and_what_hangs_ends_at_its_deadline(toys, photos, tmp_path):
    run = locust(
        toys.grpc_url, photos, tmp_path, "--rate", "40", "-t", "2s", "--max-in-flight", "5", "--deadline", "1",
        "--slo", "error-rate=1%",
    )  # fmt: skip
    wait_until_sending(run)
    time.sleep(WARM_UP)
    with stopped(toys):
        said, _ = run.communicate(timeout=60)
    requests = read_requests(tmp_path)
    outcomes = Counter(request.outcome for request in requests)
    assert run.returncode == 1
    assert "error-rate was " in said
    assert ", the SLO is 1%" in said
    assert len(requests) == (draw_poisson([(0, 40)], 2, WARM_UP, SEED) >= 0).sum()
    assert set(outcomes) <= {OK, MISSED, "DEADLINE_EXCEEDED"}
    assert outcomes[MISSED] > 30
    assert outcomes["DEADLINE_EXCEEDED"] >= 5
    for request in requests:
        assert (request.outcome == MISSED) == (request.sent is None) == (request.latency is None)


def test_load_takes_a_run_reads_the_server_writes_the_report_and_exits_by_the_slo(toys, photos, tmp_path):
    command = [sys.executable, "-m", "benchmarks.load", "--target", toys.grpc_url, "--metrics", toys.metrics_url]
    command += ["--rate", "15", "--duration", "2", "--photos", str(photos), "--out", str(tmp_path), "--slo", "p99=1us"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 2  # which is no SLO
    command[-1] = "p99=0.1ms error-rate=0%"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "steady: p99 was " in done.stdout
    assert "the SLO is 0.1 ms" in done.stdout
    assert (tmp_path / "report.html").exists()
    requests = read_requests(tmp_path / "steady")
    assert {request.pipeline for request in requests} >= {"product_image", "product_text"}
    found = truth.read(tmp_path / "steady")
    answered = {model.name: model.requests for model in found.pipelines}
    assert answered["product_image"] >= sum(request.pipeline == "product_image" for request in requests)


def test_a_target_is_not_overloaded_unasked():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", "--target", "localhost:1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--target needs --rate or --users" in done.stderr


@pytest.mark.parametrize("module", ["benchmarks.load", "benchmarks.locustfile"])
def test_help_tells_every_option(module):
    said = subprocess.check_output([sys.executable, "-m", module, "--help"], cwd=ROOT, text=True)
    for option in ("--slo", "--mix", "--photos", "--rate"):
        assert option in said


@pytest.mark.slow
def test_without_options_it_takes_five_runs_of_a_server_of_its_own(photos, tmp_path):
    command = [sys.executable, "-m", "benchmarks.load", "--duration", "4", "--photos", str(photos)]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [read_run(tmp_path / name) for name in ("concurrency", "steps", "steady", "closed", "spike")]
    assert [run.loop for run in runs] == ["closed", "open", "open", "closed", "open"]
    assert runs == sorted(runs, key=lambda run: run.started)
    users, rates = runs[0], runs[1]
    assert users.steps == [(0, 1), (1, 2), (2, 4), (3, 8)]
    parts = figures.steps(users, read_requests(tmp_path / "concurrency"))
    assert rates.steps[-1][1] == pytest.approx(1.4 * max(part.achieved for part in parts), rel=1e-4)
    assert rates.seconds == 8
    assert "Throughput against concurrency" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_master_and_two_workers_are_one_run(toys, photos, tmp_path):
    port = str(free_port())
    options = ["--rate", "40", "-t", "4s", "--shape", "spike", "--slo", "p99=0.1ms"]
    master = locust(
        toys.grpc_url, photos, tmp_path, *options, "--master", "--expect-workers", "2", "--master-bind-port", port
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--worker", "--master-port", port],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    said, _ = master.communicate(timeout=90)
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert master.returncode == 1, said
    assert "p99 was " in said
    steps = read_run(tmp_path).steps
    assert steps == [(0, 40), (1.6, 120), (2.4, 40)]
    requests = read_requests(tmp_path)
    assert len(requests) == (draw_poisson(steps, 4, WARM_UP, SEED) >= 0).sum()
    assert len(list(tmp_path.glob("requests-*.csv"))) == 2


@pytest.mark.slow
def test_locusts_own_page_starts_a_run(toys, photos, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--host", toys.grpc_url]
    command += ["--web-port", str(port), "--photos", str(photos), "--out", str(tmp_path), "--warm-up", "1"]
    page = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        form = f"loop=open&rate=25&run_time=3s&shape=steady&mix=product_text%3D1&host={toys.grpc_url}".encode()
        urllib.request.urlopen(f"{url}/swarm", form, timeout=5).close()
        while not (tmp_path / "run.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        page.send_signal(signal.SIGTERM)
        page.wait(30)
    assert read_run(tmp_path).steps == [(0, 25)]
    requests = read_requests(tmp_path)
    assert {(request.pipeline, request.outcome) for request in requests} == {("product_text", OK)}
    assert 40 < len(requests) < 120
