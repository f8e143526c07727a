"""Photos whose product types are known: a folder for each type, or a table."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import UsageError

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
COLUMNS = ("path", "type")


@dataclass(frozen=True)
class Labelled:
    """A photo, and the product types that it shows."""

    path: Path
    types: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A product type to look for in a photo, and whether the photo shows it."""

    path: Path
    product_type: str
    present: bool


def read_labelled(source: Path) -> list[Labelled]:
    """The photos of a folder with one subfolder for each product type, or of a CSV or JSONL table.

    A table has the columns ``path``, relative to the table, and ``type``. A photo that occurs more than once, by its
    bytes, is one photo that shows all of its types.

    Raises:
        UsageError: the source is neither, a photo has no type, or a file is missing.
    """
    if source.is_dir():
        rows = rows_of_folder(source)
    elif source.is_file():
        rows = rows_of_table(source)
    else:
        raise UsageError(f"there is no folder or file {source}")
    found: dict[str, Labelled] = {}
    for path, product_type in rows:
        if not product_type.strip():
            raise UsageError(f"{path} has no product type")
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            raise UsageError(f"{source} names {path}, which does not exist") from None
        first = found.get(digest, Labelled(path, ()))
        found[digest] = Labelled(first.path, tuple(dict.fromkeys([*first.types, product_type.strip()])))
    return list(found.values())


def rows_of_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    loose = [path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    if loose:
        raise UsageError(
            f"{folder} holds photos without a product type, such as {loose[0]}: "
            f"move them into one subfolder for each type, such as {folder / 'mug' / loose[0]}"
        )
    kinds = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not kinds:
        raise UsageError(f"{folder} is empty: expected one subfolder of photos for each product type, such as mug/")
    for kind in kinds:
        photos = sorted(path for path in kind.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not photos:
            raise UsageError(f"{kind} holds no photos: expected files ending in {', '.join(SUFFIXES)}")
        yield from ((path, kind.name) for path in photos)


def rows_of_table(table: Path) -> Iterator[tuple[Path, str]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except ValueError:
        raise UsageError(f"{table} is not a text in UTF-8: expected a folder, or a CSV or JSONL file") from None
    rows: Sequence[object]
    if table.suffix.lower() == ".csv":
        header, _, _ = text.partition("\n")
        rows = [*csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count))]
    elif table.suffix.lower() in (".jsonl", ".ndjson"):
        try:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UsageError(f"{table} is not JSONL, with one JSON object in each line: {error}") from None
    else:
        raise UsageError(f"{table} is neither a folder nor a file ending in .csv or .jsonl")
    for number, row in enumerate(rows, 1):
        values = [row.get(name) for name in COLUMNS] if isinstance(row, Mapping) else []
        path, product_type = values if len(values) == 2 else (None, None)
        if not isinstance(path, str) or not isinstance(product_type, str):
            got = ", ".join(map(str, row)) if isinstance(row, Mapping) else repr(row)
            raise UsageError(f"row {number} of {table} must have the texts {' and '.join(COLUMNS)}, got {got}")
        yield table.parent / path, product_type


def read_words(given: str) -> list[str]:
    """Product types separated by commas, or those of a file with one in each line."""
    text = Path(given).read_text(encoding="utf-8-sig") if Path(given).is_file() else given.replace(",", "\n")
    words = list(dict.fromkeys(word.strip() for word in text.splitlines() if word.strip()))
    if not words:
        raise UsageError(f"{given!r} names no product type: expected some, separated by commas, or a file of them")
    return words


def questions_of(photos: Sequence[Labelled], absent: Sequence[str], absent_per_photo: int) -> list[Question]:
    """Ask each photo for its own types, and for some that it does not show: types of other photos, and ``absent``.

    The choice is random, and the same every time.
    """
    rng = np.random.default_rng(0)
    pool = list(dict.fromkeys([*(kind for photo in photos for kind in photo.types), *absent]))
    questions = []
    for photo in photos:
        shown = {kind.casefold() for kind in photo.types}
        others = [kind for kind in pool if kind.casefold() not in shown]
        chosen = rng.permutation(len(others))[:absent_per_photo]
        questions += [Question(photo.path, kind, True) for kind in photo.types]
        questions += [Question(photo.path, others[index], False) for index in chosen]
    return questions
