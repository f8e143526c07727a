"""The two clients of a load test: the client of this project and plain tritonclient, with the same requests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from benchmarks.engine import Answer
from benchmarks.runs import GROUNDED
from benchmarks.traffic import Ask
from serving.repository.specs import PIPELINES
from vlclip import Client, RequestError, Status, Timeout, VlclipError

Statuses = np.ndarray[Any, np.dtype[np.int32]]


class Callers:
    """Both clients, each with one connection to ``url``. Neither retries, so that every answer is recorded.

    A request without an answer ``deadline`` seconds after it was sent ends as DEADLINE_EXCEEDED.
    """

    def __init__(self, url: str, deadline: float) -> None:
        self._deadline = deadline
        self._vlclip = Client(url, timeout=Timeout(request=deadline, connect=deadline), retry=None)
        self._triton = triton.InferenceServerClient(url)

    def send(self, ask: Ask) -> Answer:
        """Send a request and wait for its answer. Errors of the server and of the connection are answers too."""
        try:
            status = self._by_vlclip(ask) if ask.client == "vlclip" else self._by_tritonclient(ask)
        except (VlclipError, InferenceServerException, ValueError) as error:
            return Answer(name_of(error), error=error)
        if status is None or ask.pipeline == "enriched_text":
            return Answer()
        fallbacks = int((status == Status.WHOLE_IMAGE).sum()) if ask.pipeline in GROUNDED else 0
        return Answer(fallbacks=fallbacks, refused=int((status > Status.WHOLE_IMAGE).sum()))

    def close(self) -> None:
        self._vlclip.close()
        self._triton.close()

    def _by_vlclip(self, ask: Ask) -> Statuses | None:
        """The status of each item, or None if the pipeline has none."""
        client = self._vlclip
        if ask.pipeline == "product_text":
            client.embed_texts(ask.texts)
            return None
        if ask.pipeline == "product_image":
            return client.embed_images(ask.images, ask.texts).status
        if ask.pipeline == "whole_image":
            return client.embed_whole_images(ask.images).status
        if ask.pipeline == "ground":
            return client.ground(ask.images, ask.texts).status
        return client.enrich(map(json.loads, ask.texts), [image or None for image in ask.images]).status

    def _by_tritonclient(self, ask: Ask) -> Statuses | None:
        spec = PIPELINES[ask.pipeline]
        outputs = [tensor.name for tensor in spec.outputs]
        tensors = []
        for tensor in spec.inputs:
            column = ask.images if tensor.name == "IMAGE" else [text.encode() for text in ask.texts]
            data = np.array(column, object)[:, None]
            tensors.append(triton.InferInput(tensor.name, data.shape, "BYTES"))
            tensors[-1].set_data_from_numpy(data)
        answer = self._triton.infer(
            ask.pipeline,
            tensors,
            outputs=[triton.InferRequestedOutput(name) for name in outputs],
            client_timeout=self._deadline,
            timeout=max(1, round(1e6 * self._deadline)),
        )
        arrays = {name: answer.as_numpy(name) for name in outputs}
        wrong = [name for name, array in arrays.items() if array is None or len(array) != ask.items]
        if wrong:
            raise ValueError(f"{ask.pipeline}: expected {ask.items} rows of {', '.join(wrong)}")
        status = arrays.get("STATUS")
        return None if status is None else status[:, 0]


def name_of(error: Exception) -> str:
    """The name of the gRPC status of an error. UNKNOWN if an answer had the wrong form."""
    if isinstance(error, RequestError) and error.code:
        return str(error.code.name)
    if isinstance(error, InferenceServerException) and error.status():
        return str(error.status()).removeprefix("StatusCode.")
    return "UNKNOWN"
