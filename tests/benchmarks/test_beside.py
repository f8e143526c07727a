"""The comparison asks all four services and believes none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.beside.__main__ import Disagreement, measures, run, services_of, show
from benchmarks.beside.load import take_turn
from benchmarks.beside.services import Ask
from tests.pictures import encode, picture

ASKS: list[Ask] = [(encode(picture(seed=i), "JPEG"), "mug") for i in range(4)]
PLAN = measures(clients=4, batch=4, in_flight=2, photos=8)


class Echo:
    """Answers with what it was asked, as one embedding a photo; the seam at which services differ."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign, self.pid = sign, os.getpid()

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def message(self, asks: Sequence[Ask]) -> np.ndarray:
        rows = np.stack([np.frombuffer(photo[-64:], np.uint8).astype(np.float32) for photo, _ in asks])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def connect(self) -> AbstractContextManager[Callable[[np.ndarray], np.ndarray]]:
        return nullcontext(lambda message: self.sign * message)

    def embeddings(self, answer: np.ndarray) -> np.ndarray:
        return answer


def test_all_four_agree_and_are_compared(toy_repositories: list[Path], capsys: pytest.CaptureFixture[str]):
    with services_of(toy_repositories[0]) as services:
        report = run(services, ASKS, PLAN, turns=1)
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


def test_a_wrong_service_does_not_win():
    plan = {"offline": replace(PLAN["offline"], services=("served",), ratios=())}
    with pytest.raises(Disagreement, match="served: the cosine"):
        run({"served": Echo(-1.0), "in process": Echo()}, ASKS, plan, turns=1)


def test_answers_come_in_the_order_of_the_asks():
    turn = take_turn(Echo(), ASKS * 10, clients=8, batch=1)
    assert np.array_equal(turn.embeddings, Echo().message(ASKS * 10))
    assert len(turn.latencies_ms) == 40
