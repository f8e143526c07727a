"""The tensors between the leaves: one name, dtype and shape each, declared here and nowhere else.

Graphs are exported from these specs. ``python -m serving check`` compares the ``config.pbtxt`` files with them.

Symbols in shapes:

==  ==================================================================================
S   side of the square canvas in pixels, one of ``CANVASES``
R   side of the encoder's input in pixels
T   length of a tokenized text, fixed by the tokenizer file
L   length of an encoded prompt (1 for YOLO-World, a padded token count for Grounding DINO)
C   width of an encoded prompt
D   width of an embedding
==  ==================================================================================

Every tensor has the batch as its first dimension, which is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

CANVASES = (448, 768)
"""Sides of the canvas: ``decode`` takes the smallest that holds the images of a batch, and shrinks larger images."""


class Status(IntEnum):
    """The result for one image: the values of ``STATUS`` in all pipelines that take images."""

    GROUNDED = 0
    WHOLE_IMAGE = 1
    NOT_AN_IMAGE = 2
    TOO_LARGE = 3


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor: ``dtype`` as Triton spells it, ``shape`` of numbers and symbols, without the batch."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ModelSpec:
    """Inputs and outputs of a leaf or a pipeline, in the order in which its graph takes them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


IMAGE = TensorSpec("IMAGE", "BYTES", (1,))
PRODUCT_TYPE = TensorSpec("PRODUCT_TYPE", "BYTES", (1,))
TEXT = TensorSpec("TEXT", "BYTES", (1,))
PRODUCT = TensorSpec("PRODUCT", "BYTES", (1,))
ROUNDS = TensorSpec("ROUNDS", "INT32", (1,))
"""How many drafts of the agent were judged."""
PROMPTS = TensorSpec("PROMPTS", "BYTES", (1,))
"""The version of the agent's prompts; empty for a text that was composed without the agent."""

TRUNCATED = TensorSpec("TRUNCATED", "BOOL", (1,))
"""Whether the text of a row is longer than what is read of it."""
AFTER = TensorSpec("AFTER", "BOOL", (1,))
"""``TRUNCATED`` as an input of ``decode``, which waits for it and does not read it."""
ENRICHED = TensorSpec("ENRICHED", "INT32", (1,))
"""The ``STATUS`` of ``enrich`` as an input of ``tokenize``, which then asks for no admission."""

CANVAS = TensorSpec("CANVAS", "UINT8", ("S", "S", 3))
SIZE = TensorSpec("SIZE", "INT32", (4,))
"""Height and width on the canvas, height and width of the original; zeros where nothing was decoded."""
DECODED = TensorSpec("DECODED", "INT32", (1,))
"""0 where the image was decoded, else a ``Status``."""

TOKENS = TensorSpec("TOKENS", "INT64", ("T",))
PROMPT = TensorSpec("PROMPT", "FP32", ("L", "C"))
PROMPT_MASK = TensorSpec("PROMPT_MASK", "INT32", ("L",))
"""1 where ``PROMPT`` holds a word; zeros for an empty prompt, which finds nothing."""

CANVAS_BOX = TensorSpec("CANVAS_BOX", "FP32", (4,))
"""The most confident box, x0 y0 x1 y1 in pixels of the canvas."""
SCORE = TensorSpec("SCORE", "FP32", (1,))
BOX = TensorSpec("BOX", "FP32", (4,))
"""The box that was cropped, x0 y0 x1 y1 in pixels of the original image as displayed."""
STATUS = TensorSpec("STATUS", "INT32", (1,))
"""A ``Status`` of an image; of a product, an ``Outcome`` of ``serving/enrich/product.py``."""
CROPPED = TensorSpec("CROPPED", "INT32", (1,))
"""The ``STATUS`` of ``crop`` as an input of ``observe``."""
PIXELS = TensorSpec("PIXELS", "FP32", (3, "R", "R"))
EMBEDDING = TensorSpec("EMBEDDING", "FP32", ("D",))
VERSION = TensorSpec("VERSION", "INT32", (4,))
"""Digests of what made the row: see ``serving.repository.versions``. The same for every row of a graph."""
WHOLE_VERSION = TensorSpec("WHOLE_VERSION", "INT32", (4,))
"""The ``VERSION`` of a row whose ``PIXELS`` come from ``fit``."""

LEAVES: dict[str, ModelSpec] = {
    "decode": ModelSpec((IMAGE, AFTER), (CANVAS, SIZE, DECODED)),
    "tokenize_prompt": ModelSpec((PRODUCT_TYPE, IMAGE), (TOKENS, TRUNCATED)),
    "encode_prompt": ModelSpec((TOKENS,), (PROMPT, PROMPT_MASK)),
    "detect": ModelSpec((CANVAS, SIZE, PROMPT, PROMPT_MASK), (CANVAS_BOX, SCORE)),
    "crop": ModelSpec((CANVAS, SIZE, DECODED, CANVAS_BOX, SCORE), (PIXELS, BOX, STATUS, VERSION)),
    "observe": ModelSpec((SCORE, CROPPED), (STATUS,)),
    "fit": ModelSpec((CANVAS, SIZE, DECODED), (PIXELS, STATUS)),
    "encode_image": ModelSpec((PIXELS, STATUS), (EMBEDDING, VERSION, WHOLE_VERSION)),
    "tokenize": ModelSpec((TEXT, ENRICHED), (TOKENS, TRUNCATED)),
    "encode_text": ModelSpec((TOKENS,), (EMBEDDING, VERSION)),
    "enrich": ModelSpec((PRODUCT, IMAGE), (TEXT, ROUNDS, STATUS, PROMPTS, TRUNCATED)),
}

PIPELINES: dict[str, ModelSpec] = {
    "product_image": ModelSpec((IMAGE, PRODUCT_TYPE), (EMBEDDING, BOX, SCORE, STATUS, TRUNCATED, VERSION)),
    "whole_image": ModelSpec((IMAGE,), (EMBEDDING, STATUS, VERSION)),
    "ground": ModelSpec((IMAGE, PRODUCT_TYPE), (BOX, SCORE, STATUS, TRUNCATED, VERSION)),
    "product_text": ModelSpec((TEXT,), (EMBEDDING, TRUNCATED, VERSION)),
    "enriched_text": ModelSpec((PRODUCT, IMAGE), (TEXT, EMBEDDING, ROUNDS, STATUS, PROMPTS, TRUNCATED, VERSION)),
}
