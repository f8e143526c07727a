"""The comparison measures all services and checks their embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.beside.__main__ import DisagreementError, measures, run, services_of, show
from benchmarks.beside.services import Array, Connection, Service
from benchmarks.photos import Sample
from tests.pictures import encode, picture

SAMPLES: list[Sample] = [(encode(picture(seed=i), "JPEG"), "mug") for i in range(4)]
PLAN = measures(clients=4, batch=4, in_flight=2, photos=8)


class Echo(Service):
    """A service that returns a part of each photo as its embedding."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign, self.pid = sign, os.getpid()

    def message(self, samples: Sequence[Sample]) -> Array:
        rows = np.stack([np.frombuffer(photo[-64:], np.uint8).astype(np.float32) for photo, _ in samples])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def connect(self) -> AbstractContextManager[Connection]:
        return nullcontext(lambda message: self.sign * message)

    def embeddings(self, answer: Array) -> Array:
        return answer


def test_all_services_agree_and_are_compared(toy_repositories: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with services_of(toy_repositories[0]) as services:
        report = run(services, SAMPLES, PLAN, turns=1)
    assert min(report["cosine_min"].values()) > 0.99999
    assert set(report["cosine_min"]) == {"served", "in process", "one by one", "FastAPI", "LitServe"}
    ratios = {name: set(measure["ratios"]) for name, measure in report["measures"].items()}
    assert ratios == {
        "clients": {"served / FastAPI", "served / LitServe"},
        "latency": {"served / in process", "FastAPI / in process", "LitServe / in process"},
        "offline": {"served / in process", "served / one by one"},
    }
    clients = report["measures"]["clients"]
    rates = {name: found["photos/s"]["median"] for name, found in clients["services"].items()}
    assert clients["ratios"]["served / FastAPI"]["median"] == pytest.approx(rates["served"] / rates["FastAPI"])
    latency = report["measures"]["latency"]
    p50 = {name: found["p50_ms"] for name, found in latency["services"].items()}
    assert latency["ratios"]["served / in process"]["median"] == pytest.approx(p50["served"] / p50["in process"])
    assert json.loads(json.dumps(report)) == report
    show(report)
    assert "LitServe" in capsys.readouterr().out


def test_a_wrong_embedding_is_an_error() -> None:
    plan = {"offline": replace(PLAN["offline"], services=("served",), ratios=())}
    with pytest.raises(DisagreementError, match=r"at least 0\.9999 .*: served -1"):
        run({"served": Echo(-1.0), "in process": Echo()}, SAMPLES, plan, turns=1)
