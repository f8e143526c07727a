"""Counts what grounding found, where no other model of a pipeline can count; returns CROPPED as STATUS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import triton_python_backend_utils as pb_utils

from serving.leaf import array_of
from serving.observe.grounding import GroundingCounter


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        self.counter = GroundingCounter()

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        cropped = array_of(request, "CROPPED")
        self.counter.count(array_of(request, "SCORE"), cropped)
        return pb_utils.InferenceResponse([pb_utils.Tensor("STATUS", cropped)])

    def finalize(self) -> None:
        self.counter.close()
