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
from collections.abc import Container
from typing import Any

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What a call may raise: no connection, no HTTP, or not the expected answer."""

ANSWER_SECONDS = 10.0
NOT_A_PRODUCT = 4
"""The status of an empty product. It is asked about because no agent is, which may be slow, or away, or paid for."""
LOAD_SECONDS = 300.0
"""For a model of a gigabyte or two on a busy machine."""


class Api:
    """Triton's HTTP endpoint. ``admin_key`` opens model control where it is closed to others."""

    def __init__(self, host: str, port: int, admin_key: str):
        self._address = host, port
        self._admin = {"admin-key": admin_key}

    def is_ready(self) -> bool:
        """Whether every model is loaded; False, too, where nothing listens yet."""
        try:
            self._call("GET", "/v2/health/ready", timeout=1.0)
        except FAILURES:
            return False
        return True

    def load(self, model: str) -> None:
        """Load a model as its folder has it now, with the pipelines that use it. Raises one of FAILURES.

        What is loaded stays until the new is ready, and a version stays where nothing of it has changed.
        """
        self._call("POST", f"/v2/repository/models/{model}/load", timeout=LOAD_SECONDS)

    def reload(self, model: str) -> None:
        """Load a model again even though nothing has changed. Raises one of FAILURES."""
        self.unload(model)
        self.load(model)

    def unload(self, model: str) -> None:
        """Let a model accept nothing more; what it has accepted it still answers. Raises one of FAILURES."""
        self._call("POST", f"/v2/repository/models/{model}/unload")

    def is_unloading(self, models: Container[str]) -> bool:
        """Whether any of these still has something to answer before it is gone. Raises one of FAILURES."""
        return any(model["name"] in models and model.get("state") == "UNLOADING" for model in self._index())

    def find_problem(self, pipelines: dict[str, list[str]]) -> str | None:
        """Ask every pipeline that takes inputs we know; say in words what is wrong with the first wrong answer."""
        for name, inputs in pipelines.items():
            if not all(tensor in samples() for tensor in inputs):
                continue
            try:
                answer = self._infer_patiently(name, {tensor: samples()[tensor] for tensor in inputs})
            except FAILURES as error:
                return f"{name} does not answer: {error}"
            status = answer.get("STATUS", [0])[0]
            if "PRODUCT" in inputs and status != NOT_A_PRODUCT:
                return f"{name} gives an empty product the status {status}"
            if "PRODUCT" not in inputs and status not in (0, 1):
                return f"{name} gives a good photo the status {status}"
            length = math.hypot(*answer.get("EMBEDDING", [1.0]))
            if not abs(length - 1) < 0.01:
                return f"{name} gives an embedding of length {length}"
        return None

    def _index(self) -> list[dict[str, str]]:
        index: list[dict[str, str]] = self._call("POST", "/v2/repository/index")
        return index

    def _infer_patiently(self, model: str, inputs: dict[str, bytes]) -> dict[str, list[Any]]:
        """A server that is overloaded has no problem, so it is asked again."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self._infer(model, inputs)
            except ValueError as error:
                if " 503: " not in str(error) or "overloaded: " not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _infer(self, model: str, inputs: dict[str, bytes]) -> dict[str, list[Any]]:
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
        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        try:
            connection.request(method, path, body, {**self._admin, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{path} answers {response.status}: {content.decode(errors='replace')}")
        return json.loads(content) if content else None


@functools.cache
def samples() -> dict[str, bytes]:
    """Something to put into each input of a pipeline."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    return {"IMAGE": file.getvalue(), "PRODUCT_TYPE": b"mug", "TEXT": b"a red mug", "PRODUCT": b"{}"}
