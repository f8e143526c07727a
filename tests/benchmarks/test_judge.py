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
    ("other", "expected"),
    [
        pytest.param([0, 0, 2, 2], 1, id="the same box"),
        pytest.param([1, 0, 3, 2], 1 / 3, id="half of it"),
        pytest.param([2, 2, 3, 3], 0, id="a corner in common"),
        pytest.param([0, 0, 0, 0], 0, id="an empty box"),
    ],
)
def test_box_iou(other: list[float], expected: float) -> None:
    assert box_iou(np.array([[0.0, 0, 2, 2]]), np.array([other], float)).tolist() == pytest.approx([expected])


def test_the_iou_of_empty_boxes_is_0() -> None:
    assert box_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [0]


def test_bootstrap_interval() -> None:
    low, high = bootstrap(np.arange(100) < 50)
    assert 0.35 < low < 0.45
    assert 0.55 < high < 0.65
    assert bootstrap([3.0, 3.0], np.median) == (3, 3)
