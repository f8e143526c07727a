"""The service that people write first: FastAPI and ONNX Runtime, one endpoint, one photo a request, no batching.

It is not slow on purpose. The body of a request is the photo itself. The endpoint runs in FastAPI's thread pool, where
decoding and the graphs release Python's lock, and uvicorn uses its fast event loop and parser. ONNX Runtime has its
default options.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import onnxruntime as ort
import uvicorn
from fastapi import Body, FastAPI, Query

from export.in_process import InProcess


def make_app(repository: Path) -> FastAPI:
    model = InProcess(repository, ort.SessionOptions())
    app = FastAPI()

    @app.post("/embed")
    def embed(
        image: Annotated[bytes, Body(media_type="application/octet-stream")], product_type: Annotated[str, Query()]
    ) -> dict[str, Any]:
        answer = model.embed([image], [product_type])
        return {name.lower(): values[0].tolist() for name, values in answer.items()}

    return app


def main(repository: str, port: str) -> None:
    uvicorn.run(make_app(Path(repository)), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
