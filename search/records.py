"""Products of a catalogue: read from CSV, JSONL, Parquet or a folder of photos, and validated row by row.

A row has these fields; every other field is an attribute of the product.

    id             unique in the catalogue
    product_type   what the detector looks for, such as "mug"; also named type
    title, description
    photos         one or more; also named photo, image, images or path. Each is a path relative to the catalogue, a
                   URL, a data URI or, in Parquet, bytes. In CSV, "|" separates several photos.
    attributes     an object of further attributes (JSONL and Parquet)

In a folder, each photo is a product. The name of its subfolder is its product type.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.photos import MAX_BYTES

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FORMATS = ".jsonl, .ndjson, .csv or .parquet"

_NAMES = {"type": "product_type", "photo": "photos", "image": "photos", "images": "photos", "path": "photos"}
_FIELDS = frozenset({"id", "product_type", "title", "description", "photos", "attributes"})

Value = bool | float | str | list[str]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r'^[^"\\]*$')]
MOST_ATTRIBUTES = 500


class Product(BaseModel):
    """One product of a shop."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True)

    id: str = Field(min_length=1, max_length=256)
    product_type: str = Field(default="", max_length=256)
    title: str = Field(default="", max_length=10_000)
    description: str = Field(default="", max_length=100_000)
    attributes: dict[Name, Value] = Field(default_factory=dict, max_length=MOST_ATTRIBUTES)
    photos: tuple[str | bytes, ...] = Field(min_length=1, max_length=100)


@dataclass(frozen=True)
class BadRow:
    """A row that is not a product, or a photo that cannot be read: where it is, such as ``shop.csv:3``, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class CatalogueError(ValueError):
    """The catalogue as a whole cannot be read."""


def read(path: Path) -> Iterator[Product | BadRow]:
    """Read a catalogue as a stream. A bad row costs only itself. Raises CatalogueError if nothing can be read."""
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise CatalogueError(f"there is no catalogue at {path}; expected a folder of photos, or a file in {FORMATS}")
    readers = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise CatalogueError(f"{path} is not a catalogue; expected a folder of photos, or a file in {FORMATS}")
    return _unique(path, readers[path.suffix.lower()](path))


def product_of(row: Mapping[str, Any]) -> Product:
    """The product of a row. Raises ValueError with a sentence for each wrong field."""
    found: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for key, value in row.items():
        if _is_missing(value):
            continue
        name = _NAMES.get(key, key)
        if name not in _FIELDS:
            attributes[key] = value
        elif name in found:
            raise ValueError(f"the row names its {name} twice, the second time as {key!r}")
        else:
            found[name] = value
    if isinstance(found.get("photos"), str | bytes):
        found["photos"] = [found["photos"]]
    further = found.pop("attributes", {})
    if not isinstance(further, Mapping):
        raise ValueError(f"attributes must be an object, not {type(further).__name__}")
    attributes.update({key: value for key, value in further.items() if not _is_missing(value)})
    try:
        return Product(attributes=attributes, **found)
    except ValidationError as error:
        raise ValueError("; ".join(sentence(dict(problem)) for problem in error.errors())) from None


def _is_missing(value: Any) -> bool:
    """Whether a field has no value: pandas writes NaN for those, and no price is infinite."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and not isfinite(value))


def sentence(problem: dict[str, Any]) -> str:
    """What is wrong with a field, from an error of pydantic."""
    field = ".".join(str(part) for part in problem["loc"][:2])
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "string_pattern_mismatch":
        return f"{field} must have a name without quotation marks and backslashes"
    return f"{field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _unique(path: Path, rows: Iterator[tuple[int, Product | str]]) -> Iterator[Product | BadRow]:
    """Report the second product of the same id as a bad row, and resolve paths of photos."""
    lines: dict[str, int] = {}
    for line, row in rows:
        if isinstance(row, str):
            yield BadRow(f"{path}:{line}", row)
        elif row.id in lines:
            yield BadRow(f"{path}:{line}", f"the id {row.id!r} is also on line {lines[row.id]}")
        else:
            lines[row.id] = line
            photos = tuple(_resolve(photo, path.parent) for photo in row.photos)
            yield row.model_copy(update={"photos": photos})


