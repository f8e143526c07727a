"""Like search.py with asyncio: photos of any number are read while they are sent, and texts are embedded meanwhile."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from vlclip import AsyncClient, UnavailableError

HERE = Path(__file__).parent
PHOTOS = {"mug.jpg": "mug", "lamp.jpg": "desk lamp", "bag.jpg": "backpack"}


async def photos() -> AsyncIterator[bytes]:
    """The photos could come from object storage or a queue."""
    for name in PHOTOS:
        yield await asyncio.to_thread((HERE / name).read_bytes)


async def embedded(client: AsyncClient) -> np.ndarray:
    """The embeddings of all photos, [N, D]. Each part of the stream is one batch."""
    return np.concatenate([part.embedding async for part in client.stream.embed_images(photos(), [*PHOTOS.values()])])


async def main(texts: list[str]) -> None:
    async with AsyncClient(os.environ.get("VLCLIP_ADDRESS", "localhost:8001"), timeout=10) as client:
        found, asked = await asyncio.gather(embedded(client), client.embed_texts(texts))
    for text, row in zip(texts, asked.embedding @ found.T, strict=True):
        print(f"{text}: {list(PHOTOS)[row.argmax()]} ({row.max():.2f})")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:] or ["a red mug", "a blue lamp", "a backpack"]))
    except UnavailableError as error:
        sys.exit(str(error))
