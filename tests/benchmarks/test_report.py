"""The report of runs that were made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import report, truth
from benchmarks.runs import MISSED, OK, Request, Run, frame, write_run
from tests.benchmarks.test_truth import counters, shot

COLUMNS = ("from s", "outcome", "stage")
"""The first columns of the tables that are looked at."""


class Page:
    """The words, ids, addresses and table rows of a page, which is well-formed XML."""

    def __init__(self, file: Path) -> None:
        root = ElementTree.fromstring(file.read_text())
        self.words = "".join(root.itertext())
        self.ids = [found for element in root.iter() if (found := element.get("id"))]
        self.addresses = [found for element in root.iter() if (found := element.get("href") or element.get("src"))]
        self.plots = len(list(root.iter("figure")))
        self.rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]

    def row(self, begin: str) -> dict[str, str]:
        """The first row that begins with this cell, as column → cell."""
        place = next(i for i, row in enumerate(self.rows) if row[0] == begin)
        names = next(row for row in reversed(self.rows[:place]) if row[0] in COLUMNS)
        return dict(zip(names, self.rows[place], strict=True))


def keep_run(folder: Path, requests: list[Request], loop: str = "open", name: str = "", shape: str = "steps") -> None:
    steps = [(0.0, 10.0), (10.0, 20.0), (20.0, 40.0)]
    machine, versions = {"cpu": "Some CPU", "cores": "2"}, {"triton": "2.51.0"}
    slos: list[dict[str, Any]] = [
        {"slo": "p99=50ms", "measured": "never", "held": False, "sentence": "p99 was never, the SLO is 50 ms"}
    ]
    run = Run(name or folder.name, loop, shape, 0.0, 30, steps, "the command", "host:1", machine, versions, slos)
    write_run(folder, run)
    frame(requests).write_csv(folder / "requests.csv")


def some_requests() -> list[Request]:
    """10, 20 and 40 requests a second. Half of the last ones have no answer, and the others a late one."""
    requests = []
    for start, rate in ((0, 10), (10, 20), (20, 40)):
        for n in range(10 * rate):
            at = start + n / rate
            outcome = (OK, MISSED, OK, "UNAVAILABLE")[n % 4] if rate == 40 else OK
            done = None if outcome == MISSED else at + (2.0 if rate == 40 else 0.05)
            requests.append(Request(at, at if done else None, done, "vlclip", "product_image", 1, outcome))
    return requests


def test_an_empty_folder(tmp_path: Path) -> None:
    page = report.write(tmp_path / "bench")
    assert page == tmp_path / "bench" / "report.html"
    assert "There is no load run" in Page(page).words


@pytest.mark.parametrize(
    ("requests", "sentence"),
    [
        pytest.param([], "No request was recorded", id="no request"),
        pytest.param(
            [request for request in some_requests() if request.outcome != OK],
            "No request had a good answer",
            id="failed",
        ),
    ],
)
def test_a_run_without_an_answer(tmp_path: Path, requests: list[Request], sentence: str) -> None:
    keep_run(tmp_path / "dead", requests)
    page = Page(report.write(tmp_path))
    assert sentence in page.words
    assert page.plots == 0


def test_runs_have_plots_and_tables(tmp_path: Path) -> None:
    keep_run(tmp_path / "steps", some_requests())
    keep_run(tmp_path / "users", some_requests(), loop="closed", name="users <b>")
    keep_run(tmp_path / "overload", some_requests(), shape="overload")
    page = Page(report.write(tmp_path))
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses), "no other file is needed"
    for words in (
        "Latency by percentile", "offered rate: the knee is at 20", "Throughput by users", "Goodput by offered rate",
        "Latency and rates over time", "Some CPU", "2.51.0", "the command", "users <b>", "broken",
        "p99 was never, the SLO is 50 ms",
    ):  # fmt: skip
        assert words in page.words
    assert page.row("20.0")["missed"] == "25.00 %"
    assert page.row("20.0")["refused p99"] == "2,000"
    assert page.row("missed") == {
        "outcome": "missed",
        "requests": "100",
        "share": "14.29 %",
        **dict.fromkeys(("p50", "p95", "p99", "longest"), "-"),
    }


def test_other_benchmarks_have_a_section(tmp_path: Path) -> None:
    (tmp_path / "loadgen").mkdir()
    rows = [{"scenario": "Server", "verdict": "VALID", "p99 <ms>": 12.5}, {"scenario": "Offline", "samples": 3}]
    (tmp_path / "loadgen" / "loadgen.json").write_text(
        json.dumps({"title": "MLPerf LoadGen", "rows": rows, "broken": [], "valid": True})
    )
    services = {"served": {"photos/s": {"median": 51.64}, "p50_ms": 41.1}}
    (tmp_path / "side_by_side.json").write_text(json.dumps({"turns": 4, "services": services}))
    (tmp_path / "empty.json").write_text("[]")
    page = Page(report.write(tmp_path))
    for words in ("MLPerf LoadGen", "VALID", "p99 <ms>", "12.5", "side_by_side", "51.6", "empty", "none"):
        assert words in page.words


def test_a_slow_stage_is_visible(tmp_path: Path) -> None:
    before = shot(counters("decode/1", 0), counters("product_image/1", 0))
    leaves = counters("decode/1", 3, compute=3) + counters("detect/1", 3, compute=600, batches={1: 3})
    after = shot(leaves, counters("product_image/1", 3))
    keep_run(tmp_path / "slow", some_requests())
    truth.write(tmp_path / "slow", before, after)
    page = Page(report.write(tmp_path))
    assert "Time of a request in each stage" in page.words
    assert "Batch sizes of each stage" in page.words
    assert (page.row("detect")["requests"], page.row("detect")["compute"]) == ("3", "200")
