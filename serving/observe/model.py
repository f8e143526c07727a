"""What the graphs found, counted: of the pipelines that ground, images by STATUS and the scores of those decoded.

The graphs run in backends that count nothing of ours. So this step hands the status through that ``crop`` gave.
"""

from collections import Counter

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.metrics import Metrics

STATUSES = ("grounded", "whole_image", "not_an_image", "too_large")
FAMILIES = {
    "grounding_images_total": ("counter", "Images that a product was looked for in, by status"),
    "grounding_score": ("histogram", "Confidence of the best box of a decoded image; 0 where the prompt was empty"),
}
BUCKETS = {"grounding_score": [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}


class TritonPythonModel:
    def initialize(self, args):
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS)
        for status in STATUSES:
            # A rate needs a series that begins at 0.
            self.metrics.add("grounding_images_total", 0, status=status)

    def execute(self, requests):
        return [self.hand_through(request) for request in requests]

    def hand_through(self, request):
        cropped = pb_utils.get_input_tensor_by_name(request, "CROPPED").as_numpy()
        # `crop` gives no other; who calls this leaf by itself may, and must not fail the requests beside it.
        if not np.isin(cropped, range(len(STATUSES))).all():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("CROPPED: expected values from 0 to 3"))
        scores = pb_utils.get_input_tensor_by_name(request, "SCORE").as_numpy()
        for status, number in Counter(cropped.ravel().tolist()).items():
            self.metrics.add("grounding_images_total", number, status=STATUSES[status])
        for score in scores[cropped < 2].tolist():
            self.metrics.observe("grounding_score", score)
        return pb_utils.InferenceResponse([pb_utils.Tensor("STATUS", cropped)])

    def finalize(self):
        self.metrics.close()
