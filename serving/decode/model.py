"""IMAGE, an encoded file, to CANVAS, SIZE and DECODED. A file that cannot be decoded affects its own row only.

With the parameter ``decoder`` set to ``nvimgcodec``, a GPU decodes the files that it can: see ``gpu``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.cuda import end_if_lost, probe_of
from serving.decode.images import OK, Decoded, Limits, decode, stack
from serving.leaf import column_of, input_of, parameters_of
from serving.metrics import Kind, Metrics
from serving.repository.specs import Status

RESULTS = {OK: "decoded", Status.NOT_AN_IMAGE: "not_an_image", Status.TOO_LARGE: "too_large"}
FAMILIES: dict[str, tuple[Kind, str]] = {
    "decoded_images_total": ("counter", "Files that were to be decoded, by result"),
    "decoded_pixels": ("histogram", "Pixels of a decoded image, before it was shrunk"),
}
BUCKETS = {"decoded_pixels": [2.0**n for n in range(14, 28, 2)]}


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        parameters = parameters_of(args)
        self.limits = Limits.parse(parameters)
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS)
        for result in RESULTS.values():
            self.metrics.add("decoded_images_total", 0, result=result)
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self.gpu, self.probe = None, None
        if parameters.get("decoder") == "nvimgcodec":
            from serving.decode.gpu import GpuDecoder  # imports PyTorch, which nothing else here needs

            device = int(args["model_instance_device_id"])
            self.gpu, self.probe = GpuDecoder.open(device), probe_of(device)

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Decode the files of all requests in parallel. All canvases get one size, so that the next model can batch."""
        try:
            return self.answer(requests)
        except Exception as error:
            end_if_lost(self.probe, error)
            raise

    def answer(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        decoded = self.decode([column_of(input_of(request, "IMAGE")) for request in requests])
        for image in (image for images in decoded for image in images):
            self.count(image)
        side = self.limits.canvas_for(image.size for images in decoded for image in images)
        return [respond(images, self.canvas(images, side)) for images in decoded]

    def decode(self, files: Sequence[Sequence[bytes]]) -> list[list[Decoded]]:
        """The images of each request."""
        if self.gpu:
            images = iter(self.gpu.decode([blob for blobs in files for blob in blobs], self.limits, self.threads))
            return [[next(images) for _ in blobs] for blobs in files]
        pending = [[self.threads.submit(decode, blob, self.limits) for blob in blobs] for blobs in files]
        return [[image.result() for image in images] for images in pending]

    def canvas(self, images: Sequence[Decoded], side: int) -> pb_utils.Tensor:
        if self.gpu:
            return pb_utils.Tensor.from_dlpack("CANVAS", self.gpu.stack(images, side))
        return pb_utils.Tensor("CANVAS", stack(images, side))

    def count(self, image: Decoded) -> None:
        self.metrics.add("decoded_images_total", result=RESULTS[image.status])
        if image.status == OK:
            self.metrics.observe("decoded_pixels", image.size[2] * image.size[3])

    def finalize(self) -> None:
        self.threads.shutdown()
        self.metrics.close()


def respond(images: Sequence[Decoded], canvas: pb_utils.Tensor) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(
        [
            canvas,
            pb_utils.Tensor("SIZE", np.array([image.size for image in images], np.int32)),
            pb_utils.Tensor("DECODED", np.array([[image.status] for image in images], np.int32)),
        ]
    )
