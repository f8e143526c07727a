"""Measures of retrieval, one value for each query, and the intervals of their means.

A measure is an array [Q], so that means, intervals and differences of two systems come from the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOP = 5
"""The k of HITS@k."""
Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """The mean of a measure and the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ranks(text: np.ndarray, images: np.ndarray) -> Values:
    """Rank of the matching image, from 1, for each of N texts [N, D] among N images [N, D]: [N].

    A tie counts against the matching image.
    """
    similarity = text @ images.T
    own = np.diagonal(similarity)[:, None]
    return np.asarray((similarity >= own).sum(axis=1), float)


def hits(rank: np.ndarray, k: int = TOP) -> Values:
    """HITS@k: 1 for each of the ranks [N] that is k or better, else 0. A rank of infinity was not found."""
    return np.asarray(rank <= k, float)


def reciprocal(rank: np.ndarray) -> Values:
    """The reciprocals of the ranks [N], whose mean is the MRR. A rank of infinity counts 0."""
    return np.asarray(1 / rank)


def graded(
    found: Sequence[Sequence[str]], grades: Sequence[Mapping[str, float]], ks: Sequence[int]
) -> dict[str, Values]:
    """The measures of Q rankings of products: HITS, recall, P and nDCG at each k, and MRR.

    ``found`` holds the products of each query, best first. ``grades`` holds the judged products of each query; a
    product is relevant if its grade is above 0, and every query needs one. nDCG has linear gains and the discount
    1 / log2(rank + 1), as trec_eval computes it.
    """
    depth = max((len(one) for one in (*found, *grades)), default=0)
    gains = _padded([[of.get(product, 0.0) for product in one] for one, of in zip(found, grades, strict=True)], depth)
    ideal = _padded([sorted(of.values(), reverse=True) for of in grades], depth)
    is_relevant = gains > 0
    rank = np.where(is_relevant.any(1), is_relevant.argmax(1) + 1.0, np.inf)
    total = (ideal > 0).sum(1)
    discount = 1 / np.log2(np.arange(depth) + 2)
    measures = {"MRR": reciprocal(rank)}
    for k in ks:
        first = is_relevant[:, :k].sum(1)
        best = (ideal * discount)[:, :k].sum(1)
        measures |= {
            f"HITS@{k}": hits(rank, k),
            f"recall@{k}": first / total,
            f"P@{k}": first / k,
            f"nDCG@{k}": (gains * discount)[:, :k].sum(1) / best,
        }
    return measures


def _padded(rows: Sequence[Sequence[float]], width: int) -> Values:
    return np.array([[*row, *[0.0] * (width - len(row))] for row in rows], float).reshape(len(rows), width)


def overlap(found: Sequence[Sequence[str]], exact: Sequence[Sequence[str]]) -> Values:
    """The share of the products of an exact search that were found: [Q]. 1 where the exact search found none."""
    pairs = zip(found, exact, strict=True)
    return np.array([len({*one} & {*best}) / len(best) if best else 1.0 for one, best in pairs])


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of the values [N] of a measure and its interval."""
    return Estimate(float(np.mean(values)), *bootstrap(values))


def bootstrap(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, draws: int = 1000
) -> tuple[float, float]:
    """The bounds of the 95 % bootstrap interval of a statistic of the values [N], the mean by default.

    The seed is fixed: the same values have the same interval.
    """
    values = np.asarray(values)
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(statistic(values[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)
