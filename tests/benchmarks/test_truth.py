"""What Triton counts, before and after: by hand, and of a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import truth
from serving.server.server import Server
from tests.asking import ask_grpc
from tests.pictures import encode, picture

MS = 1_000_000


def counts(
    requests: int = 0, queue: int = 0, infer: int = 0, copy: int = 0, batches: dict[str, int] | None = None
) -> Any:
    """A model's counters; times in ms over all requests, ``copy`` each way."""
    sizes = batches or {}
    times = {"queue": queue, "compute_infer": infer, "compute_input": copy, "compute_output": copy}
    phases = {phase: {"count": requests, "ns": ms * MS} for phase, ms in times.items()}
    return {
        **phases,
        "success": {"count": requests, "ns": sum(times.values()) * MS},
        "fail": {"count": 0, "ns": 0},
        "cache_hit": {"count": 0, "ns": 0},
        "items": sum(int(size) * count for size, count in sizes.items()),
        "executions": sum(sizes.values()),
        "batches": sizes,
    }


def shot(models: dict[str, Any], **more: Any) -> dict[str, Any]:
    pipelines = {"product_image": ["decode", "detect"]}
    return {"time": 0, "models": models, "pipelines": pipelines, "counters": {}, "gauges": {}, "closed": [], **more}


def test_nothing_happened():
    same = shot({"decode/1": counts(3, infer=9, batches={"1": 3})}, gauges={"nv_cpu_utilization": 0.5})
    found = truth.difference(same, same)
    assert (found.stages, found.pipelines, found.counters, found.notes) == ([], [], {}, [])
    assert found.gauges == {"nv_cpu_utilization": (0.5, 0.5)}


def test_times_are_means_of_the_run_alone():
    before = {"detect/1": counts(1, 500, 500, 500, {"1": 1}), "product_image/1": counts(1), "decode/1": counts(1)}
    after = {
        "detect/1": counts(5, 540, 1300, 510, {"1": 2, "3": 1}),
        "product_image/1": counts(5, infer=9),
        "decode/1": counts(5, infer=8, batches={"4": 1}),
    }
    found = truth.difference(shot(before), shot(after))
    assert [model.name for model in found.stages] == ["decode", "detect"], "in the order of the wiring"
    assert [model.name for model in found.pipelines] == ["product_image"]
    detect = found.stages[1]
    assert (detect.requests, detect.items, detect.executions, dict(detect.batches)) == (4, 4, 2, {1: 1, 3: 1})
    assert (detect.queue_ms, detect.compute_ms, detect.copies_ms) == pytest.approx((10, 200, 5))
    assert detect.mean_batch == 2


def test_versions_that_answered_in_turn_are_one_stage():
    before = {"decode/1": counts(10, infer=10)}
    after = {"decode/1": counts(11, infer=12), "decode/2": counts(3, infer=30, batches={"1": 3})}
    (decode,) = truth.difference(shot(before), shot(after)).stages
    assert decode.requests == 4
    assert decode.compute_ms == pytest.approx(8)


@pytest.mark.parametrize(
    ("before", "after", "stages", "note"),
    [
        pytest.param(
            shot({"decode/1": counts(9), "detect/1": counts(1)}),
            shot({"decode/1": counts(2), "detect/1": counts(2)}),
            ["detect"],
            "began anew during the run, by a reload or a restart; left out, though others may have as well: decode/1",
            id="a counter fell",
        ),
        pytest.param(
            shot({"decode/1": counts(9, batches={"4": 2})}),
            shot({"decode/1": counts(10, batches={"1": 10})}),
            [],
            "began anew",
            id="only a batch size shows it",
        ),
        pytest.param(shot({"decode/1": counts(9)}), shot({"detect/1": counts(2)}), ["detect"], "unloaded", id="gone"),
        pytest.param(
            shot({}, closed=["no statistics: refused"]), shot({"decode/1": counts(2)}), [], "before the run", id="late"
        ),
        pytest.param(
            shot({"decode/1": counts(9)}), shot({}, closed=["no statistics: dead"]), [], "statistics: dead", id="died"
        ),
        pytest.param(
            shot({}, counters={"vlclip_agent_items": 5.0}),
            shot({}, counters={"vlclip_agent_items": 1.0}),
            [],
            "began anew",
            id="a metric fell",
        ),
    ],
)
def test_what_cannot_be_believed_is_left_out_with_a_note(before: Any, after: Any, stages: list[str], note: str) -> None:
    found = truth.difference(before, after)
    assert [model.name for model in found.stages] == stages
    assert any(note in one for one in found.notes)
    assert not any(value < 0 for value in found.counters.values())


