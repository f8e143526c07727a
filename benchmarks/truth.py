"""The server's metrics and statistics, read before and after a load run.

    before = snapshot("localhost:8001", "http://localhost:8002/metrics")
    ...
    write(folder, before, snapshot("localhost:8001", "http://localhost:8002/metrics"))
    read(folder).stages      # queue, compute and copies of each leaf, in ms a request

The counters are those of all callers, so their difference belongs to the run only if nobody else sent requests. The
statistics add the sizes of batches. If the server gives them only to callers with its admin key, set VLCLIP_ADMIN_KEY.
"""

from __future__ import annotations

import json
import math
import os
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving.server.options import ADMIN_KEY
from serving.triton_metrics import Sample, parse_metrics

KEY_HEADER = "triton-grpc-protocol-admin-key"
SECONDS = 10.0
"""Time-out for an answer of the server."""
PREFIX = "nv_inference_"
BATCHES = "batches"
"""Name of the counter of batches, with the labels ``model``, ``version`` and ``size``. It comes from the statistics."""
MEMORY = "memory of the server's processes, bytes"
SIZES = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, math.inf))
"""Ranges of batch sizes that the report shows."""

Snapshot = dict[str, Any]
"""``samples`` (fields of Sample), ``pipelines`` (name → leaves) and ``notes``. It can be written as JSON."""


@dataclass(frozen=True)
class Truth:
    """A run as the server saw it."""

    stages: pl.DataFrame
    """A row a leaf, in the order in which the pipelines call them; times are means in ms a request."""
    pipelines: pl.DataFrame
    """The same for the pipelines."""
    batches: pl.DataFrame
    """For each leaf the percentage of its items that ran in batches of each range of sizes."""
    metrics: pl.DataFrame
    """``metric`` and ``change``: counters that rose, and gauges before and after."""
    notes: list[str]
    """What the server did not report, and which counters cannot be trusted."""


def snapshot(grpc_url: str, metrics_url: str, memory: int | None = None) -> Snapshot:
    """The counters and gauges at this moment. ``notes`` names what the server refuses or does not have."""
    notes = []
    samples: list[Sample] = [] if memory is None else [Sample(MEMORY, {}, memory, "gauge")]
    pipelines: dict[str, list[str]] = {}
    try:
        samples += read_metrics(metrics_url)
    except (OSError, ValueError) as error:
        notes.append(f"no metrics, so stages are unknown: {metrics_url}: {error}")
    key = os.environ.get(ADMIN_KEY)
    with triton.InferenceServerClient(grpc_url) as client:
        try:
            headers = {KEY_HEADER: key} if key else None
            stats = client.get_inference_statistics(client_timeout=SECONDS, headers=headers).model_stats
            samples += [
                Sample(
                    BATCHES,
                    {"model": model.name, "version": model.version, "size": str(batch.batch_size)},
                    batch.compute_infer.count,
                    "counter",
                )
                for model in stats
                for batch in model.batch_stats
            ]
        except InferenceServerException as error:
            notes.append(f"no statistics, so batch sizes are unknown: {_why_closed(error.message(), key)}")
        try:
            for name in sorted({sample.labels["model"] for sample in samples if "model" in sample.labels}):
                config = client.get_model_config(name, client_timeout=SECONDS).config
                if config.HasField("ensemble_scheduling"):
                    pipelines[name] = [step.model_name for step in config.ensemble_scheduling.step]
        except InferenceServerException as error:
            notes.append(f"no configurations, so pipelines are listed among the stages: {error.message()}")
    return {"samples": samples, "pipelines": pipelines, "notes": notes}


def read_metrics(url: str) -> list[Sample]:
    """Metrics without buckets, percentiles and summaries. Raises OSError, or ValueError for a malformed address."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        text = answer.read().decode()
    return [
        sample
        for sample in parse_metrics(text)
        if "le" not in sample.labels and sample.kind != "summary" and not math.isnan(sample.value)
    ]


def _why_closed(message: str, key: str | None) -> str:
    """The reason, and what to do if the admin key is missing or wrong."""
    if KEY_HEADER not in message:
        return message
    if key:
        return f"the key in {ADMIN_KEY} is not the server's admin key"
    return f"the server gives them only to callers with its admin key; set {ADMIN_KEY} to it"


def write(folder: Path, before: Snapshot, after: Snapshot) -> None:
    """Write ``server.json`` into the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")


def read(folder: Path) -> Truth | None:
    """The server's account of the run in this folder. None if there is none."""
    file = folder / "server.json"
    if not file.exists():
        return None
    snapshots = json.loads(file.read_text())
    return difference(snapshots["before"], snapshots["after"])


