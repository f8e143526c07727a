"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded costs its own row only."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from images import Limits, draw


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = Limits(**{name: int(value["string_value"]) for name, value in parameters.items()})
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests):
        pending = [self.start(request) for request in requests]
        return [self.finish(*one) for one in pending]

    def start(self, request):
        """Set the threads to work on every image of the request, before the next request is looked at."""
        blobs = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        side = self.limits.canvas
        canvases = np.zeros((len(blobs), side, side, 3), np.uint8)
        return canvases, [self.threads.submit(draw, *image, self.limits) for image in zip(blobs, canvases, strict=True)]

    def finish(self, canvases, drawings):
        sizes, decoded = zip(*(drawing.result() for drawing in drawings), strict=True)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("CANVAS", canvases),
                pb_utils.Tensor("SIZE", np.array(sizes, np.int32)),
                pb_utils.Tensor("DECODED", np.array(decoded, np.int32)[:, None]),
            ]
        )

    def finalize(self):
        self.threads.shutdown()
