"""What the server says of a run: Triton's statistics and metrics, read before it and after it.

    before = snapshot("localhost:8001", "http://localhost:8002/metrics")
    ...
    write(folder, before, snapshot("localhost:8001", "http://localhost:8002/metrics"))
    read(folder).stages      # of each leaf: queue, compute and copies in ms a request, batch sizes

Both count from the start of a model, for all callers: the difference is the run's alone where nobody else asked. Where
statistics are closed to callers without the server's admin key, VLCLIP_ADMIN_KEY is taken for it.
"""

from __future__ import annotations

import json
import math
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving import triton_metrics
from serving.server.options import ADMIN_KEY
from serving.triton_metrics import Sample

KEY_HEADER = "triton-grpc-protocol-admin-key"
SECONDS = 10.0
"""For an answer of the server."""
PHASES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit")
FAILURES = "nv_inference_request_failure"
METRICS = {
    "nv_inference_request_success": (("success", "queue", "compute_input", "compute_infer", "compute_output"), "count"),
    FAILURES: (("fail",), "count"),
    "nv_inference_request_duration_us": (("success",), "ns"),
    "nv_inference_queue_duration_us": (("queue",), "ns"),
    "nv_inference_compute_input_duration_us": (("compute_input",), "ns"),
    "nv_inference_compute_infer_duration_us": (("compute_infer",), "ns"),
    "nv_inference_compute_output_duration_us": (("compute_output",), "ns"),
    "nv_inference_count": (("items",), None),
    "nv_inference_exec_count": (("executions",), None),
}
"""Where Triton's metrics have what its statistics have, in sums over all batch sizes; failures by reason as well."""


@dataclass(frozen=True)
class Model:
    """A model in a run. Times are means in ms over its requests, each of which waits for its whole batch."""

    name: str
    requests: int
    """That were answered."""
    failed: int
    items: int
    executions: int
    total_ms: float
    queue_ms: float
    compute_ms: float
    copies_ms: float
    """Tensors in before computing, and out after it."""
    cached: int = 0
    """Requests that the response cache answered."""
    batches: Mapping[int, int] = field(default_factory=dict)
    """Items of a batch → executions."""

    @property
    def mean_batch(self) -> float:
        """Items an execution."""
        return self.items / self.executions if self.executions else 0.0


@dataclass(frozen=True)
class Truth:
    """A run as the server saw it."""

    stages: list[Model]
    """The leaves, in the order in which the pipelines call them."""
    pipelines: list[Model]
    counters: Mapping[str, float]
    """Metrics that count, where they rose."""
    gauges: Mapping[str, tuple[float, float]]
    """Metrics that go up and down: before and after."""
    notes: list[str]
    """What the server did not tell, and what cannot be believed."""


def snapshot(grpc_url: str, metrics_url: str | None) -> dict[str, Any]:
    """The counters as they stand, JSON-able. What the server refuses or does not have is named in ``closed``."""
    closed: list[str] = []
    key = os.environ.get(ADMIN_KEY)
    samples: list[Sample] = []
    models: dict[str, Any] = {}
    pipelines: dict[str, list[str]] = {}
    if metrics_url is None:
        closed.append("no metrics: no address of them was given")
    else:
        try:
            samples = parse_metrics(_fetch(metrics_url))
        except (OSError, ValueError) as error:
            closed.append(f"no metrics: {metrics_url}: {error}")
    with triton.InferenceServerClient(grpc_url) as client:
        try:
            models = {
                f"{stats.name}/{stats.version}": _counts(stats)
                for stats in client.get_inference_statistics(
                    client_timeout=SECONDS, headers={KEY_HEADER: key} if key else None
                ).model_stats
            }
        except InferenceServerException as error:
            models = _counts_of_metrics(samples)
            closed.append(
                f"no statistics: {_why_closed(error.message(), key)}"
                + (", so times are from the metrics, which know no single batch sizes" if models else "")
            )
        try:
            for name in sorted({name.rpartition("/")[0] for name in models}):
                config = client.get_model_config(name, client_timeout=SECONDS).config
                if config.HasField("ensemble_scheduling"):
                    pipelines[name] = [step.model_name for step in config.ensemble_scheduling.step]
        except InferenceServerException as error:
            closed.append(f"no configs, so pipelines stand among the stages: {error.message()}")
    return {
        "time": time.time(),
        "models": models,
        "pipelines": pipelines,
        "counters": {
            str(sample): sample.value
            for sample in samples
            if not is_gauge(sample) and (sample.name not in METRICS or sample.name == FAILURES)
        },
        "gauges": {str(sample): sample.value for sample in samples if is_gauge(sample)},
        "closed": closed,
    }


