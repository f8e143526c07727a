"""What callers may give, as rows of bytes: read one by one, as they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from itertools import zip_longest
from pathlib import Path

from vlclip._core import Row
from vlclip.errors import InvalidInputError

Image = bytes | bytearray | memoryview | str | os.PathLike[str]
"""An encoded file (JPEG, PNG, WebP…), or the path of one."""
Images = Image | Iterable[Image]
Texts = str | Iterable[str]

_BYTES = (bytes, bytearray, memoryview)
_PATH = (str, os.PathLike)
_END = object()


def image_rows(images: Images) -> Iterator[Row]:
    """One row (image,) for each image."""
    return ((_file(image, n),) for n, image in enumerate(_many(images, (*_BYTES, *_PATH), "images")))


def grounded_rows(images: Images, product_type: Texts) -> Iterator[Row]:
    """One row (image, product type) for each image; a single product type serves all of them."""
    files = _many(images, (*_BYTES, *_PATH), "images")
    if isinstance(product_type, str):
        prompt = _utf8(product_type, "the product type")
        return ((_file(image, n), prompt) for n, image in enumerate(files))
    types = _many(product_type, (str,), "product types")
    if isinstance(files, Sized) and isinstance(types, Sized) and len(files) != len(types):
        raise InvalidInputError(_mismatch(len(files), len(types)))
    return _zipped(files, types)


def text_rows(texts: Texts) -> Iterator[Row]:
    """One row (text,) for each text."""
    return ((_utf8(text, f"text {n}"),) for n, text in enumerate(_many(texts, (str,), "texts")))


def _zipped(files: Iterable[object], types: Iterable[object]) -> Iterator[Row]:
    for n, (image, product_type) in enumerate(zip_longest(files, types, fillvalue=_END)):
        if image is _END:
            raise InvalidInputError(_mismatch(n, f"more than {n}"))
        if product_type is _END:
            raise InvalidInputError(_mismatch(f"more than {n}", n))
        yield _file(image, n), _utf8(product_type, f"product type {n}")


def _mismatch(images: object, types: object) -> str:
    return (
        f"expected one product type for all images, or one for each; got {images} images and {types} product types. "
        "Pass a single str, or as many product types as images"
    )


def _many(given: object, single: tuple[type, ...], what: str) -> Iterable[object]:
    if isinstance(given, single):
        return [given]
    if isinstance(given, Iterable):
        return given
    raise InvalidInputError(f"{what}: expected one item or an iterable of them, got {type(given).__name__}")


def _file(image: object, n: int) -> bytes:
    if isinstance(image, _BYTES):
        return bytes(image)
    if isinstance(image, _PATH):
        return Path(image).read_bytes()
    raise InvalidInputError(
        f"image {n}: expected the bytes of an image file or its path, got {type(image).__name__}. "
        "Encode arrays first, as JPEG or PNG"
    )


def _utf8(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"{what}: expected a str, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"{what}: expected text that UTF-8 can encode, got {text!r} ({exc.reason})") from exc
