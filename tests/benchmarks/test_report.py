"""The report of runs made by hand, and of a real server with a stage that is slow."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import report, truth
from benchmarks.runs import MISSED, OK, Request, Run, write_requests, write_run
from serving.paths import REPOSITORIES
from serving.server.server import Server
from tests.asking import ask_grpc
from tests.pictures import encode, picture

MODELS, ENSEMBLES = REPOSITORIES
DELAY_MS = 200


class Page(HTMLParser):
    """The ids, addresses and words of a page, and whether each tag was closed."""

    VOID = ("meta", "br", "img")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.plots = 0
        self.words = ""
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.plots += tag == "figure"
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def rows_of(summary: str, heading: str) -> dict[str, list[str]]:
    """The first table after ``heading`` in a summary: first cell → further cells."""
    lines = summary[summary.index(heading) :].splitlines()
    table = [line for line in re.split(r"\n\n", "\n".join(lines[1:]).strip())[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in cells}


def keep_run(
    folder: Path, requests: list[Request], loop: str = "open", slos: tuple = (), seconds: float = 30, name: str = ""
) -> None:
    steps = [(0.0, 10.0), (10.0, 20.0), (20.0, 40.0)]
    machine, versions = {"cpu": "Some CPU", "cores": "2"}, {"triton": "2.51.0"}
    run = Run(name or folder.name, loop, "steps", 0.0, seconds, steps, "the command", "host:1", machine, versions, slos)
    write_run(folder, run)
    write_requests(folder / "requests.csv", requests)


def some_requests() -> list[Request]:
    """As of 10, 20 and 40 a second; at 40, half has no answer, and the other a late one."""
    requests = []
    for start, rate in ((0, 10), (10, 20), (20, 40)):
        for n in range(10 * rate):
            at = start + n / rate
            outcome = (OK, MISSED, OK, "UNAVAILABLE")[n % 4] if rate == 40 else OK
            done = None if outcome == MISSED else at + (2.0 if rate == 40 else 0.05)
            requests.append(Request(at, at if done else None, done, "vlclip", "product_image", 1, outcome))
    return requests


def test_nothing_at_all(tmp_path: Path) -> None:
    page = report.write(tmp_path / "bench")
    assert page == tmp_path / "bench" / "report.html"
    assert "No load run" in Page(page).words
    assert "No folder here has a run.json" in (tmp_path / "bench" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        pytest.param([], "No request was recorded", id="nothing asked"),
        pytest.param(
            [Request(1.0, 1.0, 2.0, "vlclip", "product_image", 1, "UNAVAILABLE"),
             Request(2.0, None, None, "vlclip", "product_image", 1, MISSED)],
            "Nothing was answered well", id="nothing answered",
        ),
    ],
)  # fmt: skip
def test_a_run_without_an_answer_is_said_to_be_one(tmp_path: Path, requests: list[Request], says: str) -> None:
    keep_run(tmp_path / "dead", requests)
    page = Page(report.write(tmp_path))
    assert says in page.words
    assert page.plots == 0
    assert says in (tmp_path / "summary.md").read_text()


def test_a_run_is_told_in_plots_and_figures(tmp_path: Path) -> None:
    slos = (
        {"slo": "p99=50ms", "measured": "never", "held": False},
        {"slo": "p50=1s", "measured": "50 ms", "held": True},
    )
    keep_run(tmp_path / "steps", some_requests(), slos=slos)
    keep_run(tmp_path / "users", some_requests(), loop="closed", name="users <b>")
    page = Page(report.write(tmp_path))
    assert page.open == []
    assert [id_ for id_, count in page.ids.items() if count > 1] == []
    assert [address for address in page.addresses if not address.startswith("#")] == [], "no other file is needed"
    for title in (
        "Latency by percentile", "offered rate: the knee is at 20", "Throughput against concurrency",
        "Latency and rates over time", "Some CPU", "2.51.0", "the command", "users <b>", "broken",
    ):  # fmt: skip
        assert title in page.words
    summary = (tmp_path / "summary.md").read_text()
    steps = rows_of(summary, "**Step by step")
    assert [steps[at][-2:] for at in ("0", "10", "20")] == [["0 %", "0 %"], ["0 %", "0 %"], ["50.00 %", "25.00 %"]]
    assert rows_of(summary, "**Service level objectives**")["p99=50ms"] == ["never", "broken"]
    outcomes = rows_of(summary, "**How requests ended, and ms until they did**")
    assert outcomes["missed"] == ["100", "14.29 %", "-", "-", "-", "-"]


def test_figures_of_other_benchmarks_have_a_section(tmp_path: Path) -> None:
    (tmp_path / "loadgen").mkdir()
    rows = [{"scenario": "Server", "LoadGen says": "VALID", "p99 <ms>": 12.5}, {"scenario": "Offline", "samples": 3}]
    (tmp_path / "loadgen" / "loadgen.json").write_text(
        json.dumps({"title": "MLPerf LoadGen", "rows": rows, "broken": []})
    )
    services = {"served": {"photos/s": {"median": 51.64}, "p50_ms": 41.1}, "FastAPI": {"photos/s": {"median": 43.6}}}
    (tmp_path / "side_by_side.json").write_text(json.dumps({"turns": 4, "services": services, "machine": {"cpu": "X"}}))
    (tmp_path / "empty.json").write_text("[]")
    page = Page(report.write(tmp_path))
    for word in ("MLPerf LoadGen", "VALID", "p99 <ms>", "12.5", "side_by_side", "FastAPI", "empty"):
        assert word in page.words
    summary = (tmp_path / "summary.md").read_text()
    assert rows_of(summary, "**rows**")["Offline"] == ["-", "-", "3"]
    assert rows_of(summary, "**services**")["FastAPI"] == ["43.6", "-"]
    assert rows_of(summary, "**machine**")["cpu"] == ["X"]


def slowed(source: Path, repository: Path, leaf: str) -> Path:
    """A copy of a model repository in which a leaf sleeps before it works."""
    shutil.copytree(source, repository, ignore=shutil.ignore_patterns("__pycache__", ".export-*"))
    with (repository / leaf / "1" / "model.py").open("a") as file:
        file.write(f"""

