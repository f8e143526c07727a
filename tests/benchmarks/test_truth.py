"""The server's account of a run: snapshots made by hand, and those of a real server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import truth
from serving.server.server import Server
from serving.triton_metrics import Sample
from tests.asking import ask_grpc
from tests.pictures import encode, picture


def counters(
    model: str, requests: int, queue: int = 0, compute: int = 0, copy: int = 0, batches: dict[int, int] | None = None
) -> list[Sample]:
    """The counters of a model and version, such as ``decode/1``; times in ms, ``copy`` in each direction."""
    name, version = model.split("/")
    labels, sizes = {"model": name, "version": version}, batches or {}
    times = {"queue": queue, "compute_infer": compute, "compute_input": copy, "compute_output": copy}
    values = {
        "request_success": requests,
        "request_duration_us": 1000 * (queue + compute + 2 * copy),
        **{f"{phase}_duration_us": 1000 * ms for phase, ms in times.items()},
        "count": sum(size * count for size, count in sizes.items()),
        "exec_count": sum(sizes.values()),
    }
    found = [Sample(f"nv_inference_{key}", labels, value, "counter") for key, value in values.items()]
    return found + [Sample("batches", {**labels, "size": str(size)}, count, "counter") for size, count in sizes.items()]


def shot(*samples: list[Sample], notes: tuple[str, ...] = ()) -> truth.Snapshot:
    pipelines = {"product_image": ["decode", "detect"]}
    return {"samples": [sample for some in samples for sample in some], "pipelines": pipelines, "notes": [*notes]}


def agent(value: float) -> list[Sample]:
    return [Sample("vlclip_agent_items", {}, value, "counter")]


def test_an_idle_server() -> None:
    cpu = [Sample("nv_cpu_utilization", {}, 0.5, "gauge")]
    same = shot(counters("decode/1", 3, compute=9, batches={1: 3}), cpu)
    found = truth.difference(same, same)
    assert found.stages.is_empty()
    assert found.pipelines.is_empty()
    assert found.notes == []
    assert found.metrics.rows() == [("nv_cpu_utilization", "50.0% → 50.0%")]


def test_times_are_means_of_the_run_alone() -> None:
    before = shot(
        counters("detect/1", 1, 500, 500, 500, {1: 1}), counters("product_image/1", 1), counters("decode/1", 1)
    )
    after = shot(
        counters("detect/1", 5, 540, 1300, 510, {1: 2, 3: 1}),
        counters("product_image/1", 5, compute=9),
        counters("decode/1", 5, compute=8, batches={4: 1}),
    )
    found = truth.difference(before, after)
    assert found.stages["stage"].to_list() == ["decode", "detect"], "in the order of the pipeline"
    assert found.pipelines["pipeline"].to_list() == ["product_image"]
    detect = found.stages.row(1, named=True)
    assert [detect[name] for name in ("requests", "items", "executions", "largest")] == [4, 4, 2, 3]
    assert [detect[name] for name in ("queue", "compute", "copies", "mean batch")] == pytest.approx([10, 200, 5, 2])
    batches = found.batches.row(1, named=True)
    assert (batches["1"], batches["2 to 3"], batches["4 to 7"]) == (25, 75, 0)


def test_two_versions_are_one_stage() -> None:
    before = shot(counters("decode/1", 10, compute=10))
    after = shot(counters("decode/1", 11, compute=12), counters("decode/2", 3, compute=30, batches={1: 3}))
    (decode,) = truth.difference(before, after).stages.iter_rows(named=True)
    assert (decode["requests"], decode["compute"]) == (4, pytest.approx(8))


@pytest.mark.parametrize(
    ("before", "after", "stages", "note"),
    [
        pytest.param(
            shot(counters("decode/1", 9), counters("detect/1", 1)),
            shot(counters("decode/1", 2), counters("detect/1", 2)),
            ["detect"],
            "counters fell, after a reload or a restart: decode/1",
            id="a counter fell",
        ),
        pytest.param(
            shot(counters("decode/1", 9, batches={4: 2})),
            shot(counters("decode/1", 10, batches={1: 10})),
            [],
            "counters fell",
            id="only a batch size fell",
        ),
        pytest.param(shot(counters("decode/1", 9)), shot(counters("detect/1", 2)), ["detect"], "unloaded", id="gone"),
        pytest.param(shot(), shot(counters("decode/1", 2)), [], "before the run are unknown", id="late"),
        pytest.param(
            shot(counters("decode/1", 9)), shot(notes=("no metrics: dead",)), [], "no metrics: dead", id="died"
        ),
        pytest.param(shot(agent(5)), shot(agent(1)), [], "counters fell", id="a metric fell"),
    ],
)
def test_untrustworthy_counters_are_left_out_with_a_note(before: Any, after: Any, stages: list[str], note: str) -> None:
    found = truth.difference(before, after)
    assert ([] if found.stages.is_empty() else found.stages["stage"].to_list()) == stages
    assert any(note in one for one in found.notes)
    assert found.metrics.is_empty()


def ask(server: Server, times: int) -> None:
    photo = encode(picture(), "JPEG")
    for _ in range(times):
        ask_grpc(server.grpc_url, "product_image", IMAGE=[photo, photo], PRODUCT_TYPE=[b"mug", b"mug"])


def snapshot_with(requests: int, server: Server, before: truth.Snapshot) -> truth.Snapshot:
    """Triton counts a request shortly after it has answered it."""
    end = time.monotonic() + 60
    while True:
        after = truth.snapshot(server.grpc_url, server.metrics_url, memory=2**20)
        found = truth.difference(before, after)
        counted = [*found.stages.iter_rows(named=True), *found.pipelines.iter_rows(named=True)]
        are_counted = all(model["requests"] == model["executions"] == requests for model in counted)
        if are_counted and any("product_image" in model.values() for model in counted):
            return after
        assert time.monotonic() < end


def test_a_real_server(server: Server, tmp_path: Path) -> None:
    before = truth.snapshot(server.grpc_url, server.metrics_url)
    ask(server, 3)
    truth.write(tmp_path / "run", before, snapshot_with(3, server, before))
    found = truth.read(tmp_path / "run")
    assert found
    assert found.notes == []
    assert {"decode", "tokenize_prompt", "encode_prompt", "detect", "crop", "encode_image"} <= {*found.stages["stage"]}
    assert found.stages["stage"][0] == "tokenize_prompt"
    assert found.pipelines["pipeline"].to_list() == ["product_image"]
    for model in (*found.stages.iter_rows(named=True), *found.pipelines.iter_rows(named=True)):
        assert [model[name] for name in ("requests", "failed", "items", "largest")] == [3, 0, 6, 2]
        assert model["compute"] > 0
    for stage in found.stages.iter_rows(named=True):
        assert stage["queue"] + stage["compute"] + stage["copies"] == pytest.approx(stage["total"], rel=0.2, abs=1)
    assert found.batches["2 to 3"].to_list() == [100] * len(found.stages)
    metrics = dict(found.metrics.rows())
    assert metrics[truth.MEMORY] == "1 MiB → 1 MiB"
    assert truth.read(tmp_path) is None


def test_a_server_that_is_closed_to_callers_without_a_key(
    toy_repositories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If other machines can reach the server, `serving start` closes the statistics."""
    monkeypatch.setenv("VLCLIP_ADMIN_KEY", "of-the-operator")
    options = ["--grpc-restricted-protocol=model-config:key=secret"]
    with Server.start(toy_repositories, host="0.0.0.0", options=options) as server:
        with_key = truth.snapshot(server.grpc_url, server.metrics_url)
        monkeypatch.setenv("VLCLIP_ADMIN_KEY", "guessed")
        wrong = truth.snapshot(server.grpc_url, server.metrics_url)
        monkeypatch.delenv("VLCLIP_ADMIN_KEY")
        before = truth.snapshot(server.grpc_url, server.metrics_url)
        ask(server, 2)
        after = snapshot_with(2, server, before)
    assert truth.BATCHES in {sample.name for sample in with_key["samples"]}
    assert wrong["notes"][0].endswith("unknown: the key in VLCLIP_ADMIN_KEY is not the server's admin key")
    found = truth.difference(before, after)
    statistics, configs = found.notes
    assert statistics.endswith("only to callers with its admin key; set VLCLIP_ADMIN_KEY to it")
    assert configs.startswith("no configurations, ")
    decode = next(stage for stage in found.stages.iter_rows(named=True) if stage["stage"] == "decode")
    assert [decode[name] for name in ("requests", "items", "executions", "largest")] == [2, 4, 2, None]
    assert 0 < decode["compute"] < decode["total"]


def test_a_server_that_does_not_run() -> None:
    found = truth.snapshot("127.0.0.1:1", "http://127.0.0.1:1/metrics")
    assert found["samples"] == []
    assert [note.partition(",")[0] for note in found["notes"]] == ["no metrics", "no statistics"]
