"""A web service in front of the server, with FastAPI.

pip install fastapi uvicorn
uvicorn --app-dir examples --port 8080 service:app
curl --data-binary @examples/mug.jpg 'localhost:8080/images?type=mug'
curl 'localhost:8080/texts?text=a+red+mug'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from vlclip import AsyncClient, DeadlineError, OverloadedError, RequestError, Status, UnavailableError

MAX_BYTES = 32 << 20


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests: it has one connection, and Triton batches what arrives at the same time."""
    async with AsyncClient(os.environ.get("VLCLIP_ADDRESS", "localhost:8001"), timeout=5) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(RequestError)
async def failed(request: Request, error: RequestError) -> JSONResponse:
    again = isinstance(error, UnavailableError | OverloadedError | DeadlineError)
    return JSONResponse({"detail": str(error)}, 503 if again else 502, {"Retry-After": "1"} if again else {})


@app.post("/images")
async def embed_image(request: Request, type: str) -> dict[str, Any]:
    if int(request.headers.get("content-length", MAX_BYTES + 1)) > MAX_BYTES:
        raise HTTPException(413, f"expected a Content-Length of at most {MAX_BYTES} bytes")
    found = await request.app.state.client.embed_images(await request.body(), type)
    status = Status(found.status[0])
    if status >= Status.NOT_AN_IMAGE:
        raise HTTPException(422, status.name.lower())
    values = {"box_xyxy": found.box_xyxy[0].tolist(), "score": float(found.score[0])}
    return {"status": status.name.lower(), **values, "embedding": found.embedding[0].tolist()}


@app.get("/texts")
async def embed_text(request: Request, text: str) -> dict[str, list[float]]:
    return {"embedding": (await request.app.state.client.embed_texts(text)).embedding[0].tolist()}
