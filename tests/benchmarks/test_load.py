"""Locust against a server with toy models: both loops, exit codes, missed requests, several processes, its page.

Locust patches the standard library for gevent, so it always runs in its own processes.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import figures, truth
from benchmarks.runs import MISSED, OK, read_requests, read_run
from benchmarks.schedule import draw_poisson
from benchmarks.traffic import ROOT
from serving.server.server import Server
from tests.asking import until
from tests.pictures import encode, picture

SEED, WARM_UP, SECONDS = 3, 1.0, 90.0


@pytest.fixture(scope="module")
def toys(toy_repositories: list[Path]) -> Iterator[Server]:
    with Server.start(toy_repositories) as server:
        yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "mug").mkdir()
    (folder / "mug" / "1.jpg").write_bytes(encode(picture(), "JPEG"))
    return folder


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def locust(*options: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", *options]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=output, stderr=subprocess.STDOUT)


def load(url: str, photos: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """A run without Locust's page."""
    common = ["--host", url, "--photos", str(photos), "--out", str(folder), "--seed", str(SEED), "--headless"]
    common += ["--warm-up", str(WARM_UP), "--mix", "product_text=1", "--batches", "1=1", "--only-summary"]
    return locust(*common, *options, output=subprocess.PIPE)


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *options], cwd=ROOT, capture_output=True, text=True)


def scheduled(steps: list[tuple[float, float]], seconds: float) -> int:
    return int((draw_poisson(steps, seconds, WARM_UP, SEED) >= 0).sum())


@pytest.mark.parametrize("kind", ["forked", pytest.param("started", marks=pytest.mark.slow)])
def test_an_open_loop_in_two_processes(toys: Server, photos: Path, tmp_path: Path, kind: str) -> None:
    port = free_port()
    options = ["--rate", "20", "-t", "2s", "--shape", "spike", "--slo", "p99=0.01ms error-rate=100%"]
    options += ["--master-bind-port", port, "--master-port", port]
    options += ["--processes", "2"] if kind == "forked" else ["--master", "--expect-workers", "2"]
    run = load(toys.grpc_url, photos, tmp_path, *options)
    workers = [locust("--worker", "--master-port", port) for _ in range(2 if kind == "started" else 0)]
    output, _ = run.communicate(timeout=SECONDS)
    assert all(worker.wait(SECONDS) == 0 for worker in workers)
    assert run.returncode == 1, output
    assert "p99 was " in output
    assert ", the SLO is 0.01 ms" in output
    assert "error-rate" not in output, "only broken SLOs are printed"
    assert f"The first {WARM_UP:g} s were warm-up and are not counted" in output
    made = read_run(tmp_path)
    assert [slo["held"] for slo in made.slos] == [False, True]
    assert (made.loop, made.shape, made.warm_up) == ("open", "spike", WARM_UP)
    assert made.versions["triton"].startswith("2.")
    assert made.generator_cores > 0

    # Together the two processes sent each request of the schedule once.
    requests = read_requests(tmp_path)
    assert len(list(tmp_path.glob("requests-*.csv"))) == 2
    assert len(requests) == scheduled(list(made.steps), 2)
    assert set(requests["user"]) == {"vlclip", "tritonclient"}


