"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded costs its own row only.

With `parameters { key: "decoder" value: { string_value: "nvimgcodec" } }` a GPU decodes what it can: see `gpu`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from images import Limits, decode, stack


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        texts = {name: value["string_value"] for name, value in parameters.items()}
        self.limits = Limits.parse(texts)
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self.gpu = None
        if texts.get("decoder") == "nvimgcodec":
            from gpu import GpuDecoder  # PyTorch, which no other deployment of this model needs.

            self.gpu = GpuDecoder.open(int(args["model_instance_device_id"]))

    def execute(self, requests):
        """All images side by side; then every request on canvases of one size, so that they can batch again."""
        decoded = self.decode([blobs(request) for request in requests])
        side = self.limits.canvas_for(image.image_rgb for images in decoded for image in images)
        return [respond(images, self.canvas(images, side)) for images in decoded]

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

    def finalize(self):
        self.threads.shutdown()


def blobs(request):
    return pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()


def respond(images, canvas):
    return pb_utils.InferenceResponse(
        [
            canvas,
            pb_utils.Tensor("SIZE", np.array([image.size for image in images], np.int32)),
            pb_utils.Tensor("DECODED", np.array([[image.status] for image in images], np.int32)),
        ]
    )
