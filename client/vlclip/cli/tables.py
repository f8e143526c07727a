"""Tables of the command line: CSV and JSONL files with a photo, a text or a product in each row."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlclip.cli.exits import UsageError
from vlclip.cli.rows import Item

SUFFIXES = (".csv", ".tsv", ".jsonl")
MOST_LINES = 1000
"""Lines of a row of a CSV file. A quote that is not closed would otherwise hide the rest of the file."""

Record = dict[str, Any]


class Table:
    """The rows of a file, read lazily. A row that cannot be read is an item with a reason.

    needed   the columns that a CSV file must have; of alternatives ("text|title") one
    to_item  makes an item of the values of a row that is not empty; raises ValueError with a reason
    """

    def __init__(self, path: Path, needed: Iterable[str], to_item: Callable[[Record], Item]) -> None:
        self._path, self._to_item = path, to_item
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--table: expected a name that ends in {', '.join(SUFFIXES)}, got {path}")
        self._is_csv = path.suffix.lower() != ".jsonl"
        with self._open() as lines:
            first = next(lines, "")
        self._delimiter = max(",;\t", key=first.count)
        self._columns = self._parsed(first) if self._is_csv else []
        if self._is_csv and not all(set(one.split("|")) & {*self._columns} for one in needed):
            wanted = ", ".join(one.replace("|", " or ") for one in needed)
            raise UsageError(
                f"--table: expected {path} to have the columns {wanted}, got: {first.strip() or 'nothing'}"
            )
        if len({*self._columns}) < len(self._columns):
            raise UsageError(f"--table: expected {path} to have columns with different names, got: {first.strip()}")

    def count(self) -> int:
        return sum(1 for _ in self._records())

    def __iter__(self) -> Iterator[Item]:
        for number, record, reason in self._records():
            where = f"{self._path}:{number}"
            if not reason:
                try:
                    yield replace(self._to_item(record), where=where)
                    continue
                except ValueError as error:
                    reason = str(error)
            name, path, kind = (str(record[name]) if record.get(name) else None for name in ("id", "path", "type"))
            yield Item(where, name, path, type=kind, reason=reason)

    def _open(self) -> Any:
        # Bytes that are not UTF-8 are kept, so that they make their own row invalid.
        return self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _records(self) -> Iterator[tuple[int, Record, str]]:
        """The line, the values and the reason why there are none, of each row that is not blank."""
        with self._open() as lines:
            yield from self._of_csv(lines) if self._is_csv else self._of_jsonl(lines)

    def _of_jsonl(self, lines: Iterable[str]) -> Iterator[tuple[int, Record, str]]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, {}, f"expected a JSON object ({error})"
                continue
            if isinstance(record, dict):
                yield number, record, ""
            else:
                yield number, {}, f"expected a JSON object, got {line.strip()[:40]}"

    def _of_csv(self, lines: Iterator[str]) -> Iterator[tuple[int, Record, str]]:
        next(lines, None)
        number, ahead = 1, deque[str]()
        while line := ahead.popleft() if ahead else next(lines, ""):
            number += 1
            taken = [line]
            values, reason = self._values(line)
            while values is None and len(taken) < MOST_LINES:  # a value with line breaks
                if not (more := ahead.popleft() if ahead else next(lines, "")):
                    break
                taken.append(more)
                values, reason = self._values("".join(taken))
            record = dict(zip(self._columns, values or (), strict=False))
            if values is None or any("\n" in record.get(name, "") for name in ("id", "type", "path")):
                yield number, {}, reason or "a quote is not closed"
                ahead.extendleft(reversed(taken[1:]))
                continue
            if any(values):
                yield number, record, reason
            number += len(taken) - 1

    def _values(self, line: str) -> tuple[list[str] | None, str]:
        """The values of a row and what is wrong with them. ``None`` if a quote is not closed."""
        try:
            values = self._parsed(line)
        except csv.Error as error:
            return (None, "") if "unexpected end of data" in str(error) else ([line.strip()], str(error))
        wrong = any(values) and len(values) != len(self._columns)
        return values, f"expected {len(self._columns)} columns, got {len(values)}" if wrong else ""

    def _parsed(self, line: str) -> list[str]:
        csv.field_size_limit(1 << 24)
        rows = csv.reader(io.StringIO(line, newline=""), delimiter=self._delimiter, strict=True)
        return [value.strip() for value in next(rows, [])]


def text_of(record: Record, *names: str) -> str | None:
    """The first of the columns that has a value, as text. Raises ValueError for a value that is not text."""
    for name in names:
        value = record.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, bool | list | dict):
            raise ValueError(f"{name}: expected a text, got {json.dumps(value)[:40]}")
        return str(value)
    return None


def needed(record: Record, *names: str) -> str:
    """Like ``text_of``, for a row that must have one of the columns."""
    value = text_of(record, *names)
    if value is None:
        raise ValueError(f"{' or '.join(names)}: expected a value, got none")
    return value
