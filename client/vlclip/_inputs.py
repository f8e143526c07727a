"""The arguments of a call as rows of bytes, which are read lazily, one item at a time."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Union, get_args

import numpy as np
import numpy.typing as npt

from vlclip._files import content_at, content_of, short
from vlclip._pictures import is_pil, png_of_array, png_of_image
from vlclip._wire import Row, Unreadable
from vlclip.errors import InvalidInputError, ItemError
from vlclip.results import Status

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Errors = Literal["status", "raise"]
"""Whether an image that is not decoded or read has a row with its status, or ends the call with an ItemError."""
Image = Union[bytes, bytearray, memoryview, str, os.PathLike[str], BinaryIO, npt.NDArray[np.uint8], "PILImage"]
"""An encoded file (JPEG, PNG, WebP…) as bytes, path or open file, which is read from its start if possible; or pixels,
as a PIL image or as uint8 [H, W], [H, W, 3] or [H, W, 4], which are sent as PNG."""
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
        return "images" in self.names and not isinstance(values[1 + self.names.index("images")], bytes)

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


def image_items(images: Any, errors: Errors) -> Items:
    _check(errors)
    return Items((_images(images),), lambda n, image: (_file(image, n, errors),), ("images",))


def grounded_items(images: Any, product_type: Any, errors: Errors) -> Items:
    """Images with one product type for all, or one for each."""
    _check(errors)
    files = _images(images)
    if isinstance(product_type, str):
        prompt = _utf8(product_type, "the product type")
        return Items((files,), lambda n, image: (_file(image, n, errors), prompt), ("images",))
    return Items(
        (files, _many(product_type, _is_text, "product types")),
        lambda n, image, kind: (_file(image, n, errors), _utf8(kind, f"product type {n}")),
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
        (mappings, _images(images)),
        lambda n, product, image: (_json(product, n), b"" if image is None else _content(image, f"image {n}")),
        ("products", "images"),
    )


def _check(errors: Any) -> None:
    if errors not in get_args(Errors):
        raise InvalidInputError(f'expected "status" or "raise", got {short(errors)}', argument="errors")


def _images(given: Any) -> Any:
    """The images. An array of objects or texts is a list of images, not the pixels of one."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUT" and given.ndim == 1:
        return given.tolist()
    return _many(given, _is_image, "images")


def _many(given: Any, is_one: Callable[[Any], bool], what: str) -> Any:
    if is_one(given):
        return [given]
    single = isinstance(given, str | bytes | bytearray | memoryview | Mapping)
    if isinstance(given, Iterable | AsyncIterable) and not single and getattr(given, "shape", None) != ():
        return given
    text = what != "images" and isinstance(given, bytes | bytearray)
    advice = "Decode it: value.decode()" if text else ""
    problem = f"{what}: expected one item or an iterable of them, got {type(given).__name__}"
    raise InvalidInputError(problem, advice=advice)


def _is_text(given: Any) -> bool:
    return isinstance(given, str)


def _is_image(given: Any) -> bool:
    if isinstance(given, np.ndarray):
        return given.dtype.kind in "biufc" and given.ndim < 4
    return (
        isinstance(given, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(given, "read") or is_pil(given)
    )


def _file(image: Any, n: int, errors: Errors) -> bytes:
    """The encoded file of an image. If it cannot be read: `Unreadable`, or an ItemError with ``errors="raise"``."""
    try:
        return _content(image, f"image {n}")
    except OSError as error:
        if errors == "status":
            return Unreadable()
        name = f"{short(image)}: " if isinstance(image, str | os.PathLike) else ""
        problem = f"image {n} is unreadable ({name}{error.strerror or error})"
        raise ItemError(problem, n, Status.UNREADABLE) from error


def _content(image: Any, what: str) -> bytes:
    """The encoded file of an image. Raises OSError if it cannot be read."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return content_at(image, what)
    if isinstance(image, np.ndarray):
        return png_of_array(image, what)
    if is_pil(image):
        return png_of_image(image, what)
    if hasattr(image, "read"):
        return content_of(image, what)
    raise InvalidInputError(
        f"{what}: expected an image file (bytes, path or open file), a PIL image or an array of uint8, "
        f"got {type(image).__name__}"
    )


def _json(product: Any, n: int) -> bytes:
    if not isinstance(product, Mapping):
        raise InvalidInputError(f"product {n}: expected a mapping, got {type(product).__name__}")
    try:
        return json.dumps(dict(product), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"product {n}: expected values that JSON can represent ({exc})") from exc


def _utf8(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"{what}: expected a str, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"{what}: expected text that UTF-8 can encode, got {text!r} ({exc.reason})") from exc
