"""The reference for everything that is served: PIL, open_clip's own transform, PyTorch.

reference = Reference("mini")
image = open_image(Path("mug.jpg").read_bytes())
reference.embed([image], boxes=[(10, 20, 200, 220)])    # (1, D), unit length
reference.embed_texts(["a red mug"])                    # (1, D)
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

from export.encoder_sources import resolve_encoder
from export.load_encoder import load_encoder

Box = Sequence[float]


def open_image(encoded: bytes) -> Image.Image:
    """Decode an image as it is displayed: EXIF orientation and ICC profile applied, transparency on white, RGB."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode.startswith("I"):  # 16 bits, which PIL's convert would clip instead of scaling
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):  # a damaged profile, or one of another colour space
            made = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            image = made or image
    return image.convert("RGB")


def crop_outwards(image: Image.Image, box_xyxy: Box) -> Image.Image:
    """The crop of a box, rounded outwards to whole pixels, inside the image and at least one pixel."""
    x0, y0, x1, y1 = box_xyxy
    left = min(max(math.floor(x0), 0), image.width - 1)
    top = min(max(math.floor(y0), 0), image.height - 1)
    right = max(min(math.ceil(x1), image.width), left + 1)
    bottom = max(min(math.ceil(y1), image.height), top + 1)
    return image.crop((left, top, right, bottom))


class Reference:
    """An encoder as its authors run it.

    Reference("mini"); Reference("ViT-B-32", pretrained="openai"); Reference(encoder=loaded)
    """

    def __init__(self, name: str = "mini", *, encoder: Any = None, **how: Any):
        self.encoder = encoder or load_encoder(resolve_encoder(name, **how))

    def pixels(self, image: Image.Image, box_xyxy: Box | None = None) -> Any:
        """open_clip's evaluation transform of the crop. → tensor (3, R, R)"""
        return self.encoder.transform(image if box_xyxy is None else crop_outwards(image, box_xyxy))

    def embed(
        self, images: Sequence[Image.Image], boxes: Sequence[Box | None] | None = None, batch: int = 32
    ) -> np.ndarray:
        """Unit vectors of the images, or of their boxes (original pixels; ``None`` for the whole image). → (N, D)"""
        wanted = list(boxes) if boxes is not None else [None] * len(images)
        rows = []
        with torch.no_grad():
            for begin in range(0, len(images), batch):
                pairs = zip(images[begin : begin + batch], wanted[begin : begin + batch], strict=True)
                stacked = torch.stack([self.pixels(image, box) for image, box in pairs])  # (B, 3, R, R)
                rows.append(self.encoder.model.encode_image(stacked, normalize=True).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of the texts, by open_clip's own tokenizer. → (N, D)"""
        with torch.no_grad():
            tokens = self.encoder.tokenizer(list(texts))  # (N, T)
            embedded: np.ndarray = self.encoder.model.encode_text(tokens, normalize=True).numpy()
        return embedded
