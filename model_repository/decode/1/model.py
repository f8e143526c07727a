"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded costs its own row only.

What would wait too long behind this step is refused here, before it costs anything: see `admission`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from admission import Admission
from images import Limits, decode, stack


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        texts = {name: value["string_value"] for name, value in parameters.items()}
        self.limits = Limits.parse(texts)
        self.admission = Admission.parse(texts)
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests):
        """All images side by side; then every request on canvases of one size, so that they can batch again."""
        files = [blobs(request) for request in requests]
        refusals = [self.admission.refusal(len(blobs)) for blobs in files]
        pending = [
            [self.threads.submit(decode, blob, self.limits) for blob in blobs] if not refusal else []
            for blobs, refusal in zip(files, refusals, strict=True)
        ]
        decoded = [[image.result() for image in images] for images in pending]
        side = self.limits.canvas_for(image.image_rgb for images in decoded for image in images)
        return [
            refuse(refusal) if refusal else respond(images, side)
            for images, refusal in zip(decoded, refusals, strict=True)
        ]

    def finalize(self):
        self.threads.shutdown()


def blobs(request):
    return pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()


def refuse(why):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(why, pb_utils.TritonError.UNAVAILABLE))


def respond(images, side):
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("CANVAS", stack(images, side)),
            pb_utils.Tensor("SIZE", np.array([image.size for image in images], np.int32)),
            pb_utils.Tensor("DECODED", np.array([[image.status] for image in images], np.int32)),
        ]
    )
