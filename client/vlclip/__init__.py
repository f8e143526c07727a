"""The client of VL-CLIP: product photos and texts in, embeddings of one space out.

import vlclip

with vlclip.Client("localhost:8001") as client:
    photos = client.embed_images(["mug.jpg", "lamp.jpg"], ["coffee mug", "desk lamp"])
    texts = client.embed_texts(["a red mug with stripes"])
    similarity = texts.embedding @ photos.embedding.T  # [1, 2], cosines
"""

from vlclip.client import Client
from vlclip.errors import (
    AccessError,
    CancelledError,
    ClosedError,
    ContractError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    PipelineNotFoundError,
    RejectedError,
    RequestError,
    ServerError,
    UnavailableError,
    VlclipError,
)
from vlclip.results import Grounding, ImageEmbeddings, Status, TextEmbeddings, WholeImageEmbeddings

__all__ = [
    "AccessError",
    "CancelledError",
    "Client",
    "ClosedError",
    "ContractError",
    "DeadlineError",
    "Grounding",
    "ImageEmbeddings",
    "InvalidInputError",
    "OverloadedError",
    "PipelineNotFoundError",
    "RejectedError",
    "RequestError",
    "ServerError",
    "Status",
    "TextEmbeddings",
    "UnavailableError",
    "VlclipError",
    "WholeImageEmbeddings",
]
