"""The arguments of a call as rows of bytes, which are read lazily, one item at a time."""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
import numpy.typing as npt

from vlclip._wire import Row
from vlclip.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Image = Union[bytes, bytearray, memoryview, str, os.PathLike[str], BinaryIO, npt.NDArray[np.uint8], "PILImage"]
"""An encoded file (JPEG, PNG, WebP…) as bytes, path or open file; or pixels, as a PIL image or as uint8 [H, W],
[H, W, 3] or [H, W, 4], which are sent as PNG."""
Images = Image | Iterable[Image]
Texts = str | Iterable[str]
Product = Mapping[str, Any]
"""``product_type``, ``title``, ``description`` and further attributes. The values must be JSON serializable."""
Products = Product | Iterable[Product]
ProductImages = Image | Iterable[Image | None]

AsyncImages = Images | AsyncIterable[Image]
AsyncTexts = Texts | AsyncIterable[str]
AsyncProducts = Products | AsyncIterable[Product]
AsyncProductImages = ProductImages | AsyncIterable[Image | None]

_END: Any = object()


@dataclass(frozen=True)
class Items:
    """The items of a call: one source for each argument that is iterated, and a function from an item to its row."""

    sources: tuple[Any, ...]
    row: Callable[..., Row]
    """(number of the item, one value of each source) → its row. Reads files."""
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = [len(source) if isinstance(source, Sized) else None for source in self.sources]
        if len({count for count in counts if count is not None}) > 1:
            raise InvalidInputError(self._mismatch(counts))

    @property
    def count(self) -> int | None:
        """The number of items if the sources have a length, else ``None``."""
        return next((len(source) for source in self.sources if isinstance(source, Sized)), None)

    def rows(self) -> Iterator[Row]:
        for number, values in enumerate(zip_longest(*self.sources, fillvalue=_END)):
            self._check_same_length(values, number)
            yield self.row(number, *values)

    async def values(self) -> AsyncIterator[tuple[Any, ...]]:
        """The arguments of ``row`` for each item. The sources may be asynchronous."""
        sources = [source if isinstance(source, AsyncIterable) else _async(source) for source in self.sources]
        iterators = [aiter(source) for source in sources]
        number = 0
        while True:
            values = [await anext(iterator, _END) for iterator in iterators]
            if all(value is _END for value in values):
                return
            self._check_same_length(values, number)
            yield number, *values
            number += 1

    def blocks(self, values: tuple[Any, ...]) -> bool:
        """Whether ``row`` takes long for these arguments, because it reads a file or encodes pixels."""
        return self.names[0] == "images" and not isinstance(values[1], bytes)

    def _check_same_length(self, values: Sequence[Any], number: int) -> None:
        if any(value is _END for value in values):
            counts = [number if value is _END else f"more than {number}" for value in values]
            raise InvalidInputError(self._mismatch(counts))

    def _mismatch(self, counts: list[Any]) -> str:
        got = " and ".join(f"{count} {name}" for count, name in zip(counts, self.names, strict=True))
        return (
            f"expected one {self.names[-1].removesuffix('s')} for all {self.names[0]}, or one for each, got {got}. "
            f"Pass a single one, or as many {self.names[-1]} as {self.names[0]}"
        )


async def _async(source: Iterable[Any]) -> AsyncIterator[Any]:
    for item in source:
        yield item


def image_items(images: Any) -> Items:
    return Items((_many(images, _is_image, "images"),), lambda n, image: (_file(image, n),), ("images",))


def grounded_items(images: Any, product_type: Any) -> Items:
    """Images with one product type for all, or one for each."""
    files = _many(images, _is_image, "images")
    if isinstance(product_type, str):
        prompt = _utf8(product_type, "the product type")
        return Items((files,), lambda n, image: (_file(image, n), prompt), ("images",))
    return Items(
        (files, _many(product_type, _is_text, "product types")),
        lambda n, image, kind: (_file(image, n), _utf8(kind, f"product type {n}")),
        ("images", "product types"),
    )


def text_items(texts: Any) -> Items:
    return Items((_many(texts, _is_text, "texts"),), lambda n, text: (_utf8(text, f"text {n}"),), ("texts",))


def product_items(products: Any, images: Any) -> Items:
    """Products with an image for each. An image of ``None`` is sent as empty bytes."""
    mappings = _many(products, lambda value: isinstance(value, Mapping), "products")
    if images is None:
        return Items((mappings,), lambda n, product: (_json(product, n), b""), ("products",))
    return Items(
        (mappings, _many(images, _is_image, "images")),
        lambda n, product, image: (_json(product, n), b"" if image is None else _file(image, n)),
        ("products", "images"),
    )


def _many(given: Any, is_one: Callable[[Any], bool], what: str) -> Any:
    if is_one(given):
        return [given]
    if isinstance(given, Iterable | AsyncIterable):
        return given
    raise InvalidInputError(f"{what}: expected one item or an iterable of them, got {type(given).__name__}")


def _is_text(given: Any) -> bool:
    return isinstance(given, str)


def _is_image(given: Any) -> bool:
    if isinstance(given, np.ndarray):
        return given.ndim < 4
    return (
        isinstance(given, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(given, "read") or _pil(given)
    )


def _pil(given: Any) -> bool:
    """Whether ``given`` is a PIL image. PIL is not imported for this check."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(given).__mro__)


def _file(image: Any, n: int) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _encoded(_of_pixels(image, n))
    if _pil(image):
        return _encoded(image)
    if hasattr(image, "read"):
        content = image.read()
        if isinstance(content, bytes):
            return content
        raise InvalidInputError(f"image {n}: expected a file opened with mode 'rb', got a file in text mode")
    raise InvalidInputError(
        f"image {n}: expected an image file (bytes, path or open file), a PIL image or an array of uint8, "
        f"got {type(image).__name__}"
    )


def _of_pixels(pixels: npt.NDArray[Any], n: int) -> Any:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise InvalidInputError(
            f"image {n}: expected pixels as uint8 [H, W], [H, W, 3] or [H, W, 4], "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    return _pillow().fromarray(np.ascontiguousarray(pixels))


def _encoded(image: Any) -> bytes:
    """The image as PNG, which is lossless, after its EXIF rotation."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        upright = upright.convert("RGB")
    file = io.BytesIO()
    upright.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as exc:
        raise InvalidInputError("images: arrays are sent as PNG, which needs Pillow: `pip install pillow`") from exc
    return Image


def _json(product: Any, n: int) -> bytes:
    if not isinstance(product, Mapping):
        raise InvalidInputError(f"product {n}: expected a mapping, got {type(product).__name__}")
    try:
        return json.dumps(dict(product), ensure_ascii=False).encode()
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"product {n}: expected values that JSON can represent ({exc})") from exc


def _utf8(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"{what}: expected a str, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"{what}: expected text that UTF-8 can encode, got {text!r} ({exc.reason})") from exc
