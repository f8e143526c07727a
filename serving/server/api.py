"""The few calls that an operator makes to a Triton, over HTTP and with the standard library alone.

Ready is what Triton calls itself as long as it runs; whether its pipelines work shows only when they are asked. Here
they are asked about a small synthetic photo.
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
from enum import Enum
from typing import Any

from serving.triton_metrics import parse_metrics

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What a call may raise: no connection, no HTTP, or not the expected answer."""

ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.1
NOT_A_PRODUCT = 4
"""The status of an empty product. It is asked about because no agent is, which may be slow, or away, or paid for."""
LOAD_SECONDS = 300.0
"""For a model of a gigabyte or two on a busy machine."""
PENDING = "nv_inference_pending_request_count"
FINISHED = ("nv_inference_request_success", "nv_inference_request_failure")


class Kind(Enum):
    """What may be wrong with a pipeline."""

    SILENT = "no answer in time"
    OVERLOADED = "refused, again and again, because too much work is waiting"
    WRONG = "an error, or an answer that cannot be right"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a pipeline; ``str()`` says it in words."""

    pipeline: str
    kind: Kind
    words: str

    def __str__(self) -> str:
        return f"{self.pipeline} {self.words}"


@dataclass
class Queue:
    """Requests that wait in front of a version of a model, and those that it has finished since it was loaded."""

    waiting: int = 0
    finished: int = 0


class Api:
    """Triton's HTTP, each address a host and a port. ``admin_key`` opens model control where it is closed to others."""

    def __init__(self, address: tuple[str, int], metrics: tuple[str, int], admin_key: str = ""):
        self._address = address
        self._metrics_address = metrics
        self._admin = {"admin-key": admin_key} if admin_key else {}

    def check_live(self, timeout: float) -> None:
        """Have Triton say that it is there. Raises one of FAILURES."""
        self._call("GET", "/v2/health/live", timeout=timeout)

    def is_ready(self) -> bool:
        """Whether every model is loaded; False, too, where nothing listens yet."""
        try:
            self._call("GET", "/v2/health/ready", timeout=1.0)
        except FAILURES:
            return False
        return True

    def load(self, model: str, timeout: float = LOAD_SECONDS) -> None:
        """Load a model as its folder has it now, with the pipelines that use it. Raises one of FAILURES.

        What is loaded stays until the new is ready, and a version stays where nothing of it has changed.
        """
        self._call("POST", f"/v2/repository/models/{model}/load", timeout=timeout)

    def reload(self, model: str, timeout: float = LOAD_SECONDS) -> None:
        """Load a model again even though nothing has changed. Raises one of FAILURES."""
        self.unload(model)
        self.load(model, timeout)

    def unload(self, model: str) -> None:
        """Let a model accept nothing more; what it has accepted it still answers. Raises one of FAILURES."""
        self._call("POST", f"/v2/repository/models/{model}/unload")

    def is_unloading(self, models: Container[str]) -> bool:
        """Whether any of these still has something to answer before it is gone. Raises one of FAILURES."""
        return any(model["name"] in models and model.get("state") == "UNLOADING" for model in self._index())

    def find_problem(self, pipelines: Mapping[str, Sequence[str]], timeout: float) -> str | None:
        """Say in words what is wrong with the first pipeline that does not work. An overloaded one does."""
        problems = self.find_problems(pipelines, timeout)
        return next((str(problem) for problem in problems if problem.kind is not Kind.OVERLOADED), None)

    def find_problems(self, pipelines: Mapping[str, Sequence[str]], timeout: float) -> list[Problem]:
        """Ask every pipeline, given by its inputs, about a photo, side by side; wait ``timeout`` seconds at most.

        A pipeline with an input that we do not know is left out.
        """
        known = {name: inputs for name, inputs in pipelines.items() if all(tensor in samples() for tensor in inputs)}
        with ThreadPoolExecutor(max(1, len(known))) as threads:
            found = threads.map(lambda name: self._find_problem(name, known[name], timeout), known)
            return [problem for problem in found if problem]

    def queues(self, timeout: float = 1.0) -> dict[tuple[str, int], Queue]:
        """Of every version of a model that is loaded. Raises one of FAILURES."""
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
            return Problem(pipeline, Kind.SILENT, f"does not answer within {timeout:g} s")
        except FAILURES as error:
            kind = Kind.OVERLOADED if is_refusal(error) else Kind.WRONG
            return Problem(pipeline, kind, f"does not answer: {error}")
        status = answer.get("STATUS", [0])[0]
        if "PRODUCT" in inputs and status != NOT_A_PRODUCT:
            return Problem(pipeline, Kind.WRONG, f"gives an empty product the status {status}")
        if "PRODUCT" not in inputs and status not in (0, 1):
            return Problem(pipeline, Kind.WRONG, f"gives a good photo the status {status}")
        length = math.hypot(*answer.get("EMBEDDING", [1.0]))
        if not abs(length - 1) < 0.01:
            return Problem(pipeline, Kind.WRONG, f"gives an embedding of length {length}")
        return None

    def _infer_patiently(self, model: str, inputs: dict[str, bytes], timeout: float) -> dict[str, list[Any]]:
        """A server that is overloaded has no problem, so it is asked again."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._infer(model, inputs, max(0.01, deadline - time.monotonic()))
            except ValueError as error:
                if not is_refusal(error) or time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _index(self) -> list[dict[str, str]]:
        index: list[dict[str, str]] = self._call("POST", "/v2/repository/index")
        return index

    def _infer(self, model: str, inputs: dict[str, bytes], timeout: float) -> dict[str, list[Any]]:
        # KServe's binary form: the sizes in JSON, the bytes behind it, each with its length in front.
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
    """What is answered. Raises one of FAILURES."""
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
    """Whether a model said that too much work is waiting in front of it."""
    return " 503: " in str(error) and "overloaded: " in str(error)


@functools.cache
def samples() -> dict[str, bytes]:
    """Something to put into each input of a pipeline."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    return {"IMAGE": file.getvalue(), "PRODUCT_TYPE": b"mug", "TEXT": b"a red mug", "PRODUCT": b"{}"}