def difference(before: Snapshot, after: Snapshot) -> Truth:
    """The changes between two snapshots. A model whose counters fell is left out, with a note."""
    old, new = ({str(s): s for s in map(Sample._make, one["samples"])} for one in (before, after))
    notes = list(dict.fromkeys([*before["notes"], *after["notes"]]))
    models_before, models_after = ({_model(s) for s in one.values() if "model" in s.labels} for one in (old, new))
    if models_after and not models_before:
        notes.append("the counters before the run are unknown, so no stage can be reported")
        new = {name: sample for name, sample in new.items() if "model" not in sample.labels}
    if models_after and (gone := sorted(models_before - models_after)):
        notes.append(f"{', '.join(gone)} was unloaded during the run, so its counters are unknown")

    rises = [
        (sample, sample.value - (old[name].value if name in old else 0))
        for name, sample in new.items()
        if sample.kind != "gauge"
    ]
    fell = {_model(sample) for sample, rise in rises if rise < 0}
    fell |= {_model(old[name]) for name in old.keys() - new.keys() if _model(old[name]) in models_after}
    if fell:
        notes.append(f"left out, because the counters fell, after a reload or a restart: {', '.join(sorted(fell))}")
    rises = [(sample, rise) for sample, rise in rises if rise > 0 and _model(sample) not in fell]

    counts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    changes = []
    for sample, rise in rises:
        if sample.name == BATCHES:
            sizes[sample.labels["model"]][int(sample.labels["size"])] += int(rise)
        elif sample.name.startswith(PREFIX):
            counts[sample.labels["model"]][sample.name.removeprefix(PREFIX)] += rise
        else:
            changes.append((str(sample), f"+{rise:,.10g}"))
    for name, sample in new.items():
        was = old[name].value if name in old else sample.value
        if sample.kind == "gauge" and (was or sample.value):
            changes.append((name, f"{_gauge(name, was)} → {_gauge(name, sample.value)}"))

    wiring: dict[str, list[str]] = {**before["pipelines"], **after["pipelines"]}
    order = list(dict.fromkeys(leaf for steps in sorted(wiring.values(), key=len, reverse=True) for leaf in steps))
    leaves = sorted(counts.keys() - wiring.keys(), key=lambda name: (name not in order, [*order, name].index(name)))
    return Truth(
        _stages("stage", leaves, counts, sizes),
        _stages("pipeline", sorted(counts.keys() & wiring.keys()), counts, sizes),
        pl.DataFrame([{"stage": leaf, **_shares(sizes[leaf])} for leaf in leaves if sizes[leaf]]),
        pl.DataFrame(changes, ["metric", "change"], orient="row"),
        notes,
    )


def _model(sample: Sample) -> str:
    """The model and version that a counter belongs to, or the counter itself."""
    labels = sample.labels
    return f"{labels['model']}/{labels['version']}" if "version" in labels else str(sample)


def _stages(
    title: str, models: Sequence[str], counts: Mapping[str, Mapping[str, float]], sizes: Mapping[str, Counter[int]]
) -> pl.DataFrame:
    """One row a model; the counters have their names in Triton without the prefix."""
    return pl.DataFrame([{title: name, **_stage(counts[name], sizes[name])} for name in models])


def _stage(count: Mapping[str, float], sizes: Counter[int]) -> dict[str, float | None]:
    requests, executions = count["request_success"], count["exec_count"]
    names = ("request", "queue", "compute_infer", "compute_input", "compute_output")
    total, queue, compute, *copies = (1e-3 * count[f"{name}_duration_us"] / (requests or 1) for name in names)
    return {
        "requests": int(requests),
        "failed": int(count["request_failure"]),
        "total": total,
        "queue": queue,
        "compute": compute,
        "copies": sum(copies),
        "items": int(count["count"]),
        "executions": int(executions),
        "mean batch": count["count"] / executions if executions else None,
        "largest": max(sizes, default=None),
    }


def _shares(sizes: Mapping[int, int]) -> dict[str, float]:
    """The percentage of the items that ran in batches of each range of sizes."""
    total = sum(size * count for size, count in sizes.items())
    return {
        f"{least}" if least == most else f"{least} to {most}" if most < math.inf else f"{least} or more": 100
        * sum(size * count for size, count in sizes.items() if least <= size <= most)
        / total
        for least, most in SIZES
    }


def _gauge(name: str, value: float) -> str:
    if "bytes" in name:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.1%}" if name.split("{")[0].endswith("utilization") else f"{value:,.4g}"
