"""Measures that several benchmarks share: ranks, HITS@k, MRR, IoU, intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TOP = 5
"""The k of HITS@k."""


def ranks(text: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Rank of the matching image, from 1, for each of N texts [N, D] among N images [N, D]: [N].

    A tie counts against the matching image.
    """
    similarity = text @ images.T
    own = np.diagonal(similarity)[:, None]
    return np.asarray((similarity >= own).sum(axis=1))


def hits(rank: np.ndarray, k: int = TOP) -> float:
    """HITS@k: the share of the ranks [N] that are k or better."""
    return float((rank <= k).mean())


def mrr(rank: np.ndarray) -> float:
    """The mean reciprocal rank of the ranks [N]."""
    return float((1 / rank).mean())


def box_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Intersection over union of N pairs of boxes [N, 4]: [N]."""
    low, high = np.maximum(a_xyxy[:, :2], b_xyxy[:, :2]), np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (a_xyxy, b_xyxy)]
    return np.asarray(both / np.maximum(areas[0] + areas[1] - both, 1e-9))


def bootstrap(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, draws: int = 1000
) -> tuple[float, float]:
    """The bounds of the 95 % bootstrap interval of a statistic of the values [N], the mean by default."""
    values = np.asarray(values)
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(statistic(values[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)
