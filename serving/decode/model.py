"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded costs its own row only.

What would wait too long behind this step is refused here, before it costs anything: see `admission`.

With `parameters { key: "decoder" value: { string_value: "nvimgcodec" } }` a GPU decodes what it can: see `gpu`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.admission import Admission
from serving.decode.images import NOT_AN_IMAGE, OK, TOO_LARGE, Limits, decode, stack
from serving.metrics import Metrics

RESULTS = {OK: "decoded", NOT_AN_IMAGE: "not_an_image", TOO_LARGE: "too_large"}
FAMILIES = {
    "decoded_images_total": ("counter", "Files that were to be decoded, by result"),
    "decoded_pixels": ("histogram", "Pixels of an image that was decoded, before it was shrunk"),
}
BUCKETS = {"decoded_pixels": [2.0**n for n in range(14, 28, 2)]}


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        texts = {name: value["string_value"] for name, value in parameters.items()}
        self.limits = Limits.parse(texts)
        self.admission = Admission.parse(texts)
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS)
        for result in RESULTS.values():
            # A rate needs a series that begins at 0.
            self.metrics.add("decoded_images_total", 0, result=result)
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self.gpu = None
        if texts.get("decoder") == "nvimgcodec":
            from serving.decode.gpu import GpuDecoder  # PyTorch, which no other deployment of this model needs.

            self.gpu = GpuDecoder.open(int(args["model_instance_device_id"]))

    def execute(self, requests):
        """All images side by side; then every request on canvases of one size, so that they can batch again."""
        files = [blobs(request) for request in requests]
        refusals = [self.admission.refusal(len(blobs)) for blobs in files]
        accepted = [blobs if not refusal else [] for blobs, refusal in zip(files, refusals, strict=True)]
        decoded = self.decode(accepted)
        for image in (image for images in decoded for image in images):
            self.count(image)
        side = self.limits.canvas_for(image.image_rgb for images in decoded for image in images)
        return [
            refuse(refusal) if refusal else respond(images, self.canvas(images, side))
            for images, refusal in zip(decoded, refusals, strict=True)
        ]

    def decode(self, files):
        """Files by request to images by request."""
        if self.gpu:
            images = iter(self.gpu.decode([blob for blobs in files for blob in blobs], self.limits, self.threads))
            return [[next(images) for _ in blobs] for blobs in files]
        pending = [[self.threads.submit(decode, blob, self.limits) for blob in blobs] for blobs in files]
        return [[image.result() for image in images] for images in pending]

    def canvas(self, images, side):
        if self.gpu:
            return pb_utils.Tensor.from_dlpack("CANVAS", self.gpu.stack(images, side))
        return pb_utils.Tensor("CANVAS", stack(images, side))

    def count(self, image):
        self.metrics.add("decoded_images_total", result=RESULTS[image.status])
        if image.status == OK:
            self.metrics.observe("decoded_pixels", image.size[2] * image.size[3])

    def finalize(self):
        self.threads.shutdown()
        self.metrics.close()


def blobs(request):
    return pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()


def refuse(why):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(why, pb_utils.TritonError.UNAVAILABLE))


def respond(images, canvas):
    return pb_utils.InferenceResponse(
        [
            canvas,
            pb_utils.Tensor("SIZE", np.array([image.size for image in images], np.int32)),
            pb_utils.Tensor("DECODED", np.array([[image.status] for image in images], np.int32)),
        ]
    )
