"""Embeds three photos and prints the best for each text: python examples/search.py "a red mug" "a blue bag"."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vlclip import Client, Status, UnavailableError

HERE = Path(__file__).parent
PHOTOS = {"mug.jpg": "mug", "lamp.jpg": "desk lamp", "bag.jpg": "backpack"}
"""Each photo, and the product to find in it."""


def main(texts: list[str]) -> None:
    with Client(os.environ.get("VLCLIP_ADDRESS", "localhost:8001")) as client:
        photos = client.embed_images([HERE / name for name in PHOTOS], list(PHOTOS.values()))
        for name, status, box in zip(PHOTOS, photos.status, photos.box_xyxy, strict=True):
            print(f"{name}: {Status(status).name.lower()}, box {box.round().astype(int).tolist()}")

        # Embeddings have unit length, so their dot products are cosine similarities.
        similarity = client.embed_texts(texts).embedding @ photos.embedding.T  # [texts, photos]
        for text, row in zip(texts, similarity, strict=True):
            best = row.argmax()
            print(f"{text}: {list(PHOTOS)[best]} ({row[best]:.2f})")


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or ["a red mug", "a blue lamp", "a backpack"])
    except UnavailableError as error:
        sys.exit(str(error))
