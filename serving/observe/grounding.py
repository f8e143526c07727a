"""Counts what grounding found: images by ``Status``, and the scores of decoded images.

The embedded server counts in our stand-in for Triton's onnxruntime backend, where ``crop`` has both values at hand.
NVIDIA's backends cannot count, so there the leaf ``observe`` does it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.metrics import Kind, Metrics
from serving.repository.specs import Status

FAMILIES: dict[str, tuple[Kind, str]] = {
    "grounding_images_total": ("counter", "Images that a product was looked for in, by status"),
    "grounding_score": ("histogram", "Confidence of the best box of a decoded image; 0 where the prompt was empty"),
}
BUCKETS = {"grounding_score": [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}


class GroundingCounter:
    """The metrics of grounding in one process."""

    def __init__(self) -> None:
        self._metrics = Metrics("vlclip_", FAMILIES, BUCKETS)
        for status in Status:
            self._metrics.add("grounding_images_total", 0, status=status.name.lower())

    def count(self, scores: npt.NDArray[np.float32], statuses: npt.NDArray[np.int32]) -> None:
        """Count the images of a request: SCORE and STATUS, both (B, 1)."""
        for status in Status:
            if number := int(np.count_nonzero(statuses == status)):
                self._metrics.add("grounding_images_total", number, status=status.name.lower())
        for score in scores[statuses <= Status.WHOLE_IMAGE].tolist():
            self._metrics.observe("grounding_score", score)

    def close(self) -> None:
        """Publish the counts that are left."""
        self._metrics.close()
