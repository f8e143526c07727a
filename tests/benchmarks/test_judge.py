"""The overlap of boxes, on values whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.judge import box_iou


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        pytest.param([0, 0, 2, 2], [0, 0, 2, 2], 1, id="equal"),
        pytest.param([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, id="half"),
        pytest.param([0, 0, 2, 2], [2, 2, 3, 3], 0, id="a corner in common"),
        pytest.param([0, 0, 0, 0], [0, 0, 0, 0], 0, id="empty"),
    ],
)
def test_box_iou(box: list[float], other: list[float], expected: float) -> None:
    assert box_iou(np.array([box], float), np.array([other], float)).tolist() == pytest.approx([expected])
