"""LoadGen's figures and verdicts reach the report, and cached answers are found."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.loadgen import (
    PAIRS,
    SHORT_SECONDS,
    System,
    compare_repeats,
    faults_of,
    judge_repeats,
    main,
    row_of,
    set_target,
    settings_of,
)
from benchmarks.photos import Sample
from serving.server.server import Server
from tests.client.conftest import FakeTriton
from tests.pictures import encode, picture
from vlclip import Client

NEVER_MS, ALWAYS_MS = 1e-3, 6e4
"""Bounds that no answer keeps, and that every answer keeps."""


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """Toy models, which answer hundreds of photos per second."""
    with Server.start(toy_repositories) as server:
        yield server


@pytest.fixture(scope="module")
def photos() -> list[Sample]:
    return [(encode(picture(seed=seed), "JPEG"), "mug") for seed in range(16 * PAIRS)]


def test_the_report_has_loadgens_figures_and_verdicts(
    server: Server, photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number, (file, _) in enumerate(photos):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(file)
    options = ["--photos", tmp_path / "photos", "--url", server.grpc_url, "--out", tmp_path, "--seconds", 0.5]
    monkeypatch.setattr("sys.argv", ["loadgen", *map(str, options), "--rate", "2000", "--latency", str(NEVER_MS)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    report = json.loads((tmp_path / "loadgen.json").read_text())
    assert set(report["scenarios"]) == set(SHORT_SECONDS)
    for scenario, row in report["scenarios"].items():
        summary = (tmp_path / scenario / "mlperf_log_summary.txt").read_text()
        assert f"Scenario : {scenario}" in summary
        assert f"Result is : {row['LoadGen says']}" in summary
        p90_ns = re.search(r"90.00 percentile latency .ns. *: (\d+)", summary)
        assert p90_ns
        assert row["p90 ms"] == round(int(p90_ns[1]) / 1e6, 2)
    assert report["scenarios"]["SingleStream"]["LoadGen says"] == "VALID"
    assert any("Server is INVALID: more than 1 % of the answers took longer" in fault for fault in report["faults"])


def test_a_server_that_keeps_the_bound_is_valid(server: Server, photos: list[Sample], tmp_path: Path) -> None:
    settings = settings_of("Server", 0, 50, 0)
    set_target(settings, 100, ALWAYS_MS)
    settings.server_target_latency_percentile = 0.8  # early stopping needs fewer queries than at 0.99
    with Client(server.grpc_url, retry=None) as client:
        row = row_of("Server", System(client, 16).run(photos, settings, tmp_path), [], "")
    assert (row["LoadGen says"], row["reasons"]) == ("VALID", "")


def test_failed_requests_make_a_scenario_invalid(photos: list[Sample], tmp_path: Path) -> None:
    with Client("127.0.0.1:9", retry=None, timeout=1) as client:
        system = System(client, 4)
        log = system.run(photos, settings_of("SingleStream", 0, 64, 0), tmp_path)
    row = row_of("SingleStream", log, system.failures, "")
    assert log["result_validity"] == "VALID"
    assert row["LoadGen says"] == "INVALID"
    assert "64 requests failed, the first with UnavailableError" in row["reasons"]


@pytest.mark.parametrize(
    ("unique_ms", "same_ms", "held"),
    [
        pytest.param([10, 10, 10], [10, 10, 10], True, id="equal"),
        pytest.param([10, 10, 10], [9.2, 9.2, 9.2], True, id="within the tolerance"),
        pytest.param([10, 10, 10], [8, 8, 8], False, id="faster"),
        pytest.param([10, 13, 10], [8, 10, 8], True, id="within the noise"),
        pytest.param([10, 30, 10], [1, 1, 1], False, id="much faster than any noise allows"),
    ],
)
def test_repeated_photos_must_not_be_faster(unique_ms: Sequence[float], same_ms: Sequence[float], held: bool) -> None:
    check = {"photos": 15, **judge_repeats(unique_ms, same_ms)}
    assert check["held"] == held
    faults = faults_of({}, check, [])
    assert bool(faults) != held
    assert all("Repeated photos are faster, so something caches" in fault for fault in faults)


def test_models_with_a_response_cache_are_a_fault() -> None:
    check = {"photos": 15, **judge_repeats([10], [10])}
    assert faults_of({}, check, ["detect"]) == [
        "Triton may cache the answers of detect: disable response_cache in their configs."
    ]


def test_repeats_are_compared_with_photos_that_were_never_sent(tmp_path: Path) -> None:
    fake = FakeTriton()
    photos = [(b"%d" % number, "mug") for number in range(16 * PAIRS)]
    with Client(fake.address, retry=None) as client:
        check = compare_repeats(System(client, 2), photos, tmp_path)
    fake.stop()
    assert check["photos"] == 15
    received = Counter(photo for batch in fake.batches for photo in batch)
    assert sorted(received.values()) == [1] * 15 * PAIRS + [15] * PAIRS
