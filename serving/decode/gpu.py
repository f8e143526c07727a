"""Plain JPEGs by the decoder in a GPU, with nvImageCodec: decoded in one batch, shrunk, turned, laid on canvases.

All other files go through the CPU, by `images`, as does a JPEG that the decoder gives back: one that is progressive,
say, or damaged. So the statuses are the CPU's for every file, and limits are checked from the header before anything
is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch

from serving.decode.images import (
    Decoded,
    Limits,
    NotDecoded,
    as_displayed,
    decode,
    exif_orientation,
    fitted_hw,
    flipped_axes,
    is_plain_jpeg,
    open_file,
)

LOG = logging.getLogger("vlclip.decode")

LARGEST = 16_000_000
"""Pixels of a photo that the GPU decodes: shrinking takes 12 bytes for each, beside the 3 it is decoded to. What is
larger, the CPU decodes at a fraction of its size."""
AT_ONCE = 256_000_000
"""Pixels that are decoded in one call: three quarters of a gigabyte."""

DecodeBatch = Callable[[Sequence[bytes]], Sequence[Any]]
"""Files to images in the same order, None for what cannot be decoded. An image is uint8 (H, W, 3), RGB, not turned, in
the memory of host or GPU, of any type that PyTorch takes without a copy."""


class GpuDecoder:
    def __init__(self, decode_batch: DecodeBatch, device: torch.device):
        self.device = device
        self._decode_batch = decode_batch

    @classmethod
    def open(cls, device: int) -> GpuDecoder:
        """On the GPU with this number, with its hardware JPEG decoder. Raises RuntimeError where there is none."""
        torch.cuda.set_device(device)
        from nvidia import nvimgcodec as codec

        decoder = codec.Decoder(device_id=device, backends=[codec.Backend(codec.BackendKind.HW_GPU_ONLY)])
        return cls(through(codec, decoder), torch.device("cuda", device))

    def decode(self, blobs: Sequence[bytes], limits: Limits, threads: Executor) -> list[Decoded]:
        """Like :func:`images.decode` of each file, and as little as that does it raise; some images are tensors."""
        headers = list(threads.map(lambda blob: header_of(blob, limits), blobs))
        here = [i for i, header in enumerate(headers) if header]
        # The CPU begins with its share while the GPU works on the other.
        pending = {i: threads.submit(decode, blobs[i], limits) for i in range(len(blobs)) if not headers[i]}
        found: dict[int, Decoded] = {}
        for part in parts_of([(i, headers[i][0] * headers[i][1]) for i in here], AT_ONCE):
            for i, image in zip(part, self._try([blobs[i] for i in part]), strict=True):
                height, width, orientation = headers[i]
                if image is None or tuple(image.shape) != (height, width, 3):
                    pending[i] = threads.submit(decode, blobs[i], limits)
                    continue
                small_rgb = shrink(
                    torch.as_tensor(image, device=self.device), fitted_hw(height, width, limits.canvases[-1])
                )
                found[i] = as_displayed(upright(small_rgb, orientation), (height, width), orientation)
        return [found[i] if i in found else pending[i].result() for i in range(len(blobs))]

    def stack(self, images: Sequence[Decoded], side: int) -> torch.Tensor:
        """Each image at the top left of a black canvas: uint8 (B, side, side, 3), on the GPU."""
        canvases = torch.zeros((len(images), side, side, 3), dtype=torch.uint8, device=self.device)
        for canvas, image in zip(canvases, images, strict=True):
            height, width = image.size[:2]
            pixels = image.image_rgb
            if isinstance(pixels, np.ndarray):
                # A copy, since PyTorch takes no turned view, nor what cannot be written to.
                pixels = torch.from_numpy(np.array(pixels, order="C"))
            canvas[:height, :width] = pixels
        return canvases

    def _try(self, blobs: Sequence[bytes]) -> Sequence[Any]:
        try:
            return self._decode_batch(blobs)
        except RuntimeError as error:
            LOG.warning("nvImageCodec failed, the CPU decodes %d files: %s", len(blobs), error)
            return [None] * len(blobs)


def through(codec: Any, decoder: Any) -> DecodeBatch:
    """``decoder`` of the module ``codec``, nvidia.nvimgcodec, as this module uses it."""
    parameters = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)

    def decode_batch(blobs: Sequence[bytes]) -> Sequence[Any]:
        return decoder.decode([codec.CodeStream(blob) for blob in blobs], params=parameters)

    return decode_batch


def header_of(blob: bytes, limits: Limits) -> tuple[int, int, int] | None:
    """Height, width and EXIF orientation of a file for the GPU; None for one that is left to the CPU."""
    try:
        image = open_file(blob, limits)
    except NotDecoded:
        return None
    if not is_plain_jpeg(image, blob) or image.width * image.height > LARGEST:
        return None
    return image.height, image.width, exif_orientation(image)


def parts_of(sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """The keys of ``sizes``, pairs of a key and a number, in order, in lists whose numbers sum to ``most`` at most."""
    part: list[int] = []
    total = 0
    for key, size in sizes:
        if part and total + size > most:
            yield part
            part, total = [], 0
        part.append(key)
        total += size
    if part:
        yield part


def shrink(image_rgb: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 (H, W, 3) to ``hw``, averaging over the area that each new pixel covers: two matrix products."""
    if tuple(image_rgb.shape[:2]) == hw:
        return image_rgb
    by_rows, by_columns = (
        coverage(old, new, image_rgb.device) for old, new in zip(image_rgb.shape[:2], hw, strict=True)
    )
    rows = torch.tensordot(by_rows, image_rgb.float(), dims=1)  # (h, W, 3)
    return torch.matmul(by_columns, rows).round().clamp(0, 255).to(torch.uint8)  # (h, w, 3)


def coverage(old: int, new: int, device: torch.device) -> torch.Tensor:
    """How much of each of ``new`` pixels in a row each of ``old`` covers: float32 (new, old), rows sum to 1."""
    edges = torch.arange(new + 1, device=device, dtype=torch.float64) * (old / new)
    pixels = torch.arange(old, device=device, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (new / old)).float()


def upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """(H, W, 3) as it is to be displayed, by the EXIF orientation 1 to 8."""
    return torch.flip(image.swapaxes(0, 1) if orientation >= 5 else image, flipped_axes(orientation))
