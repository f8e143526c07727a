"""The steps without a server: graphs on the device compared with the CPU, and what each part takes."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_check.compare import MIN_COSINE, MOST_SCORE, differences
from benchmarks.gpu_check.device import OnDevice, Place, reference_of, seconds_of
from benchmarks.gpu_check.notes import Notes
from export.in_process import GRAPHS
from serving.repository.versions import GIVEN_BY

REPLAYS = 20
GREY = 2.0
"""The largest difference of PIXELS in grey levels. FP32 sums in another order move a value by one level."""


def compare_graphs(place: Place, notes: Notes, seconds: float) -> None:
    """Each graph alone, on a captured rung, with inputs of the CPU that change from replay to replay."""
    reference, warnings = reference_of(place), list[str]()
    for graph in GRAPHS:
        try:
            model = OnDevice(place, "8", warnings, [graph])
            wrong: list[str] = []
            worst: dict[str, float] = {}
            for replay in range(REPLAYS if place.is_gpu else 2):
                rows = (np.arange(8) + 3 * replay) % len(reference["STATUS"])
                inputs = {name: model.to_device(reference[name][rows]) for name in model.ladders[graph].signature}
                outputs = model.step(graph, inputs)
                for name in outputs.keys() - GIVEN_BY.get(graph, {}).keys():  # versions are constants
                    off = distance(name, model.to_host(outputs[name]), reference[name][rows])
                    worst[name] = max(worst.get(name, 0.0), off)
                    if off > limit_of(name):
                        wrong.append(f"{name} is {off:.4g} from the CPU's in replay {replay}")
            notes[graph] = {"worst": worst, "wrong": wrong[:3], "captured": place.is_gpu and not warnings}
        except Exception as error:
            notes[graph] = {"wrong": [f"{type(error).__name__}: {error}"[:500]]}
        if warnings:
            notes["warnings"] = warnings


def distance(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    """How far an output is off: 1 - cosine, grey levels, differences of scores, or rows that differ."""
    if not np.isfinite(found.astype(np.float64)).all():
        return float("inf")
    if name in ("EMBEDDING", "PROMPT"):
        norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
        cosines = (found * expected).sum(axis=-1) / np.maximum(norms, 1e-12)
        return float((1.0 - cosines[norms > 0]).max(initial=0.0))
    if name == "PIXELS":
        return float(np.abs(found - expected).max()) * 255.0 * 0.27  # the largest std of the encoders' preprocessing
    if name == "SCORE":
        return float(np.abs(found - expected).max())
    if name in ("BOX", "CANVAS_BOX"):
        return float((np.abs(found - expected).max(axis=1) > 4.0).mean())
    return float((found != expected).any(axis=tuple(range(1, found.ndim))).mean())


def limit_of(name: str) -> float:
    limits = {"EMBEDDING": 1 - MIN_COSINE, "PROMPT": 1 - MIN_COSINE, "PIXELS": GREY, "SCORE": MOST_SCORE}
    # With random weights many boxes have nearly the same score: see ``compare``.
    return limits.get(name, 0.5 if name == "CANVAS_BOX" else 0.0)


def measure_chain(place: Place, notes: Notes, seconds: float) -> None:
    """From JPEG bytes to embeddings in this process, at several batch sizes, and the answers compared."""
    warnings: list[str] = []
    samples = place.samples
    model = OnDevice(place, "1 8 32 64" if place.is_gpu else "1 8", warnings)
    notes["warnings"] = warnings
    answers = [model.embed(*map(list, zip(*samples[i : i + 8], strict=True))) for i in range(0, len(samples), 8)]
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    reference = reference_of(place)
    notes["answers"] = differences({"SCORE": reference["SCORE"], **found}, reference)
    for batch in (1, 8, 32, 128) if place.is_gpu else (1, 8):
        files, types = zip(*(samples[i % len(samples)] for i in range(batch)), strict=True)
        taken = seconds_of(partial(model.embed, files, types), seconds / 4, model.wait)
        notes[f"photos/s at {batch}"] = batch / statistics.median(taken)
        if batch == 1:
            notes["one photo, ms"] = percentiles(taken)


def measure_parts(place: Place, notes: Notes, seconds: float) -> None:
    """The decoder and each graph alone."""
    samples, reference = place.samples, reference_of(place)
    rungs = (1, 8, 32, 64) if place.is_gpu else (1, 8)
    share = seconds / (len(rungs) * len(GRAPHS) + 2)
    files = [samples[i % len(samples)][0] for i in range(32)]
    decoder = OnDevice(place, "1", [], [])
    notes["decoding on the CPU, photos/s"] = 32 / statistics.median(seconds_of(partial(decoder.decode, files), share))
    if place.is_gpu:
        taken = seconds_of(partial(decoder.decode_on_device, files), share, decoder.wait)
        notes["decoding on the GPU, photos/s"] = 32 / statistics.median(taken)
    for graph in GRAPHS:
        model = OnDevice(place, " ".join(map(str, rungs)), [], [graph])
        for rung in rungs:
            rows = np.arange(rung) % len(reference["STATUS"])
            inputs = {name: model.to_device(reference[name][rows]) for name in model.ladders[graph].signature}
            taken = seconds_of(partial(model.step, graph, inputs), share, model.wait)
            notes[f"{graph} at {rung}, ms"] = 1e3 * statistics.median(taken)


def percentiles(seconds: list[float]) -> dict[str, Any]:
    return {"p50": 1e3 * float(np.quantile(seconds, 0.5)), "p99": 1e3 * float(np.quantile(seconds, 0.99))}
