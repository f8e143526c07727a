"""The shared measures, on values whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.judge import bootstrap, box_iou, hits, mrr, ranks


def test_ranks_count_ties_against_the_matching_image() -> None:
    images = np.array([[1.0, 0, 0], [1.0, 0.5, 0], [0, 0, 1]])
    rank = ranks(np.eye(3), images)
    assert rank.tolist() == [2, 1, 1]
    assert hits(rank, 1) == pytest.approx(2 / 3)
    assert mrr(rank) == pytest.approx((1 / 2 + 1 + 1) / 3)


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


def test_bootstrap_interval() -> None:
    low, high = bootstrap(np.arange(100) < 50)
    assert 0.35 < low < 0.45
    assert 0.55 < high < 0.65
    assert bootstrap([3.0, 3.0], np.median) == (3, 3)
