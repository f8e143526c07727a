"""The verdict of the ablation, from ranks made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ablation


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