def _resolve(photo: str | bytes, folder: Path) -> str | bytes:
    if isinstance(photo, bytes) or photo.startswith(("http://", "https://", "data:")):
        return photo
    path = folder / photo
    if "\\" in photo and not path.exists():
        return str(folder / photo.replace("\\", "/"))  # a relative path that was written on Windows
    return str(path)


def _checked(row: Any) -> Product | str:
    if not isinstance(row, Mapping):
        return f"expected an object, got {type(row).__name__}"
    try:
        return product_of(row)
    except ValueError as error:
        return str(error)


def _read_jsonl(path: Path) -> Iterator[tuple[int, Product | str]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield number, "this line is not UTF-8; save the file as UTF-8"
            except (json.JSONDecodeError, RecursionError) as error:
                yield number, f"this line is not JSON ({error})"
            else:
                yield number, _checked(row)


def _read_csv(path: Path) -> Iterator[tuple[int, Product | str]]:
    """Rows of CSV. The separator is a comma, a semicolon or a tab, whichever the header has most of."""
    csv.field_size_limit(MAX_BYTES * 2)  # a photo can be a data URI
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        file.seek(0)
        separator = max(",;\t", key=header.count)
        rows = csv.DictReader(file, delimiter=separator)
        if "id" not in (rows.fieldnames or ()):
            raise CatalogueError(
                f"{path} has no column named id; its columns are {', '.join(rows.fieldnames or ()) or 'none'}"
            )
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield rows.line_num, f"this line is not CSV ({error})"
                continue
            if row is None:
                return
            if None in row:
                yield rows.line_num, f"expected {len(rows.fieldnames or ())} columns, got more"
                continue
            if _is_damaged(row):
                yield rows.line_num, "this line is not UTF-8; save the file as UTF-8"
                continue
            cells = {key: _typed(key, value, separator) for key, value in row.items() if value is not None}
            yield rows.line_num, _checked(cells)


def _is_damaged(row: Mapping[str, str | None]) -> bool:
    """Whether bytes of a row were not UTF-8."""
    try:
        "".join(value or "" for value in row.values()).encode()
    except UnicodeEncodeError:
        return True
    return False


def _typed(key: str, text: str, separator: str) -> Any:
    """The value of a CSV cell: photos are a list, and an attribute can be a number, true or false, or a list."""
    name = _NAMES.get(key, key)
    if name == "photos":
        return [part.strip() for part in text.split("|") if part.strip()]
    if name in _FIELDS:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "|" in text:
        return [part.strip() for part in text.split("|") if part.strip()]
    if separator == ";" and re.fullmatch(r"-?\d+,\d+", text):
        text = text.replace(",", ".")  # programs that separate by semicolons write decimals with a comma
    try:
        number = float(text)
    except ValueError:
        return text
    if not isfinite(number):
        return None
    # "00123" and "1e5" are article numbers rather than quantities.
    return number if f"{number:g}" == text or f"{number:.2f}" == text or f"{number:.1f}" == text else text


def _read_parquet(path: Path) -> Iterator[tuple[int, Product | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise CatalogueError(f"{path} is not a Parquet file ({error})") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, _checked(row)


def _read_folder(folder: Path) -> Iterator[Product | BadRow]:
    photos = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise CatalogueError(f"{folder} has no photos; expected files such as mug/1.jpg, where mug is the product type")
    for path in photos:
        name = path.relative_to(folder)
        kind = name.parts[0].replace("_", " ").replace("-", " ") if len(name.parts) > 1 else ""
        yield Product(id=name.as_posix(), product_type=kind, photos=(str(path),))
