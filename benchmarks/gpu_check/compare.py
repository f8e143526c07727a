"""How far answers from a GPU may be from those of the CPU, for the same photos and graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.judge import box_iou

MIN_COSINE = 0.999
SAME_IOU = 0.9
MOST_SCORE = 0.01
"""The largest difference of a score. Of two boxes whose scores are this close, either may win, above all with random
weights."""
MIN_SAME = 0.5
"""The smallest share of equal boxes."""
Arrays = Mapping[str, np.ndarray]


def differences(found: Arrays, expected: Arrays) -> dict[str, Any]:
    """Figures of N answers of ``product_image``, and in ``wrong`` what is not within its limit.

    Both have EMBEDDING [N, D], BOX [N, 4], SCORE [N, 1] and STATUS [N, 1].
    """
    same = box_iou(found["BOX"], expected["BOX"]) >= SAME_IOU
    same |= (expected["STATUS"] != 0)[:, 0]
    score = np.abs(found["SCORE"] - expected["SCORE"])[:, 0]
    cosines = (found["EMBEDDING"] * expected["EMBEDDING"]).sum(axis=1)
    status = (found["STATUS"] != expected["STATUS"])[:, 0]
    figures: dict[str, Any] = {
        "photos": len(cosines),
        "cosine_min": float(cosines[(same & ~status) | np.isnan(cosines)].min(initial=1.0)),
        "same_box": float(same.mean()),
        "score_difference_max": float(score.max(initial=0.0)),
        "other_status": float(status.mean()),
    }
    # A score next to the threshold may fall on either side of it.
    lost = (status | ~same) & (score > MOST_SCORE)
    wrong = []
    if not figures["cosine_min"] >= MIN_COSINE:
        wrong.append(f"the smallest cosine is {figures['cosine_min']:.5f}, expected at least {MIN_COSINE}")
    if lost.any():
        wrong.append(f"{lost.sum()} photos have another box or status, and a score that differs by over {MOST_SCORE}")
    if figures["same_box"] < MIN_SAME:
        wrong.append(f"{figures['same_box']:.0%} of the boxes are the same, expected at least {MIN_SAME:.0%}")
    return figures | {"wrong": wrong}