class Slow(TritonPythonModel):
    def execute(self, requests):
        import time

        time.sleep({DELAY_MS / 1000})
        return super().execute(requests)


TritonPythonModel = Slow
""")
    return repository


def ask_by_schedule(url: str, seconds: float, rate: float) -> list[Request]:
    """Photos at moments that were drawn ahead, whether or not the last one was answered."""
    rng = random.Random(7)
    photo, start = encode(picture(), "JPEG"), time.time() + 0.1

    def ask(at: float) -> Request:
        time.sleep(max(0, at - time.time()))
        sent = time.time()
        ask_grpc(url, "product_image", IMAGE=[photo], PRODUCT_TYPE=[b"mug"])
        return Request(at, sent, time.time(), "tritonclient", "product_image", 1, OK)

    moments = sorted(start + rng.uniform(0, seconds) for _ in range(int(rate * seconds)))
    with ThreadPoolExecutor(len(moments)) as pool:
        return list(pool.map(ask, moments))


@pytest.mark.parametrize(
    ("source", "leaf"),
    [
        pytest.param(None, "tokenize_prompt", id="toys"),
        pytest.param(MODELS, "decode", id="mini", marks=pytest.mark.slow),
    ],
)
def test_a_slow_stage_shows_in_its_bar_and_in_the_percentiles(
    tmp_path: Path, toy_repositories: list[Path], source: Path | None, leaf: str
) -> None:
    repository = slowed(source or toy_repositories[0], tmp_path / "models", leaf)
    seconds = 4.0
    with Server.start([repository, ENSEMBLES]) as server:
        before = truth.snapshot(server.grpc_url, server.metrics_url)
        requests = ask_by_schedule(server.grpc_url, seconds, rate=4)
        truth.write(tmp_path / "bench/slow", before, truth.snapshot(server.grpc_url, server.metrics_url))
    run = Run("slow", "open", "steady", requests[0].scheduled, seconds, [(0, 4)], "", server.grpc_url, {}, {})
    write_run(tmp_path / "bench/slow", run)
    write_requests(tmp_path / "bench/slow/requests.csv", requests)
    page = Page(report.write(tmp_path / "bench"))
    assert "Where the time of a request goes" in page.words

    summary = (tmp_path / "bench" / "summary.md").read_text()
    stages = rows_of(summary, "**Stages, by the server's counters")
    columns = stages.pop("stage")
    stages.pop("---")
    compute = {name: float(row[columns.index("compute")]) for name, row in stages.items()}
    slow = compute.pop(leaf)
    assert DELAY_MS <= slow < 1.5 * DELAY_MS
    assert len(compute) == 6
    assert max(compute.values()) < DELAY_MS / 2
    p50 = float(rows_of(summary, "**How requests ended, and ms until they did**")["ok"][2])
    assert p50 >= DELAY_MS