def test_requests_to_a_server_that_never_answers_fail_or_are_missed(photos: Path, tmp_path: Path) -> None:
    """Five requests may be in flight, and each of them waits for its deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        options = ["--rate", "40", "-t", "2s", "--max-in-flight", "5", "--deadline", "1", "--slo", "error-rate=1%"]
        run = load(url, photos, tmp_path, *options)
        output, _ = run.communicate(timeout=SECONDS)
    assert run.returncode == 1, output
    assert "error-rate was 100%, the SLO is 1%" in output
    requests = read_requests(tmp_path)
    assert len(requests) == scheduled([(0, 40)], 2)
    assert set(requests["outcome"]) > {MISSED}
    for outcome, sent, done in requests.select("outcome", "sent", "done").rows():
        assert (outcome == MISSED) == (sent is None) == (done is None)


def test_runs_of_a_given_rate_and_of_users_write_the_report_and_exit_by_the_slo(
    toys: Server, photos: Path, tmp_path: Path
) -> None:
    command = ["benchmarks.load", "--target", toys.grpc_url, "--metrics", toys.metrics_url, "--rate", "15"]
    command += ["--users", "2", "--duration", "2", "--photos", str(photos), "--out", str(tmp_path)]
    done = benchmark(*command, "--slo", "p99=0.01ms error-rate=100%")
    assert done.returncode == 1, done.stderr
    for run in ("steady", "closed"):
        assert f"{run}: p99 was " in done.stdout
    assert "the SLO is 0.01 ms" in done.stdout
    assert (tmp_path / "report.html").exists()
    closed = read_requests(tmp_path / "closed")
    assert OK in set(closed["outcome"])
    assert (closed["scheduled"] == closed["sent"]).all(), "users do not follow a schedule"
    sent = Counter(read_requests(tmp_path / "steady")["pipeline"])
    found = truth.read(tmp_path / "steady")
    assert found
    assert found.notes == []
    answered = dict(found.pipelines.select("pipeline", "requests").iter_rows())
    assert answered["product_image"] >= sent["product_image"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--slo", "p99=1us"], '"p99=1us" is not an SLO', id="a wrong SLO"),
        pytest.param(["--target", "localhost:1"], "--target needs --rate or --users", id="no rate"),
        pytest.param(["--photos", "/no/such"], "no such folder: /no/such", id="no photos"),
    ],
)
def test_wrong_options(options: list[str], message: str) -> None:
    done = benchmark("benchmarks.load", *options)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("module", ["benchmarks.load", "benchmarks.locustfile"])
def test_help_has_every_option(module: str) -> None:
    text = benchmark(module, "--help").stdout
    for option in ("--slo", "--mix", "--photos", "--rate"):
        assert option in text


@pytest.mark.slow
def test_without_options_there_are_five_runs_of_a_started_server(photos: Path, tmp_path: Path) -> None:
    done = benchmark("benchmarks.load", "--duration", "4", "--photos", str(photos), "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [read_run(tmp_path / name) for name in ("concurrency", "steps", "steady", "closed", "spike")]
    assert [run.loop for run in runs] == ["closed", "open", "open", "closed", "open"]
    assert runs == sorted(runs, key=lambda run: run.started)
    users, rates = runs[0], runs[1]
    assert users.steps == [(0, 1), (1, 2), (2, 4), (3, 8)]
    parts = figures.steps(users, read_requests(tmp_path / "concurrency"))
    assert rates.steps[-1][1] == pytest.approx(1.4 * max(parts["answered"]), rel=1e-4)
    assert rates.seconds == 8
    assert "Throughput by users" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_an_overload_measures_the_capacity_and_sends_multiples_of_it(photos: Path, tmp_path: Path) -> None:
    options = ["--shape", "overload", "--duration", "12", "--photos", str(photos), "--out", str(tmp_path)]
    done = benchmark("benchmarks.load", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    capacity = figures.whole(read_run(tmp_path / "capacity"), read_requests(tmp_path / "capacity"))["answered"]
    run = read_run(tmp_path / "overload")
    assert [level for _, level in run.steps] == pytest.approx([part * capacity for part in (0.8, 1, 2, 0.8)], rel=1e-4)
    assert min(figures.steps(run, read_requests(tmp_path / "overload"))["answered"].to_list()) > 0
    found = truth.read(tmp_path / "overload")
    assert found
    assert truth.MEMORY in found.metrics["metric"]
    assert "Goodput by offered rate" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_locusts_page_starts_a_run(toys: Server, photos: Path, tmp_path: Path) -> None:
    port = free_port()
    options = ["--host", toys.grpc_url, "--photos", str(photos), "--out", str(tmp_path), "--warm-up", "1"]
    page = locust("--web-port", port, *options)
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            return False
        return True

    try:
        until(is_up)
        form = f"loop=open&rate=25&run_time=3s&shape=steady&mix=product_text%3D1&host={toys.grpc_url}".encode()
        urllib.request.urlopen(f"{url}/swarm", form, timeout=5).close()
        until((tmp_path / "run.json").exists)
    finally:
        page.send_signal(signal.SIGTERM)
        page.wait(SECONDS)
    assert read_run(tmp_path).steps == [(0, 25)]
    requests = read_requests(tmp_path)
    assert set(requests["pipeline"]) == {"product_text"}
    assert 40 < len(requests) < 120
