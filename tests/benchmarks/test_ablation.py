"""The ablation's figures, from ranks made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ablation


def test_measure() -> None:
    found = ablation.measure(np.array([1, 2, 6, 10] * 25))
    assert found["hits5"] == 0.5
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 10) / 4)
    assert 0.35 < found["hits5_low"] < 0.45
    assert 0.55 < found["hits5_high"] < 0.65


@pytest.mark.parametrize(
    ("whole", "grounded", "enriched", "ordered"),
    [
        pytest.param([9, 9], [1, 9], [1, 1], True, id="each step adds to both figures"),
        pytest.param([9, 9], [4, 4], [4, 4], False, id="enriching adds nothing"),
        pytest.param([9, 9], [7, 7], [1, 1], False, id="grounding adds no hit"),
        pytest.param([9, 9], [1, 1], [4, 4], False, id="enriching is worse"),
    ],
)
def test_each_step_must_be_better_in_both_figures(
    whole: list[int], grounded: list[int], enriched: list[int], ordered: bool
) -> None:
    figures = {name: ablation.measure(np.array(rank)) for name, rank in (("whole", whole), ("grounded", grounded))}
    report = {"figures": {ablation.RAW: figures, ablation.ENRICHED: {"grounded": ablation.measure(np.array(enriched))}}}
    assert ablation.is_ordered(report) == ordered
