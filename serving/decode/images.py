"""An encoded image file to pixels as they are displayed, shrunk only if they do not fit the largest canvas.

JPEG, PNG and WebP are read, with any colours, which an ICC profile of the file converts to sRGB. Transparent pixels
become white; of an animation, the first frame is read. Plain JPEGs go through OpenCV, which decodes to the same pixels
as Pillow in half the time. Pillow reads the rest.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.decode import jpeg, png
from serving.decode.colour import Conversion, conversion_of
from serving.repository.specs import CANVASES, Status

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""

OK = 0
"""DECODED of an image that was decoded; any other is a ``Status``."""
REDUCED_FLAGS = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""OpenCV's flags that decode a JPEG at a half, a quarter, an eighth; with IMREAD_COLOR_RGB the result has colours."""
SPARE = 2.0
"""A JPEG that is reduced while it is decoded stays at least this many times as large as the canvas.

With 2, embeddings keep a cosine of at least 0.9999 with those of full decoding. With 1.5, fine patterns fell to 0.9994,
and with 1.3, mosaics of photos fell to 0.984."""
EXIF_ORIENTATION = 0x0112
JPEG_BEGIN = b"\xff\xd8"
LARGE_PIXELS = 16_000_000
STRIP_PIXELS = 4_000_000
one_large_image = Lock()

# Our own limit is checked below; Pillow's would raise at another size.
Image.MAX_IMAGE_PIXELS = None
# Damaged tags in files of callers would fill the server's log.
warnings.filterwarnings("ignore", module="PIL")
# The images of a batch are decoded in parallel, so threads within one image would only slow the others down.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class Limits:
    """Sides of the canvases in pixels, rising, and the most that a file may hold: bytes as sent, pixels unpacked."""

    canvases: tuple[int, ...] = CANVASES
    max_bytes: int = 32 << 20
    max_pixels: int = 64_000_000

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Limits:
        """Read the parameters of ``config.pbtxt``; the sides are separated by blanks."""
        canvases = tuple(map(int, parameters["canvases"].split()))
        return cls(canvases, int(parameters["max_bytes"]), int(parameters["max_pixels"]))

    def canvas_for(self, sizes: Iterable[tuple[int, ...]]) -> int:
        """Side of the smallest canvas that holds images of all these sizes, which begin with height and width."""
        needed = max((max(size[:2]) for size in sizes), default=0)
        return next(side for side in self.canvases if side >= needed)


class NotDecoded(Exception):
    """A file without pixels for us; ``status`` says why."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True)
class Decoded:
    """An image as displayed, with its row of SIZE and DECODED."""

    image_rgb: Pixels | torch.Tensor
    """uint8 (H, W, 3); (0, 0, 3) where nothing was decoded."""
    size: tuple[int, int, int, int]
    status: int


def decode(blob: bytes, limits: Limits) -> Decoded:
    """Decode a file; the status says why where that is impossible. Never raises."""
    try:
        stored = read(blob, limits)
        original_hw, orientation = stored.hw, stored.orientation
        # Converted after it was shrunk, the image has the fewest pixels.
        small_rgb = in_srgb(shrink(stored.pixels, fitted_hw(*original_hw, limits.canvases[-1])), stored.conversion)
    except NotDecoded as error:
        return Decoded(np.zeros((0, 0, 3), np.uint8), (0, 0, 0, 0), error.status)
    # Turned after it was shrunk, the image is a view, which costs nothing.
    return as_displayed(upright(small_rgb, orientation), original_hw, orientation)


def as_displayed(upright_rgb: Pixels | torch.Tensor, stored_hw: tuple[int, int], orientation: int) -> Decoded:
    """A shrunk and turned image, with its size in the file turned in the same way."""
    height, width = upright_rgb.shape[:2]
    turned = orientation >= 5
    return Decoded(upright_rgb, (height, width, stored_hw[turned], stored_hw[not turned]), OK)


def stack(images: Sequence[Decoded], side: int) -> Pixels:
    """Each image at the top left of a black canvas: uint8 (B, side, side, 3)."""
    canvases = np.zeros((len(images), side, side, 3), np.uint8)
    for canvas, image in zip(canvases, images, strict=True):
        height, width = image.size[:2]
        canvas[:height, :width] = image.image_rgb
    return canvases


def fitted_hw(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width within a square of ``side`` pixels: never enlarged, in proportion, and 1 pixel at least."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink(image_rgb: Pixels, hw: tuple[int, int]) -> Pixels:
    """Resize (H, W, 3) to ``hw``, averaging over the area that each new pixel covers."""
    if image_rgb.shape[:2] == hw:
        return image_rgb
    return np.asarray(cv2.resize(image_rgb, hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def upright(image: Pixels, orientation: int) -> Pixels:
    """A view of (H, W, 3) as it is displayed, by the EXIF orientation 1 to 8."""
    return np.flip(image.swapaxes(0, 1) if orientation >= 5 else image, flipped_axes(orientation))


def flipped_axes(orientation: int) -> tuple[int, ...]:
    """Axes to reverse, 0 for rows and 1 for columns, after orientations from 5 on have swapped rows and columns."""
    return (0,) * (orientation in (3, 4, 7, 8)) + (1,) * (orientation in (2, 3, 6, 7))


@dataclass(frozen=True)
class Stored:
    """An image as it is stored in its file, and what is still to be done."""

    pixels: Pixels
    """RGB (H, W, 3), perhaps reduced; CMYK (H, W, 4) if there is a conversion from it."""
    hw: tuple[int, int]
    """The full height and width."""
    orientation: int
    conversion: Conversion | None


def read(blob: bytes, limits: Limits) -> Stored:
    """Decode a file. Raises NotDecoded for anything but a whole JPEG, PNG or WebP file within the limits."""
    image = open_file(blob, limits)
    hw = image.height, image.width
    conversion = conversion_of(image)
    try:
        if is_jpeg(image):
            pixels = read_whole_jpeg(image, blob, reduction(max(hw), limits.canvases[-1]), conversion)
        elif image.format == "PNG":
            pixels = read_png(image, blob)
        else:
            pixels = read_any(image)
    except Exception as error:
        raise NotDecoded(Status.NOT_AN_IMAGE) from error
    return Stored(pixels, hw, exif_orientation(image), conversion)


def in_srgb(pixels: Pixels, conversion: Conversion | None) -> Pixels:
    """Convert the colours. Raises NotDecoded if that is impossible."""
    try:
        return conversion(pixels) if conversion else pixels
    except Exception as error:
        raise NotDecoded(Status.NOT_AN_IMAGE) from error


def open_file(blob: bytes, limits: Limits) -> Image.Image:
    """Open a file and read its header, not its pixels. Raises NotDecoded for no image, or one over a limit."""
    if len(blob) > limits.max_bytes:
        raise NotDecoded(Status.TOO_LARGE)
    # Damaged files leave Pillow's parsers as OSError, SyntaxError, struct.error, ValueError and more.
    try:
        if blob.startswith(JPEG_BEGIN):
            jpeg.layout_of(blob, all_scans=False)
        if blob.startswith(png.SIGNATURE) and not png.has_few_chunks(blob):
            raise NotDecoded(Status.NOT_AN_IMAGE)
        image = Image.open(io.BytesIO(blob), formats=("JPEG", "PNG", "WEBP"))
    except Exception as error:
        raise NotDecoded(Status.NOT_AN_IMAGE) from error
    if image.width * image.height > limits.max_pixels:
        raise NotDecoded(Status.TOO_LARGE)
    return image


def is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")


def is_grey_or_rgb(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB")


def reduction(longer: int, side: int, spare: float = SPARE) -> int:
    """The factor by which a JPEG is reduced while it is decoded; its longer side stays ``spare`` times the canvas."""
    return max(factor for factor in REDUCED_FLAGS if factor == 1 or longer >= factor * spare * side)


def read_jpeg(blob: bytes, factor: int = 1) -> Pixels:
    """Decode a plain JPEG to RGB (H, W, 3), at 1 / ``factor`` of its size: the decoder averages squares of pixels."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | REDUCED_FLAGS[factor]
    image_rgb = cv2.imdecode(np.frombuffer(blob, np.uint8), flags)
    if image_rgb is None:
        raise NotDecoded(Status.NOT_AN_IMAGE)
    return np.asarray(image_rgb, np.uint8)


