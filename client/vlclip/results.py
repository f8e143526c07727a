"""The results of the client: arrays of N rows, in the order of the items of the call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
TextArray = npt.NDArray[np.object_]
"""An array of str."""


class Status(IntEnum):
    """The outcome of one image. The embedding of an image that was not decoded (2, 3 and 100) is all zeros."""

    GROUNDED = 0
    """The product was found, and its box was cropped."""
    WHOLE_IMAGE = 1
    """The whole image was used: no box was confident enough, or the product type was empty."""
    NOT_AN_IMAGE = 2
    """The file is damaged, or not an image format that the server decodes."""
    TOO_LARGE = 3
    """The image exceeds the server's limits, in bytes or in pixels."""
    UNREADABLE = 100
    """The client could not read the file, for example because there is none. The server does not have this status."""


@dataclass(frozen=True)
class Health:
    """The state of a server. All fields are false or empty if no server answers."""

    live: bool
    """The server answers."""
    ready: bool
    """Every model and pipeline accepts requests."""
    server: str = ""
    version: str = ""


@dataclass(frozen=True)
class Model:
    """The state of a pipeline of the contract on a server."""

    name: str
    ready: bool
    """Whether it accepts requests. If not, the other fields are empty."""
    version: str = ""
    """The `version` of the rows that it gives now."""
    label: str = ""
    """The same for people: "version 2: mini + ViT-B-32, 2026-11-28, fp32"."""
    max_batch_size: int = 0


@dataclass(frozen=True, eq=False)
class Result:
    """Arrays with one row for each item. ``len()`` is the number of items.

    version  [N]  str: digests of the models that made the row. Embeddings can be compared if `comparable` says so.
                  Rows of one call can have different versions, if the server changes its models in the meantime
    """

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True, eq=False)
class Grounding(Result):
    """The product's box in each image.

    box_xyxy   [N, 4]  x0 y0 x1 y1 in pixels of the original image after its EXIF rotation
    score      [N]     confidence of the box, 0 to 1
    status     [N]     values of `Status`
    truncated  [N]     bool, whether the product type is longer than what the detector reads of it
    """

    box_xyxy: FloatArray
    score: FloatArray
    status: IntArray
    truncated: BoolArray
    version: TextArray


@dataclass(frozen=True, eq=False)
class ImageEmbeddings(Result):
    """Embeddings of the products in images, with the fields of `Grounding`.

    embedding  [N, D]  unit length, or zeros if the image was not decoded
    """

    embedding: FloatArray
    box_xyxy: FloatArray
    score: FloatArray
    status: IntArray
    truncated: BoolArray
    version: TextArray


@dataclass(frozen=True, eq=False)
class WholeImageEmbeddings(Result):
    """Embeddings of whole images, without detection of the product.

    embedding  [N, D]  unit length, or zeros if the image was not decoded
    status     [N]     values of `Status`, never GROUNDED
    """

    embedding: FloatArray
    status: IntArray
    version: TextArray


@dataclass(frozen=True, eq=False)
class TextEmbeddings(Result):
    """Embeddings of texts, in the same space as those of images.

    embedding  [N, D]  unit length
    truncated  [N]     bool, whether the text is longer than what the encoder reads of it
    """

    embedding: FloatArray
    truncated: BoolArray
    version: TextArray


@dataclass(frozen=True, eq=False)
class EnrichedTexts(Result):
    """Texts about products and their embeddings. An agent writes each text, or it is composed from the metadata.

    text       [N]     str
    embedding  [N, D]  unit length
    rounds     [N]     number of drafts that the agent judged; 0 if the text was composed
    status     [N]     0 if the agent wrote the text, else the server's reason to compose it
    prompts    [N]     str, the version of the agent's prompts; empty if the text was composed
    truncated  [N]     bool, whether the product's data are longer than what is read of them
    """

    text: TextArray
    embedding: FloatArray
    rounds: IntArray
    status: IntArray
    prompts: TextArray
    truncated: BoolArray
    version: TextArray


def comparable(*versions: str | Iterable[str]) -> bool:
    """Whether embeddings can be compared, by the `version` of each: whether the same encoder made all of them.

    comparable(photos.version, query.version)   of rows that the client returned
    comparable("1a2b3c4d-…", query.version)     of a row that was stored, and a query

    The first digest of a version, up to the dash, is the encoder's.
    """
    texts = [text for one in versions for text in ([one] if isinstance(one, str) else one)]
    return len({text.partition("-")[0] for text in texts}) <= 1
