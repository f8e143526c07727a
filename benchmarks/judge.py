"""How well boxes agree. The measures of retrieval are in `search.measures`."""

from __future__ import annotations

import numpy as np


def box_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Intersection over union of N pairs of boxes [N, 4]: [N]."""
    low, high = np.maximum(a_xyxy[:, :2], b_xyxy[:, :2]), np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (a_xyxy, b_xyxy)]
    return np.asarray(both / np.maximum(areas[0] + areas[1] - both, 1e-9))
