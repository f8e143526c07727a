"""The input and the output of the command line, row by row."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlclip._wire import ENRICHED_TEXT, GROUND, PRODUCT_IMAGE, PRODUCT_TEXT, WHOLE_IMAGE, Pipeline
from vlclip.results import Result, Status

UNREADABLE = "unreadable"
"""A status in addition to those of the server: the row or its file could not be read, and was not sent."""
IMAGE_STATUSES = tuple(status.name.lower() for status in Status)
ENRICHED_STATUSES = ("written", "composed", "unanswered", "refused", "not_a_product")
"""The names of ``STATUS`` of ``enriched_text``, in the order of docs/contract.md."""
FAILED = {UNREADABLE, "not_an_image", "too_large", "not_a_product"}

INPUTS = {
    PRODUCT_IMAGE.name: ("id", "path", "type"),
    GROUND.name: ("id", "path", "type"),
    WHOLE_IMAGE.name: ("id", "path"),
    PRODUCT_TEXT.name: ("id", "text"),
    ENRICHED_TEXT.name: ("id", "path", "type"),
}
"""What each pipeline's rows repeat of their input."""


@dataclass(frozen=True)
class Item:
    """One row of the input."""

    where: str = ""
    """The file and the line of a table."""
    id: str | None = None
    path: str | None = None
    """As the user wrote it."""
    file: Path | None = None
    type: str | None = None
    text: str | None = None
    product: dict[str, Any] | None = None
    reason: str = ""
    """Why the row cannot be sent."""

    @property
    def name(self) -> str:
        product = self.product or {}
        names = (product.get("title"), product.get("product_type"), self.path, self.text, self.id)
        return next((str(name) for name in names if name is not None), self.where)

    @property
    def key(self) -> str:
        """A digest of everything that is asked about this row, but for the content of its file."""
        asked = json.dumps([self.id, self.path, self.type, self.text, self.product])
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def checked(self) -> Item:
        """The item, with a reason if UTF-8 cannot encode its texts."""
        try:
            json.dumps([self.id, self.type, self.text, self.product], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return replace(self, reason="expected text in UTF-8")
        return self


@dataclass(frozen=True)
class Column:
    """A column of the output: ``size`` is 0 for single values, -1 for embeddings, whose size the server decides."""

    dtype: type[np.generic] | type[object]
    size: int = 0


TEXT = Column(object)


def columns_of(pipeline: Pipeline[Any], *, similarity: bool = False) -> dict[str, Column]:
    """The columns of a pipeline's rows, in order."""
    columns = dict.fromkeys((*INPUTS[pipeline.name], "status", "reason"), TEXT)
    if similarity:
        columns["similarity"] = Column(np.float32)
    for name, output in sorted(pipeline.outputs.items(), key=lambda one: one[0] == "embedding"):
        if name != "status":
            columns[name] = Column(output.dtype, *output.shape)
    return columns


@dataclass
class Row:
    """The result of one item. ``values`` has the names of the fields of results."""

    item: Item
    status: str | None = None
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.status in FAILED

    @property
    def problem(self) -> str:
        """One line about a row that failed: its place, its name and the reason."""
        reason = self.reason or (self.status or "").replace("_", " ")
        name = "" if self.item.name == self.item.where else self.item.name
        return ": ".join(filter(None, (self.item.where, name, reason)))

    def to_json(self, columns: Iterable[str]) -> dict[str, Any]:
        """The columns that have a value."""
        given = {"id": self.item.id, "path": self.item.path, "type": self.item.type, "text": self.item.text}
        reason = ": ".join(filter(None, (self.item.where, self.reason))) if self.reason else None
        known = {**given, "status": self.status, "reason": reason, **self.values}
        return {name: _plain(known[name]) for name in columns if known.get(name) is not None}


def _plain(value: Any) -> Any:
    """The value as JSON has it. Nine significant digits identify a float32."""
    if isinstance(value, np.ndarray):
        return [float(f"{x:.9g}") for x in value]
    return value.item() if isinstance(value, np.generic) else value


class Feed:
    """Hands over the items that can be sent, and keeps each item until its result arrives."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items
        self._waiting: deque[Item] = deque()

    def columns(self, first: Callable[[Item, bytes], Any], second: Callable[[Item, bytes], Any]) -> tuple[Any, Any]:
        """Two iterators over the items and the contents of their files, which the client reads alternately."""
        later: deque[Any] = deque()

        def firsts() -> Iterator[Any]:
            for item, content in self._sent():
                later.append(second(item, content))
                yield first(item, content)

        def seconds() -> Iterator[Any]:
            while later:
                yield later.popleft()

        return firsts(), seconds()

    def column(self, value: Callable[[Item, bytes], Any]) -> Iterator[Any]:
        return (value(item, content) for item, content in self._sent())

    def _sent(self) -> Iterator[tuple[Item, bytes]]:
        for item in self._items:
            content, reason = b"", item.reason
            if not reason and item.file is not None:
                try:
                    content = item.file.read_bytes()
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or str(error)
            self._waiting.append(replace(item, reason=reason))
            if not reason:
                yield item, content

    def rows(self, parts: Iterable[Result], statuses: tuple[str, ...] = IMAGE_STATUSES) -> Iterator[list[Row]]:
        """The rows of each part, with a row for each item that was not sent, in the order of the items."""
        for part in parts:
            rows = self._unsent()
            results = {field.name: getattr(part, field.name) for field in fields(part)}
            for i in range(len(part)):
                rows.append(
                    _row(self._waiting.popleft(), {name: column[i] for name, column in results.items()}, statuses)
                )
                rows += self._unsent()
            yield rows
        if rows := self._unsent():
            yield rows

    def _unsent(self) -> list[Row]:
        """The items before the next one that was sent."""
        rows = []
        while self._waiting and self._waiting[0].reason:
            item = self._waiting.popleft()
            rows.append(Row(item, UNREADABLE, item.reason))
        return rows


def _row(item: Item, values: dict[str, Any], statuses: tuple[str, ...]) -> Row:
    if "status" not in values:
        return Row(item, values=values)
    number = int(values.pop("status"))
    row = Row(item, statuses[number] if number < len(statuses) else str(number), values=values)
    if row.failed:  # what the server returns for such a row says nothing about a product
        row.values = {name: value for name, value in values.items() if isinstance(value, str) and name != "text"}
    return row
