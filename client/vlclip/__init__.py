"""The client of VL-CLIP: embeds product photos and texts in one space.

import vlclip

with vlclip.Client("localhost:8001") as client:
    photos = client.embed_images(["mug.jpg", "lamp.jpg"], ["coffee mug", "desk lamp"])
    texts = client.embed_texts(["a red mug with stripes"])
    similarity = texts.embedding @ photos.embedding.T  # [1, 2], cosine similarities
"""

from vlclip import _grpc_log  # noqa: F401
from vlclip._connection import TLS
from vlclip._retry import Retry, Timeout
from vlclip.aio import AsyncClient
from vlclip.client import Client
from vlclip.errors import (
    AccessError,
    CancelledError,
    ClosedError,
    ContractError,
    DeadlineError,
    ForkError,
    InvalidInputError,
    ItemError,
    OverloadedError,
    PipelineNotFoundError,
    RejectedError,
    RequestError,
    ServerError,
    UnavailableError,
    VlclipError,
)
from vlclip.results import (
    EnrichedTexts,
    Grounding,
    Health,
    ImageEmbeddings,
    Model,
    Status,
    TextEmbeddings,
    WholeImageEmbeddings,
    comparable,
)

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "AccessError",
    "AsyncClient",
    "CancelledError",
    "Client",
    "ClosedError",
    "ContractError",
    "DeadlineError",
    "EnrichedTexts",
    "ForkError",
    "Grounding",
    "Health",
    "ImageEmbeddings",
    "InvalidInputError",
    "ItemError",
    "Model",
    "OverloadedError",
    "PipelineNotFoundError",
    "RejectedError",
    "RequestError",
    "Retry",
    "ServerError",
    "Status",
    "TextEmbeddings",
    "Timeout",
    "UnavailableError",
    "VlclipError",
    "WholeImageEmbeddings",
    "comparable",
]