def read_whole_jpeg(image: Image.Image, blob: bytes, factor: int, conversion: Conversion | None) -> Pixels:
    """Decode a JPEG of which every row is there. Its end marker may be missing, and other data may follow it."""
    layout = jpeg.layout_of(blob, all_scans=False)
    doubtful = not (layout.is_one_scan and blob.endswith(jpeg.END) and is_grey_or_rgb(image))
    if doubtful:
        layout = jpeg.layout_of(blob)
        certain = layout.ends_with_a_refinement and blob.endswith(jpeg.END)
        if not layout.is_exact or not (certain or jpeg.is_whole(blob, layout, factor)):
            raise NotDecoded(Status.NOT_AN_IMAGE)
        blob = jpeg.ended(blob, layout)
    if not is_grey_or_rgb(image):
        return read_any(Image.open(io.BytesIO(blob), formats=("JPEG",)), cmyk=conversion is not None)
    image_rgb = read_jpeg(blob, factor)
    if (
        not doubtful
        and jpeg.may_lack_blocks(image_rgb[-1, -1])
        and not jpeg.is_whole(blob, jpeg.layout_of(blob), factor)
    ):
        raise NotDecoded(Status.NOT_AN_IMAGE)
    return image_rgb


def read_png(image: Image.Image, blob: bytes) -> Pixels:
    """Decode a PNG that Pillow has opened to RGB (H, W, 3), on a white background."""
    depth = png.depth_of(blob)
    png.scale_key(image, depth)
    image_rgb = read_any(image)
    if not png.is_whole(image, blob):
        raise NotDecoded(Status.NOT_AN_IMAGE)
    if not png.needs_16_bits(image, depth):
        return image_rgb
    del image_rgb
    with one_large_image:
        return png.read_16_bits(blob)


def read_any(image: Image.Image, cmyk: bool = False) -> Pixels:
    """Decode an image that Pillow has opened to RGB (H, W, 3), on a white background, or leave it in CMYK (H, W, 4).

    A file of 46 bytes can be a large image, which takes 15 bytes per pixel for a while. So only one large image is
    decoded at a time, and colours are converted in strips.
    """
    rows = max(1, STRIP_PIXELS // image.width)
    with one_large_image if image.width * image.height > LARGE_PIXELS else nullcontext():
        image.load()
        if cmyk:
            return np.asarray(image)
        if rows >= image.height:
            return as_rgb(image)
        image_rgb = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            image_rgb[top:bottom] = as_rgb(image.crop((0, top, image.width, bottom)))
        return image_rgb


def as_rgb(image: Image.Image) -> Pixels:
    """Pixels (H, W, 3) on a white background."""
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits, which have to be scaled.
        levels = np.asarray(image)
        grey = np.where(levels == image.info.get("transparency"), 255, levels >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        image = paper
    return np.asarray(image.convert("RGB"))


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation 1 to 8; 1 where there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1
