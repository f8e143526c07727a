"""Colours of an ICC profile to sRGB, which the models were trained with.

A profile is examined once, and the result is kept: an image without a profile, or with one of sRGB itself, costs
nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

LARGEST_PROFILE = 4 << 20
"""Bytes. Profiles for printing have up to 3 MB."""
KEPT = 16
"""Profiles whose conversions are kept; together at most 64 MiB."""
INVISIBLE = 3
"""Levels by which a profile may differ from sRGB and be taken for sRGB. The tables of profiles are rounded."""
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour spaces of profiles, with Pillow's mode of their pixels."""
GREY = ("1", "L", "LA", "I;16")
SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class Conversion:
    """From the colours of a profile to sRGB."""

    mode: str
    """Of the pixels: RGB, L or CMYK."""
    transform: ImageCms.ImageCmsTransform

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W, 3), or (H, W, 4) for CMYK, to RGB (H, W, 3)."""
        stored = np.ascontiguousarray(pixels[:, :, 0] if self.mode == "L" else pixels)
        image = Image.frombytes(self.mode, (pixels.shape[1], pixels.shape[0]), stored.tobytes())
        return np.asarray(ImageCms.applyTransform(image, self.transform))


def conversion_of(image: Image.Image) -> Conversion | None:
    """The conversion that an opened image needs; None if it is in sRGB, or its profile is damaged or does not fit."""
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > LARGEST_PROFILE:
        return None
    found = examine(profile)
    if (
        found is None
        or (found.mode == "CMYK") != (image.mode == "CMYK")
        or (found.mode == "L" and image.mode not in GREY)
    ):
        return None
    return found


@lru_cache(KEPT)
def examine(profile: bytes) -> Conversion | None:
    """The conversion of a profile; None if it changes nothing, or the profile is damaged or of another colour space."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES[source.profile.xcolor_space.strip()]
        found = Conversion(mode, ImageCms.buildTransform(source, SRGB, mode, "RGB"))
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        if (
            mode != "CMYK"
            and np.abs(found(cube).astype(int) - (cube[:, :, :1] if mode == "L" else cube)).max() <= INVISIBLE
        ):
            return None
    except Exception:  # LittleCMS and Pillow raise errors of several kinds for damaged profiles
        return None
    return found
