"""The measures of retrieval, on rankings whose answers are known."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from search.measures import bootstrap, estimate, graded, hits, overlap, ranks, reciprocal


def test_ranks_count_ties_against_the_matching_image() -> None:
    images = np.array([[1.0, 0, 0], [1.0, 0.5, 0], [0, 0, 1]])
    rank = ranks(np.eye(3), images)
    assert rank.tolist() == [2, 1, 1]
    assert hits(rank, 1).tolist() == [0, 1, 1]
    assert reciprocal(rank).mean() == pytest.approx((1 / 2 + 1 + 1) / 3)


IDEAL = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param("", {"HITS@3": 0, "recall@3": 0, "P@3": 0, "MRR": 0, "nDCG@3": 0}, id="nothing found"),
        pytest.param("xyzw", {"HITS@3": 0, "recall@3": 0, "P@3": 0, "MRR": 0, "nDCG@3": 0}, id="nothing right"),
        pytest.param("abc", {"HITS@3": 1, "recall@3": 1, "P@3": 1, "MRR": 1, "nDCG@3": 1}, id="the ideal order"),
        pytest.param("xba", {"HITS@3": 1, "recall@3": 2 / 3, "P@3": 2 / 3, "MRR": 1 / 2,
                             "nDCG@3": (1 / log2(3) + 2 / log2(4)) / IDEAL}, id="grades in the wrong order"),
        pytest.param("xyzda", {"HITS@3": 0, "recall@3": 0, "P@3": 0, "MRR": 1 / 5, "nDCG@3": 0}, id="below k; grade 0"),
        pytest.param("a", {"HITS@3": 1, "recall@3": 1 / 3, "P@3": 1 / 3, "MRR": 1, "nDCG@3": 2 / IDEAL}, id="few"),
    ],
)  # fmt: skip
def test_measures_of_a_ranking(found: str, expected: dict[str, float]) -> None:
    other = graded([list(found), ["q"]], [{"a": 2, "b": 1, "c": 1, "d": 0}, {"q": 1}], [3])
    assert {name: values[0] for name, values in other.items()} == pytest.approx(expected)
    assert other["nDCG@3"][1] == 1


def test_the_recall_of_an_index_is_the_share_of_the_exact_answer() -> None:
    assert overlap([["a", "x"], [], []], [["b", "a"], ["a"], []]).tolist() == [0.5, 0, 1]


def test_bootstrap_interval() -> None:
    low, high = bootstrap(np.arange(100) < 50)
    assert 0.35 < low < 0.45
    assert 0.55 < high < 0.65
    assert bootstrap([3.0, 3.0], np.median) == (3, 3)
    assert (estimate([0.0, 1.0]), estimate([0.0, 1.0]).value) == (estimate([0.0, 1.0]), 0.5)
