"""A server of models that embeds words: a photo is a file of words, and shows what a text of the same words says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from vlclip import Client, Health, ImageEmbeddings, Model, Status, TextEmbeddings, WholeImageEmbeddings
from vlclip.results import EnrichedTexts, Grounding

D = 64


class Models:
    """What a shop asks of its client. ``version`` is that of the models: the words of each have other directions.

    ``before`` is called before each answer, with the name of the pipeline. ``calls`` counts the embedded photos.
    """

    def __init__(self, version: int = 1, before: Callable[[str], None] = lambda pipeline: None) -> None:
        self.version, self.before, self.calls = version, before, 0

    def vector(self, text: str, version: int) -> Any:
        found = np.zeros(D, np.float32)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.sha256(f"{version}/{word}".encode()).digest()[:8], "big")
            found += np.random.default_rng(seed).normal(size=D).astype(np.float32)
        return found / max(float(np.linalg.norm(found)), 1e-6)

    def names(self, version: int, count: int = 1) -> Any:
        return np.array([f"{version:08x}-1-1-1"] * count, object)

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        version = self.version
        self.before("product_text")
        vectors = np.stack([self.vector(text, version) for text in texts])
        return TextEmbeddings(vectors, np.zeros(len(texts), bool), self.names(version, len(texts)))

    def embed_images(self, photos: Sequence[bytes], product_type: str | Sequence[str]) -> ImageEmbeddings:
        version = self.version
        self.before("product_image")
        self.calls += len(photos)
        n = len(photos)
        vectors = np.stack([self.vector(photo.decode("utf-8", "replace"), version) for photo in photos])
        box = np.tile(np.array([0, 0, 10, 10], np.float32), (n, 1))
        status = np.full(n, Status.GROUNDED, np.int32)
        return ImageEmbeddings(
            vectors, box, np.full(n, 0.9, np.float32), status, np.zeros(n, bool), self.names(version, n)
        )

    def embed_whole_images(self, photos: Sequence[bytes]) -> WholeImageEmbeddings:
        found = self.embed_images(photos, "")
        return WholeImageEmbeddings(found.embedding, found.status, found.version)

    def ground(self, photos: Sequence[bytes], product_type: Sequence[str]) -> Grounding:
        found = self.embed_images(photos, product_type)
        score = np.array([kind.encode() in photo for photo, kind in zip(photos, product_type, strict=True)], np.float32)
        return Grounding(found.box_xyxy, score, found.status, found.truncated, found.version)

    def enrich(self, products: Sequence[dict[str, Any]]) -> EnrichedTexts:
        texts = [str(product["title"]) for product in products]
        found = self.embed_texts(texts)
        zeros: Any = np.zeros(len(texts), np.int32)
        prompts: Any = np.array([""] * len(texts), object)
        return EnrichedTexts(
            np.array(texts, object), found.embedding, zeros, zeros, prompts, found.truncated, found.version
        )

    def models(self) -> tuple[Model, ...]:
        return (Model("product_image", True, str(self.names(self.version)[0]), f"version {self.version}"),)

    def health(self) -> Health:
        return Health(True, True)

    @property
    def client(self) -> Client:
        """These models, in the place of a client."""
        return cast("Client", self)
