"""A LitServe service of the same graphs, with its dynamic batching.

A photo arrives in JSON, in base64, which is LitServe's usual form. The photos of a batch are decoded in parallel and
run through the graphs together. One worker has all cores.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import litserve

from export.in_process import InProcess, quiet_options

BATCH = 32
BATCH_TIMEOUT_SECONDS = 0.005


class Embed(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def __init__(self, repository: Path) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT_SECONDS, api_path="/embed")
        self.repository = repository

    def setup(self, device: str) -> None:
        self.model = InProcess(self.repository, quiet_options())

    def decode_request(self, request: dict[str, str]) -> tuple[bytes, str]:
        return base64.b64decode(request["image"]), request["product_type"]

    def batch(self, inputs: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
        return inputs

    def predict(self, inputs: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
        answer = self.model.embed([image for image, _ in inputs], [product_type for _, product_type in inputs])
        return [{name.lower(): values[i].tolist() for name, values in answer.items()} for i in range(len(inputs))]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


def main(repository: str, port: str) -> None:
    server = litserve.LitServer(Embed(Path(repository)), accelerator="cpu", timeout=False, fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
