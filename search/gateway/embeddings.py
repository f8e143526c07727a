"""``/v1/embeddings`` as OpenAI's and NVIDIA NIM's clients call it, for texts and images alike."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from search.gateway.problems import Problem
from vlclip import Client, Status

MAX_INPUTS = 256


class TextInput(BaseModel):
    """A text."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1)


class ImageInput(BaseModel):
    """An image, and the product type to look for in it. Without a type, the whole image is embedded."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="A data URI, or a URL of an allowed host")
    product_type: str = ""


Input = Annotated[str, Field(min_length=1)] | TextInput | ImageInput


class EmbeddingRequest(BaseModel):
    """A string is a text, or an image if it starts with ``data:image/``."""

    input: Input | Annotated[list[Input], Field(min_length=1, max_length=MAX_INPUTS)]
    model: str = "vlclip"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class Embedding(BaseModel):
    """One embedding: numbers, or FP32 little-endian in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(BaseModel):
    """The embeddings, in the order of the inputs. ``model`` names the version of the models that made them."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: dict[str, int]


def router(client: Client, load_photo: Callable[[str], bytes]) -> APIRouter:
    """The route, for a client of the server and a function that loads an image by its URL."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/embeddings", response_model=EmbeddingList)
    def embeddings(request: EmbeddingRequest) -> Response:
        """Embed texts and images into one space."""
        inputs = request.input if isinstance(request.input, list) else [request.input]
        vectors, version = embed(client, [_typed(one) for one in inputs], load_photo)
        size = vectors.shape[1]
        if request.dimensions not in (None, size):
            raise Problem(400, f"dimensions must be {size}: these embeddings cannot be shortened", param="dimensions")
        encode: Callable[[Any], list[float] | str] = _base64 if request.encoding_format == "base64" else _floats
        data = [{"object": "embedding", "index": n, "embedding": encode(row)} for n, row in enumerate(vectors)]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        # Written here, because FastAPI would check each number again: 32 embeddings would take as long as to embed.
        return Response(
            to_json({"object": "list", "data": data, "model": version, "usage": usage}), media_type="application/json"
        )

    return routes


def _base64(row: Any) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _floats(row: Any) -> list[float]:
    # Nine decimals are written twice as fast as all digits of FP32, and move a vector by 1e-8.
    return list(np.round(row.astype(np.float64), 9).tolist())


def _typed(one: Input) -> TextInput | ImageInput:
    if isinstance(one, str):
        return ImageInput(image=one) if one.startswith("data:image/") else TextInput(text=one)
    return one


def embed(
    client: Client, inputs: list[TextInput | ImageInput], load_photo: Callable[[str], bytes]
) -> tuple[np.ndarray, str]:
    """The embeddings FP32 [N, D] of inputs, and the version of the models. Raises Problem for an image that is none."""
    found: dict[int, np.ndarray] = {}
    versions: set[str] = set()
    texts = [n for n, one in enumerate(inputs) if isinstance(one, TextInput)]
    if texts:
        answers = client.embed_texts([one.text for one in inputs if isinstance(one, TextInput)])
        found.update(zip(texts, answers.embedding, strict=True))
        versions.update(version.partition("-")[0] for version in answers.version)
    images = [n for n, one in enumerate(inputs) if isinstance(one, ImageInput)]
    if images:
        given = [one for one in inputs if isinstance(one, ImageInput)]
        answered = client.embed_images([load_photo(one.image) for one in given], [one.product_type for one in given])
        bad = [n for n, status in zip(images, answered.status, strict=True) if status > Status.WHOLE_IMAGE]
        if bad:
            reason = f"input {bad[0]} is not a JPEG, PNG or WebP image, or it is damaged or too large"
            raise Problem(400, reason, param=f"input.{bad[0]}")
        found.update(zip(images, answered.embedding, strict=True))
        versions.update(version.partition("-")[0] for version in answered.version)
    if len(versions) > 1:
        raise Problem(503, "the server changed its models during the request; send it again", retry=True)
    return np.stack([found[n] for n in range(len(inputs))]), versions.pop()
