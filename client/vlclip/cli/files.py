"""The files of ``--out``: embeddings as .npy, and all columns as .npz, .jsonl or .parquet.

They are written from the rows of a finished run, one at a time. The rename at the end leaves no incomplete file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlclip.cli.exits import UsageError
from vlclip.cli.rows import Column

ROWS_OF_A_GROUP = 4096
"""Rows of a row group of Parquet: the most that are in memory."""


@dataclass(frozen=True)
class Content:
    """What a file holds: its rows, which can be read several times, and their columns."""

    rows: Callable[[], Iterator[dict[str, Any]]]
    columns: dict[str, Column]
    dim: int
    """The size of the embeddings."""
    count: int
    about: dict[str, Any]
    """How the rows were made."""


def checked_out(out: Path | None) -> Path | None:
    """Returns ``out``. Raises UsageError if nothing can be saved there."""
    if out is None:
        return None
    if out.suffix not in WRITERS:
        *others, last = WRITERS
        raise UsageError(f"--out: expected a name that ends in {', '.join(others)} or {last}, got {out}")
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}")
    if out.is_dir():
        raise UsageError(f"--out: {out} is a folder, choose another name")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"--out: {out} needs pyarrow: pip install pyarrow")
    return out


def save(out: Path, content: Content) -> None:
    """Writes the file, or replaces it."""
    unfinished = Path(f"{out}.partial.tmp")
    with unfinished.open("wb") as file:
        WRITERS[out.suffix](file, content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, out)


def _npy(file: BinaryIO, content: Content) -> None:
    column = content.columns["embedding"]
    _write_header(file, _dtype(column, content.dim, 0), content.count)
    for row in content.rows():
        file.write(_value(row.get("embedding"), _dtype(column, content.dim, 0)).tobytes())


def _npz(file: BinaryIO, content: Content) -> None:
    """Writes each column to a file of its own first, since the columns of an archive are one after the other."""
    widths = dict.fromkeys(content.columns, 1)
    for row in content.rows():
        for name, value in row.items():
            widths[name] = max(widths[name], len(value) if isinstance(value, str) else 1)
    dtypes = {name: _dtype(column, content.dim, widths[name]) for name, column in content.columns.items()}
    with ExitStack() as stack, zipfile.ZipFile(file, "w") as archive:
        folder = Path(file.name).parent
        files = {name: stack.enter_context(tempfile.TemporaryFile(dir=folder)) for name in dtypes}
        for row in content.rows():
            for name, dtype in dtypes.items():
                files[name].write(_value(row.get(name), dtype).tobytes())
        for name, dtype in dtypes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                _write_header(entry, dtype, content.count)
                files[name].seek(0)
                shutil.copyfileobj(files[name], entry)


def _dtype(column: Column, dim: int, width: int) -> np.dtype[Any]:
    if column.dtype is object:
        return np.dtype(f"U{width}")
    size = dim if column.size == -1 else column.size
    return np.dtype((column.dtype, (size,))) if column.size else np.dtype(column.dtype)


def _value(value: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """The value as an array; zeros, or an empty text, for a row without a value."""
    return np.zeros(dtype.shape, dtype.base) if value is None else np.array(value, dtype.base)


def _write_header(file: Any, dtype: np.dtype[Any], count: int) -> None:
    description = {"descr": dtype.base.str, "fortran_order": False, "shape": (count, *dtype.shape)}
    np.lib.format.write_array_header_2_0(file, description)


def _jsonl(file: BinaryIO, content: Content) -> None:
    for row in content.rows():
        file.write(f"{json.dumps(row)}\n".encode())


def _parquet(file: BinaryIO, content: Content) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def kind(column: Column) -> Any:
        if column.dtype is object:
            return pa.string()
        value = pa.from_numpy_dtype(column.dtype)
        return pa.list_(value, content.dim if column.size == -1 else column.size) if column.size else value

    about = {"vlclip": json.dumps(content.about)}
    schema = pa.schema([(name, kind(column)) for name, column in content.columns.items()], about)
    rows = map(_arrow, content.rows())
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_OF_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _arrow(row: dict[str, Any]) -> dict[str, Any]:
    """The row with texts that UTF-8 can encode, since names of files may contain any bytes, and with small arrays."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode()
        return np.array(value, np.float32) if isinstance(value, list) else value

    return {name: plain(value) for name, value in row.items()}


WRITERS: dict[str, Callable[[BinaryIO, Content], None]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
"""The writer of each kind of file."""