def test_metrics_are_parsed_as_triton_names_them():
    text = """# TYPE nv_inference_count counter
nv_inference_count{model="a",version="1"} 4
# TYPE vlclip_agent_items_total counter
vlclip_agent_items_total 3
# TYPE vlclip_text_tokens histogram
vlclip_text_tokens_bucket{le="8"} 2
vlclip_text_tokens_bucket{le="+Inf"} 2
vlclip_text_tokens_count 2
vlclip_text_tokens_sum 9
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="a",version="1"} 4
nv_inference_request_summary_us{model="a",version="1",quantile="0.5"} 81
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="x"} NaN
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
"""
    samples = truth.parse_metrics(text)
    assert [(str(one), one.value, truth.is_gauge(one)) for one in samples] == [
        ('nv_inference_count{model="a",version="1"}', 4, False),
        ("vlclip_agent_items", 3, False),
        ("vlclip_text_tokens_count", 2, False),
        ("vlclip_text_tokens_sum", 9, False),
        ("nv_cpu_utilization", 0.5, True),
    ]
    assert truth.parse_metrics("") == []


def ask(server: Server, times: int) -> None:
    photo = encode(picture(), "JPEG")
    for _ in range(times):
        ask_grpc(server.grpc_url, "product_image", IMAGE=[photo, photo], PRODUCT_TYPE=[b"mug", b"mug"])


def test_a_server_counts_what_was_asked(server: Server, tmp_path: Path) -> None:
    before = truth.snapshot(server.grpc_url, server.metrics_url)
    ask(server, 3)
    truth.write(tmp_path / "run", before, truth.snapshot(server.grpc_url, server.metrics_url))
    found = truth.read(tmp_path / "run")
    assert found
    assert found.notes == []
    assert [stage.name for stage in found.stages] == [
        "decode", "tokenize_prompt", "encode_prompt", "detect", "crop", "observe", "encode_image",
    ]  # fmt: skip
    for model in [*found.stages, *found.pipelines]:
        assert (model.requests, model.items, dict(model.batches)) == (3, 6, {2: 3})
        assert model.failed == 0
        assert model.compute_ms > 0
    for model in found.stages:
        assert model.queue_ms + model.compute_ms + model.copies_ms == pytest.approx(model.total_ms, rel=0.2, abs=1)
    assert [model.name for model in found.pipelines] == ["product_image"]
    assert {"nv_cpu_utilization", "nv_cpu_memory_used_bytes"} <= found.gauges.keys()
    assert truth.read(tmp_path) is None


def test_what_is_closed_is_said_and_the_rest_is_told(toy_repositories: list[Path]) -> None:
    options = [f"--grpc-restricted-protocol={what}:key=secret" for what in ("statistics", "model-config")]
    with Server.start(toy_repositories, options=options) as server:
        before = truth.snapshot(server.grpc_url, server.metrics_url)
        ask(server, 2)
        after = truth.snapshot(server.grpc_url, server.metrics_url)
        nothing = truth.snapshot(server.grpc_url, None)
    json.dumps(after)
    found = truth.difference(before, after)
    decode = next(stage for stage in found.stages if stage.name == "decode")
    assert (decode.requests, decode.items, decode.executions, decode.batches) == (2, 4, 2, {})
    assert 0 < decode.compute_ms < decode.total_ms
    assert [note.partition(":")[0] for note in found.notes] == [
        "no statistics",
        "no configs, so pipelines stand among the stages",
    ]
    assert nothing["models"] == {}
    assert [note.partition(":")[0] for note in nothing["closed"]] == ["no metrics", "no statistics"]


def test_statistics_that_are_closed_are_read_with_the_admin_key(
    toy_repositories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other machines can ask, as `serving start` closes them."""
    monkeypatch.setenv("VLCLIP_ADMIN_KEY", "of-the-operator")
    with Server.start(toy_repositories, host="0.0.0.0") as server:
        ask(server, 1)
        found = truth.snapshot(server.grpc_url, server.metrics_url)
        assert found["closed"] == []
        assert found["models"]["decode/1"]["batches"]["2"] >= 1
        monkeypatch.setenv("VLCLIP_ADMIN_KEY", "guessed")
        (note,) = truth.snapshot(server.grpc_url, server.metrics_url)["closed"]
        assert note.startswith("no statistics: the key in VLCLIP_ADMIN_KEY is not the server's admin key, so times are")
        monkeypatch.delenv("VLCLIP_ADMIN_KEY")
        before = truth.snapshot(server.grpc_url, server.metrics_url)
        ask(server, 1)
        closed = truth.difference(before, truth.snapshot(server.grpc_url, server.metrics_url))
    assert len(closed.notes) == 1
    assert "closed to callers without the server's admin key, set VLCLIP_ADMIN_KEY to it" in closed.notes[0]
    assert next(stage for stage in closed.stages if stage.name == "decode").requests == 1


def test_a_server_that_is_not_there_is_said_so():
    found = truth.snapshot("127.0.0.1:1", "http://127.0.0.1:1/metrics")
    assert found["models"] == found["gauges"] == {}
    assert [note.partition(":")[0] for note in found["closed"]] == ["no metrics", "no statistics"]
