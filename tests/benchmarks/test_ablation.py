"""The ablation's figures, of ranks made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import ablation


def report(whole: int, raw: int, enriched: int) -> dict[str, Any]:
    """Of 20 queries whose product always has the same rank."""
    figures = {name: ablation.measure(np.full(20, rank)) for name, rank in (("whole", whole), ("grounded", raw))}
    return {
        "figures": {ablation.RAW: figures, ablation.ENRICHED: {"grounded": ablation.measure(np.full(20, enriched))}}
    }


def test_measure():
    found = ablation.measure(np.array([1, 2, 6, 10] * 25))
    assert found["hits5"] == 0.5
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 10) / 4)
    assert 0.35 < found["hits5_low"] < 0.45
    assert 0.55 < found["hits5_high"] < 0.65


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        pytest.param((9, 4, 4), False, id="enriching adds nothing"),
        pytest.param((9, 7, 1), False, id="grounding adds no hit"),
        pytest.param((9, 1, 4), False, id="enriching harms"),
    ],
)
def test_the_order_is_of_both_figures(ranks: tuple[int, int, int], expected: bool):
    assert ablation.is_ordered(report(*ranks)) == expected


def test_an_order():
    figures = report(9, 7, 1)
    figures["figures"][ablation.RAW]["grounded"] = ablation.measure(np.array([1, 9]))
    assert ablation.is_ordered(figures)
