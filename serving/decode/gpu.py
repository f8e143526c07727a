"""Decodes plain JPEGs on a GPU with nvImageCodec: in one batch, then shrunk, turned and laid on canvases.

The CPU decodes all other files, those whose colours an ICC profile changes, those that may lack rows, and the JPEGs
that the decoder rejects, such as progressive or damaged ones; see ``images``. So every file gets the same status as on
a CPU, provided that the hardware, too, rejects files that lack rows or fills these with grey. Limits are checked before
anything is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch

from serving.decode import jpeg
from serving.decode.colour import conversion_of
from serving.decode.images import (
    Decoded,
    Limits,
    NotDecoded,
    as_displayed,
    decode,
    exif_orientation,
    fitted_hw,
    flipped_axes,
    is_grey_or_rgb,
    is_jpeg,
    open_file,
)

LOG = logging.getLogger("vlclip.decode")

LARGEST = 16_000_000
"""Pixels of the largest photo for the GPU: decoding takes 3 bytes per pixel, shrinking 12 more. Of larger photos, the
CPU decodes a reduced version."""
AT_ONCE = 256_000_000
"""Pixels that are decoded in one call, which takes three quarters of a gigabyte."""

DecodeBatch = Callable[[Sequence[bytes]], Sequence[Any]]
"""Decodes files to images in the same order; None for a file that the decoder rejects. An image is uint8 (H, W, 3),
RGB, not turned, in the memory of the host or the GPU, of any type that ``torch.as_tensor`` takes without a copy."""


class GpuDecoder:
    """Does on ``device`` what ``images`` does on the CPU."""

    def __init__(self, decode_batch: DecodeBatch, device: torch.device) -> None:
        self.device = device
        self._decode_batch = decode_batch

    @classmethod
    def open(cls, device: int) -> GpuDecoder:
        """Open the hardware JPEG decoder of the GPU with this number. Raises RuntimeError where there is none."""
        torch.cuda.set_device(device)
        from nvidia import nvimgcodec as codec

        decoder = codec.Decoder(device_id=device, backends=[codec.Backend(codec.BackendKind.HW_GPU_ONLY)])
        return cls(through(codec, decoder), torch.device("cuda", device))

    def decode(self, blobs: Sequence[bytes], limits: Limits, threads: Executor) -> list[Decoded]:
        """Decode every file as :func:`images.decode` does, without raising; images from the GPU are tensors."""
        headers = list(threads.map(lambda blob: header_of(blob, limits), blobs))
        ours = {i: header for i, header in enumerate(headers) if header}
        # The CPU starts on its files while the GPU decodes the others.
        pending = {i: threads.submit(decode, blobs[i], limits) for i in range(len(blobs)) if i not in ours}
        found: dict[int, Decoded] = {}
        for part in parts_of([(i, height * width) for i, (height, width, _) in ours.items()], AT_ONCE):
            images = self._try([blobs[i] for i in part])
            for i, image, doubtful in zip(part, images, self.lack_blocks(images), strict=True):
                height, width, orientation = ours[i]
                if image is None or doubtful or tuple(image.shape) != (height, width, 3):
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
                # Copied, because PyTorch takes neither reversed views nor read-only arrays.
                pixels = torch.from_numpy(np.array(pixels, order="C"))
            canvas[:height, :width] = pixels
        return canvases

    def lack_blocks(self, images: Sequence[Any]) -> list[bool]:
        """Whether the last pixel of each image is grey, so that the CPU has to find out whether the file is whole."""
        there = [image is not None and min(image.shape) > 0 for image in images]
        last = [
            torch.as_tensor(image, device=self.device)[-1, -1] for image, one in zip(images, there, strict=True) if one
        ]
        corners = iter(torch.stack(last).cpu().numpy() if last else ())  # one transfer for all
        return [one and jpeg.may_lack_blocks(next(corners)) for one in there]

    def _try(self, blobs: Sequence[bytes]) -> Sequence[Any]:
        try:
            return self._decode_batch(blobs)
        except RuntimeError as error:
            LOG.warning("nvImageCodec failed, so the CPU decodes %d files: %s", len(blobs), error)
            return [None] * len(blobs)


def through(codec: Any, decoder: Any) -> DecodeBatch:
    """Decode with ``decoder`` of the module ``codec``, which is nvidia.nvimgcodec."""
    parameters = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)

    def decode_batch(blobs: Sequence[bytes]) -> Sequence[Any]:
        images: Sequence[Any] = decoder.decode([codec.CodeStream(blob) for blob in blobs], params=parameters)
        return images

    return decode_batch


def header_of(blob: bytes, limits: Limits) -> tuple[int, int, int] | None:
    """Height, width and EXIF orientation of a file for the GPU; None for a file for the CPU."""
    try:
        image = open_file(blob, limits)
    except NotDecoded:
        return None
    plain = is_jpeg(image) and is_grey_or_rgb(image) and blob.endswith(jpeg.END) and conversion_of(image) is None
    if not plain or image.width * image.height > LARGEST:
        return None
    return image.height, image.width, exif_orientation(image)


def parts_of(sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Split pairs of a key and a number, in order, into lists of keys whose numbers sum to at most ``most``."""
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
    """Resize uint8 (H, W, 3) to ``hw``: each new pixel is the average of the area that it covers."""
    if tuple(image_rgb.shape[:2]) == hw:
        return image_rgb
    by_rows, by_columns = (
        coverage(old, new, image_rgb.device) for old, new in zip(image_rgb.shape[:2], hw, strict=True)
    )
    rows = torch.tensordot(by_rows, image_rgb.float(), dims=1)  # (h, W, 3)
    # One product of matrices; matmul would compute h of them, which are three columns wide.
    columns = torch.tensordot(by_columns, rows, dims=([1], [1]))  # (w, h, 3)
    shrunk: torch.Tensor = columns.swapaxes(0, 1).round().clamp(0, 255).to(torch.uint8)  # (h, w, 3)
    return shrunk


def coverage(old: int, new: int, device: torch.device) -> torch.Tensor:
    """The share of each of ``old`` pixels in each of ``new`` pixels of a line: float32 (new, old), rows sum to 1."""
    edges = torch.arange(new + 1, device=device, dtype=torch.float64) * (old / new)
    pixels = torch.arange(old, device=device, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (new / old)).float()


def upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """(H, W, 3) as it is displayed, by the EXIF orientation 1 to 8."""
    return torch.flip(image.swapaxes(0, 1) if orientation >= 5 else image, flipped_axes(orientation))
