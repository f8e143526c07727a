"""The calls that the server and its probes make to Triton, over HTTP and with the standard library alone.

Triton calls itself ready while it runs. Whether its pipelines work shows only when they get a request, so they are
sent a small synthetic photo.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from serving.enrich.product import Outcome
from serving.repository.specs import Status
from serving.server.limits import ANSWER_SECONDS, LOAD_SECONDS
from serving.triton_metrics import parse_metrics

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What a call can raise: there is no connection, no HTTP, or not the expected answer."""

RETRY_SECONDS = 0.1
PENDING = "nv_inference_pending_request_count"
FINISHED = ("nv_inference_request_success", "nv_inference_request_failure")
REFUSALS = ("overloaded: ", "Exceeds maximum queue size")
"""The words of admission on the embedded server, and of Triton's full queues in NVIDIA's container."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a pipeline, in words. An overloaded one works, but refuses requests until the time-out."""

    words: str
    is_overload: bool = False


@dataclass
class Queue:
    """How many requests wait for a version of a model, and how many it has finished since it was loaded."""

    waiting: int = 0
    finished: int = 0


class Api:
    """Triton's HTTP. Each address is a host and a port. Model control needs the ``admin_key`` if it is closed."""

    def __init__(self, address: tuple[str, int], metrics: tuple[str, int], admin_key: str = ""):
        self._address = address
        self._metrics_address = metrics
        self._admin = {"admin-key": admin_key} if admin_key else {}

    def check_live(self, timeout: float) -> None:
        """Raise one of FAILURES if Triton does not answer."""
        self._call("GET", "/v2/health/live", timeout=timeout)

    def is_ready(self) -> bool:
        """Whether every model is loaded. False if nothing listens yet."""
        try:
            self._call("GET", "/v2/health/ready", timeout=1.0)
        except FAILURES:
            return False
        return True

    def load(self, model: str, timeout: float = LOAD_SECONDS) -> None:
        """Load a model from its folder, with the pipelines that use it. Raises one of FAILURES.

        The loaded model serves until the new one is ready. A version whose files have not changed is not loaded again.
        """
        self._call("POST", f"/v2/repository/models/{model}/load", timeout=timeout)

    def reload(self, model: str, timeout: float = LOAD_SECONDS) -> None:
        """Load a model again even if nothing has changed. Raises one of FAILURES."""
        self.unload(model)
        self.load(model, timeout)

    def unload(self, model: str) -> None:
        """Let a model accept no more requests. It still answers those it has accepted. Raises one of FAILURES."""
        self._call("POST", f"/v2/repository/models/{model}/unload")

    def is_unloading(self, models: Container[str]) -> bool:
        """Whether any of these models is unloading and still has requests. Raises one of FAILURES."""
        index = self._call("POST", "/v2/repository/index")
        return any(model["name"] in models and model.get("state") == "UNLOADING" for model in index)

    def find_problem(self, pipelines: Mapping[str, Sequence[str]], timeout: float) -> str | None:
        """What is wrong with the first pipeline that does not work, in words. An overloaded pipeline works."""
        problems = self.find_problems(pipelines, timeout)
        return next((problem.words for problem in problems if not problem.is_overload), None)

    def find_problems(self, pipelines: Mapping[str, Sequence[str]], timeout: float) -> list[Problem]:
        """Send a photo to all pipelines at the same time, and wait at most ``timeout`` seconds.

        ``pipelines`` maps each name to the names of its inputs. A pipeline with an unknown input is skipped.
        """
        known = {name: inputs for name, inputs in pipelines.items() if all(tensor in samples() for tensor in inputs)}
        with ThreadPoolExecutor(max(1, len(known))) as threads:
            found = threads.map(lambda name: self._find_problem(name, known[name], timeout), known)
            return [problem for problem in found if problem]

    def queues(self, timeout: float = 1.0) -> dict[tuple[str, int], Queue]:
        """The queue of every loaded version of every model. Raises one of FAILURES."""
        found: dict[tuple[str, int], Queue] = defaultdict(Queue)
        metrics = request(self._metrics_address, "GET", "/metrics", timeout=timeout).decode()
        for sample in parse_metrics(metrics, PENDING, *FINISHED):
            queue = found[sample.labels["model"], int(sample.labels["version"])]
            if sample.name == PENDING:
                queue.waiting += int(sample.value)
            else:
                queue.finished += int(sample.value)
        return dict(found)

    def _find_problem(self, pipeline: str, inputs: Sequence[str], timeout: float) -> Problem | None:
        try:
            answer = self._infer_patiently(pipeline, {tensor: samples()[tensor] for tensor in inputs}, timeout)
        except TimeoutError:
            return Problem(f"{pipeline} does not answer within {timeout:g} s")
        except FAILURES as error:
            return Problem(f"{pipeline} does not answer: {error}", is_refusal(error))
        expected = {Outcome.NOT_A_PRODUCT} if "PRODUCT" in inputs else {Status.GROUNDED, Status.WHOLE_IMAGE}
        if not expected.issuperset(answer.get("STATUS", [])):
            return Problem(f"{pipeline} answers with status {answer['STATUS'][0]}, which is incorrect")
        length = math.hypot(*answer.get("EMBEDDING", [1.0]))
        if not abs(length - 1) < 0.01:
            return Problem(f"{pipeline} answers with an embedding of length {length:g}, expected 1")
        return None

    def _infer_patiently(self, model: str, inputs: dict[str, bytes], timeout: float) -> dict[str, list[Any]]:
        """Retry while the server is overloaded, because then the pipeline has no problem."""
        deadline, refusal = time.monotonic() + timeout, None
        while True:
            try:
                return self._infer(model, inputs, max(0.01, deadline - time.monotonic()))
            except TimeoutError as error:
                raise refusal or error from None
            except ValueError as error:
                if not is_refusal(error) or time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                refusal = error
                time.sleep(RETRY_SECONDS)

    def _infer(self, model: str, inputs: dict[str, bytes], timeout: float) -> dict[str, list[Any]]:
        # KServe's binary form: JSON with the sizes, followed by the bytes, each preceded by its length.
        tensors = [len(data).to_bytes(4, "little") + data for data in inputs.values()]
        described = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensor)}}
            for name, tensor in zip(inputs, tensors, strict=True)
        ]
        header = json.dumps({"inputs": described}).encode()
        answer = self._call(
            "POST",
            f"/v2/models/{model}/infer",
            header + b"".join(tensors),
            {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
            timeout,
        )
        return {output["name"]: output["data"] for output in answer["outputs"]}

    def _call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> Any:
        content = request(self._address, method, path, body, {**self._admin, **(headers or {})}, timeout)
        return json.loads(content) if content else None


def request(
    address: tuple[str, int],
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout: float = ANSWER_SECONDS,
) -> bytes:
    """The body of the answer. Raises one of FAILURES."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"{path} answers {response.status}: {content.decode(errors='replace')}")
    return content


def is_refusal(error: Exception) -> bool:
    """Whether a model refused a request because too much work is waiting for it."""
    return " 503: " in str(error) and any(words in str(error) for words in REFUSALS)


@functools.cache
def samples() -> dict[str, bytes]:
    """A value for each input that a pipeline can have. The product is empty, because then no agent is called."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    return {"IMAGE": file.getvalue(), "PRODUCT_TYPE": b"mug", "TEXT": b"a red mug", "PRODUCT": b"{}"}
