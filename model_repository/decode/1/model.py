"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded costs its own row only."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from images import NOT_AN_IMAGE, OK, TOO_LARGE, Limits, decode, stack
from metrics import Metrics

RESULTS = {OK: "decoded", NOT_AN_IMAGE: "not_an_image", TOO_LARGE: "too_large"}
FAMILIES = {
    "decoded_images_total": ("counter", "Files that were to be decoded, by result"),
    "decoded_pixels": ("histogram", "Pixels of an image that was decoded, before it was shrunk"),
}
BUCKETS = {"decoded_pixels": [2.0**n for n in range(14, 28, 2)]}


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = Limits.parse({name: value["string_value"] for name, value in parameters.items()})
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS)
        for result in RESULTS.values():
            # A rate needs a series that begins at 0.
            self.metrics.add("decoded_images_total", 0, result=result)
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests):
        """All images side by side; then every request on canvases of one size, so that they can batch again."""
        pending = [[self.threads.submit(decode, blob, self.limits) for blob in blobs(request)] for request in requests]
        decoded = [[image.result() for image in images] for images in pending]
        for image in (image for images in decoded for image in images):
            self.count(image)
        side = self.limits.canvas_for(image.image_rgb for images in decoded for image in images)
        return [respond(images, side) for images in decoded]

    def count(self, image):
        self.metrics.add("decoded_images_total", result=RESULTS[image.status])
        if image.status == OK:
            self.metrics.observe("decoded_pixels", image.size[2] * image.size[3])

    def finalize(self):
        self.threads.shutdown()
        self.metrics.close()


def blobs(request):
    return pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()


def respond(images, side):
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("CANVAS", stack(images, side)),
            pb_utils.Tensor("SIZE", np.array([image.size for image in images], np.int32)),
            pb_utils.Tensor("DECODED", np.array([[image.status] for image in images], np.int32)),
        ]
    )
