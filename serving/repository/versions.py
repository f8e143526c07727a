"""What ``VERSION`` says: which models made a row, in four digests.

    1a2b3c4d-5e6f7081-2b3c4d5e-6f708192    a row of product_image
    1a2b3c4d-5e6f7081-00000000-00000000    of whole_image: no detector took part
    1a2b3c4d-0719c2d4-00000000-00000000    of product_text: the tokenizer in place of the preprocessing of images

Each digest is of one part, so two versions show what differs. Embeddings can be compared if the first digest, of the
encoder, is the same. ``export.digests`` computes the digests from the weights, and the graphs give them as constants.
This module needs only the standard library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

NOTHING = "00000000"
"""In place of the digest of a part that did not take part."""

PARTS = ("encoder", "preprocessing", "tokenizer", "detector", "prompts")
"""The parts of an export: the weights of both towers; how an image becomes ``PIXELS``; how a text becomes ``TOKENS``;
the detector with its input size and threshold; the prompt encoder with its tokenizer."""

MADE_BY: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "product_image": ("encoder", "preprocessing", "detector", "prompts"),
    "whole_image": ("encoder", "preprocessing", None, None),
    "ground": (None, None, "detector", "prompts"),
    "product_text": ("encoder", "tokenizer", None, None),
    "enriched_text": ("encoder", "tokenizer", None, None),
}
"""The parts that make a row of each pipeline, in the order of the digests."""

GIVEN_BY: dict[str, dict[str, str]] = {
    "crop": {"VERSION": "ground"},
    "encode_image": {"VERSION": "product_image", "WHOLE_VERSION": "whole_image"},
    "encode_text": {"VERSION": "product_text"},
}
"""The graphs with a version: each output, and the pipeline whose rows it is for."""


EXPORTED = "exported detector"
"""In the digests of calibrated models: the digest of the detector with the threshold of its export."""


def digest(*values: Any) -> str:
    """Eight hexadecimal digits for values that JSON can represent: 31 bits, so that they are an INT32 above zero."""
    content = json.dumps(values, sort_keys=True, default=str).encode()
    number = int.from_bytes(hashlib.sha256(content).digest()[:4], "big") & 0x7FFFFFFF
    return f"{max(number, 1):08x}"


def recalibrated(parts: Mapping[str, str], threshold: float) -> dict[str, str]:
    """The digests of the same models with another threshold.

    They depend on the export and on the threshold, not on other thresholds in between. An export with this threshold
    has another digest of the detector, because the weights are not read here.
    """
    exported = parts.get(EXPORTED, parts["detector"])
    return {**parts, "detector": digest(exported, threshold), EXPORTED: exported}


def version_of(pipeline: str, parts: Mapping[str, str]) -> str:
    """The version of a pipeline's rows, as text.

    Args:
        parts: eight hexadecimal digits for each of ``PARTS``.
    """
    return "-".join(parts[part] if part else NOTHING for part in MADE_BY[pipeline])


def words_of(version: str) -> tuple[int, ...]:
    """A version as in the tensor ``VERSION``: four numbers."""
    return tuple(int(digest, 16) for digest in version.split("-"))


def given_by(leaf: str, parts: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The numbers of each output of a leaf that names a version."""
    return {name: words_of(version_of(pipeline, parts)) for name, pipeline in GIVEN_BY.get(leaf, {}).items()}