def write(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Into ``server.json`` of the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")


def read(folder: Path) -> Truth | None:
    """What the server said of the run in this folder; None if it was not asked."""
    file = folder / "server.json"
    if not file.exists():
        return None
    snapshots = json.loads(file.read_text())
    return difference(snapshots["before"], snapshots["after"])


def difference(before: dict[str, Any], after: dict[str, Any]) -> Truth:
    """What happened between two snapshots. Counters that fell began anew in between, and are left out with a note."""
    notes = list(dict.fromkeys([*before["closed"], *after["closed"]]))
    gone = sorted(before["models"].keys() - after["models"].keys())
    if gone and after["models"]:
        notes.append(f"{', '.join(gone)} was unloaded during the run: what it did is not known")
    if after["models"] and not before["models"]:
        notes.append("what the counters were before the run is not known: no stage can be told")
    rose: dict[str, list[dict[str, Any]]] = {}
    anew = []
    for name, counts in after["models"].items() if before["models"] else ():
        risen = _subtract(counts, before["models"].get(name, {}))
        if any(value < 0 for value in _numbers(risen)):
            anew.append(name)
        elif any(_numbers(risen)):
            rose.setdefault(name.rpartition("/")[0], []).append(risen)
    counters = _subtract(after["counters"], before["counters"] if after["counters"] else {})
    anew += [name for name, value in counters.items() if value < 0]
    if anew:
        notes.append(
            "counters began anew during the run, by a reload or a restart; left out, though others may have as well: "
            + ", ".join(sorted(anew))
        )
    wiring: dict[str, list[str]] = {**before["pipelines"], **after["pipelines"]}
    called = [leaf for steps in sorted(wiring.values(), key=len, reverse=True) for leaf in steps]
    order = {leaf: place for place, leaf in reversed(list(enumerate(called)))}
    models = [_model(name, versions) for name, versions in rose.items()]
    return Truth(
        stages=sorted(
            (model for model in models if model.name not in wiring),
            key=lambda model: (order.get(model.name, len(order)), model.name),
        ),
        pipelines=sorted((model for model in models if model.name in wiring), key=lambda model: model.name),
        counters={name: value for name, value in counters.items() if value > 0},
        gauges={name: (before["gauges"].get(name, value), value) for name, value in after["gauges"].items()},
        notes=notes,
    )


def parse_metrics(text: str) -> list[Sample]:
    """The samples of Prometheus' text, in which counters have lost the ending ``_total`` if they had it.

    Without buckets and percentiles, which are many, and Triton's summaries, which count what its statistics count.
    """
    return [
        sample if is_gauge(sample) else sample._replace(name=sample.name.removesuffix("_total"))
        for sample in triton_metrics.parse_metrics(text)
        if not (math.isnan(sample.value) or "_summary_us" in sample.name or {"le", "quantile"} & sample.labels.keys())
    ]


def is_gauge(sample: Sample) -> bool:
    """Whether a metric can go down; one of no known kind can."""
    return sample.kind in ("gauge", "")


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.read().decode()


def _counts(stats: Any) -> dict[str, Any]:
    phases = {phase: getattr(stats.inference_stats, phase) for phase in PHASES}
    return {
        **{phase: {"count": duration.count, "ns": duration.ns} for phase, duration in phases.items()},
        "items": stats.inference_count,
        "executions": stats.execution_count,
        "batches": {str(batch.batch_size): batch.compute_infer.count for batch in stats.batch_stats},
    }


def _counts_of_metrics(samples: Sequence[Sample]) -> dict[str, Any]:
    """What :func:`_counts` gives, as far as the metrics know it."""
    models: dict[str, Any] = {}
    for sample in samples:
        if sample.name not in METRICS or not {"model", "version"} <= sample.labels.keys():
            continue
        counts = models.setdefault(
            f"{sample.labels['model']}/{sample.labels['version']}",
            {**{phase: {"count": 0, "ns": 0} for phase in PHASES}, "items": 0, "executions": 0, "batches": {}},
        )
        phases, unit = METRICS[sample.name]
        for phase in phases:
            if unit:
                counts[phase][unit] += int(sample.value * (1000 if unit == "ns" else 1))
            else:
                counts[phase] += int(sample.value)
    return models


def _why_closed(message: str, key: str | None) -> str:
    """What to do, where it was for want of the admin key."""
    if KEY_HEADER not in message:
        return message
    if key:
        return f"the key in {ADMIN_KEY} is not the server's admin key"
    return f"they are closed to callers without the server's admin key, set {ADMIN_KEY} to it"


def _subtract(after: Any, before: Any) -> Any:
    """Of nested numbers; what was not there before counts from 0."""
    if isinstance(after, Mapping):
        was = before or {}
        names = [*after, *(name for name in was if name not in after)]
        return {name: _subtract(after.get(name, 0), was.get(name, 0)) for name in names}
    return after - (before or 0)


def _numbers(nested: Any) -> Iterator[float]:
    if isinstance(nested, Mapping):
        for value in nested.values():
            yield from _numbers(value)
    else:
        yield nested


def _model(name: str, versions: Sequence[dict[str, Any]]) -> Model:
    """Of the versions that answered in turn."""

    def total(*path: str) -> int:
        return sum(_at(version, path) for version in versions)

    def mean_ms(*phases: str) -> float:
        return sum(1e-6 * total(phase, "ns") / (total(phase, "count") or 1) for phase in phases)

    batches = Counter[int]()
    for version in versions:
        batches.update({int(size): count for size, count in version["batches"].items() if count})
    return Model(
        name=name,
        requests=total("success", "count"),
        failed=total("fail", "count"),
        items=total("items"),
        executions=total("executions"),
        total_ms=mean_ms("success"),
        queue_ms=mean_ms("queue"),
        compute_ms=mean_ms("compute_infer"),
        copies_ms=mean_ms("compute_input", "compute_output"),
        cached=total("cache_hit", "count"),
        batches=dict(sorted(batches.items())),
    )


def _at(nested: Any, path: Sequence[str]) -> int:
    for name in path:
        nested = nested[name]
    return nested
