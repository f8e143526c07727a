"""What the client returns: arrays of N rows, in the order of the items that were given."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class Status(IntEnum):
    """What became of one image. Where nothing was decoded (2 and 3), its embedding is all zeros."""

    GROUNDED = 0
    """A box was found for the product type, and cropped."""
    WHOLE_IMAGE = 1
    """No box was sure enough, or the product type was empty: the whole image stands for the product."""
    NOT_AN_IMAGE = 2
    TOO_LARGE = 3
    """In bytes or in pixels, by the server's limits."""


@dataclass(frozen=True)
class Health:
    """What the server says of itself; all false and empty where none answers."""

    live: bool
    ready: bool
    """Every model and pipeline can be asked."""
    server: str = ""
    version: str = ""


@dataclass(frozen=True)
class Model:
    """A pipeline of the contract, as a server has it."""

    name: str
    ready: bool
    """Whether it can be asked; if not, nothing else is known of it."""
    versions: tuple[str, ...] = ()
    max_batch_size: int = 0


@dataclass(frozen=True, eq=False)
class Result:
    """Rows of arrays; ``len()`` is the number of items."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True, eq=False)
class Grounding(Result):
    """Where the product is in each image.

    box_xyxy  [N, 4]  x0 y0 x1 y1 in pixels of the original image as displayed (EXIF orientation applied)
    score     [N]     confidence of the box, 0 to 1
    status    [N]     values of `Status`
    """

    box_xyxy: FloatArray
    score: FloatArray
    status: IntArray


@dataclass(frozen=True, eq=False)
class ImageEmbeddings(Result):
    """Embeddings of the grounded products, and where they were found (see `Grounding`).

    embedding  [N, D]  unit length, or zeros where the status says that nothing was decoded
    """

    embedding: FloatArray
    box_xyxy: FloatArray
    score: FloatArray
    status: IntArray


@dataclass(frozen=True, eq=False)
class WholeImageEmbeddings(Result):
    """Embeddings of whole images: plain CLIP.

    embedding  [N, D]  unit length, or zeros where the status says that nothing was decoded
    status     [N]     values of `Status`, never GROUNDED
    """

    embedding: FloatArray
    status: IntArray


@dataclass(frozen=True, eq=False)
class TextEmbeddings(Result):
    """Embeddings of texts, in the space of the images'.

    embedding  [N, D]  unit length
    """

    embedding: FloatArray


@dataclass(frozen=True, eq=False)
class EnrichedTexts(Result):
    """Clear texts about products, written by an agent or composed from the metadata, and their embeddings.

    text       [N]     str
    embedding  [N, D]  unit length
    rounds     [N]     how often a draft of the agent was judged; 0 where the text was composed
    status     [N]     0 where the agent wrote it; else the server's reason why it was composed from the metadata
    prompts    [N]     str, the version of the prompts that it was written with; empty where it was composed
    """

    text: npt.NDArray[np.object_]
    embedding: FloatArray
    rounds: IntArray
    status: IntArray
    prompts: npt.NDArray[np.object_]
