"""Zero-shot attributes: which of the values that a shop names, such as striped or plain, a product shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.index import IMAGE, Index, Point
from vlclip import Client

SCALE = 100.0
"""CLIP's scale of cosines before the softmax. `fit_scale` finds the one that makes confidences true."""


@dataclass(frozen=True)
class Guess:
    """The most likely value of an attribute of a product, and its confidence of 0 to 1."""

    product: str
    value: str
    confidence: float


def guess(
    index: Index,
    client: Client,
    product_type: str,
    values: Sequence[str],
    *,
    scale: float = SCALE,
    batch: int = 1000,
) -> Iterator[Guess]:
    """The most likely of ``values`` for every product of a type, from all of its photos."""
    if len(values) < 2:
        raise ValueError("an attribute needs at least two values to choose from")
    texts = client.embed_texts([f"a {value} {product_type}" for value in values]).embedding
    pending: dict[str, list[Point]] = {}
    for point in index.points({"product_type": product_type}, vectors=(IMAGE,)):
        pending.setdefault(point.payload["product"], []).append(point)
    for product, points in pending.items():
        cosines = np.mean([point.vectors[IMAGE] for point in points], 0) @ texts.T
        chances = _softmax(cosines * scale)
        best = int(chances.argmax())
        yield Guess(product, values[best], float(chances[best]))


def fit_scale(cosines: np.ndarray, truth: np.ndarray) -> float:
    """The scale that makes confidences true, from products whose value is known (temperature scaling).

    ``cosines``: FP32 [N, values]; ``truth``: INT [N], the index of the true value. It minimises the log loss.
    """
    scales = np.geomspace(1, 300, 120)
    losses = [-np.log(_softmax(cosines * scale)[np.arange(len(truth)), truth] + 1e-12).mean() for scale in scales]
    return float(scales[int(np.argmin(losses))])


def known(points: Sequence[Point], name: str, values: Sequence[str]) -> Mapping[str, int]:
    """The index of the true value of each product whose attribute ``name`` is one of ``values``."""
    found = {point.payload["product"]: point.payload["attributes"].get(name) for point in points}
    return {product: values.index(value) for product, value in found.items() if value in values}


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    raised /= raised.sum(-1, keepdims=True)
    return raised
