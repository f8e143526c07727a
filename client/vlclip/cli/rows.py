"""The output of the command line: rows as a table or as JSON, as they arrive, and embeddings in a file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vlclip.results import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

UNREADABLE = -1
"""A status in addition to those of `Status`: the file could not be read, and was not sent."""

PIPED_WIDTH = 200
"""Columns of a table that is not printed on a terminal; wide, so that names are not folded."""

WIDTHS = {"status": 12, "score": 5, "box": 19, "similarity": 10, "embedding": 25}
NUMBERS = ("score", "box", "similarity")


class UsageError(Exception):
    """An argument of the command line is invalid."""


@dataclass
class Row:
    """The result of one photo or text. The names are those of the fields of results."""

    file: str | None = None
    text: str | None = None
    status: int | None = None
    reason: str = ""
    """The reason why the file could not be read."""
    score: float | None = None
    box_xyxy: np.ndarray | None = None
    similarity: float | None = None
    embedding: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.text or "" if self.file is None else self.file

    @property
    def decoded(self) -> bool:
        return self.status in (None, Status.GROUNDED, Status.WHOLE_IMAGE)

    @property
    def state(self) -> str:
        if self.status is None:
            return ""
        return "unreadable" if self.status == UNREADABLE else Status(self.status).name.lower()

    def to_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        values: dict[str, Any] = {"text": self.text} if self.file is None else {"file": self.file, "status": self.state}
        if self.reason:
            values["reason"] = self.reason
        for name, value in (
            ("score", self.score),
            ("box_xyxy", self.box_xyxy),
            ("similarity", self.similarity),
            ("embedding", self.embedding),
        ):
            if value is not None and self.decoded:
                # Nine significant digits identify a float32.
                values[name] = [float(f"{x:.9g}") for x in value] if isinstance(value, np.ndarray) else float(value)
        return values

    def cells(self) -> dict[str, str]:
        """The text of each column of a table; empty for fields without a value."""
        shown = self if self.decoded else Row()
        return {
            "name": f"{self.name}: {self.reason}" if self.reason else self.name,
            "status": self.state.replace("_", " "),
            "score": "" if shown.score is None else f"{shown.score:.2f}",
            "box": "" if shown.box_xyxy is None else " ".join(f"{x:.0f}" for x in shown.box_xyxy),
            "similarity": "" if shown.similarity is None else f"{shown.similarity:.3f}",
            "embedding": "" if shown.embedding is None else " ".join(f"{x:+.3f}" for x in shown.embedding[:3]) + " …",
        }


class Output:
    """Writes rows. On a terminal, a progress bar on stderr shows how many of ``count()`` rows have arrived."""

    def __init__(self, as_json: bool, count: Callable[[], int] | None, out: Path | None = None) -> None:
        self._json, self._count, self._out = as_json, count, out
        self._open = ExitStack()
        self._console = _console()
        self._table: _Table | None = None
        self._bar: Progress | None = None
        self._rows: list[Row] | None = None
        self._states: Counter[str] = Counter()

    def __enter__(self) -> Output:
        if self._out:
            self._rows = self._open.enter_context(_saving(self._out))
        if sys.stderr.isatty():
            self._bar = self._open.enter_context(_bar())
            self._bar.add_task("", total=self._count() if self._count else None)
            if sys.stdout.isatty():
                # One console writes to the terminal, so that the bar does not overwrite rows.
                self._console = self._bar.console
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind and self._rows and (saved := _summary(self._rows)):
            print(f"vlclip: {self._out} has the results before the failure: {saved}", file=sys.stderr)

    def write(self, rows: Sequence[Row]) -> None:
        # Keep the rows first, so that a row that was printed is in the file, even after Ctrl-C.
        if self._rows is not None:
            self._rows += rows
        if self._json:
            for row in rows:
                self._console.out(json.dumps(row.to_json()), highlight=False)
        else:
            self._table = self._table or _Table(self._console, rows)
            self._table.print(rows)
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], len(rows))
        self._states.update(row.state for row in rows)

    def report(self, things: str, also: str = "") -> int:
        """Prints the number of rows by status on stderr. Returns the number of photos that were not decoded."""
        failed = sum(n for state, n in self._states.items() if state not in ("", "grounded", "whole_image"))
        counts = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in self._states.items() if state)
        if failed or not self._json:
            summary = f"{self._states.total()} {things}" + (f": {counts}" if counts else "")
            saved = "" if self._rows is None else f"{self._out}: {_summary(self._rows) or 'no embeddings'}"
            print("; ".join(filter(None, (summary, saved, also))), file=sys.stderr)
        return failed


def print_list(as_json: bool, objects: Sequence[Any], titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Prints a short table, or its objects as JSON."""
    from rich.table import Table

    console = _console()
    if as_json:
        for one in objects:
            console.out(json.dumps(one), highlight=False)
        return
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for line in cells:
        table.add_row(*map(_plain, line))
    console.print(table)


class _Table:
    """A table that is printed in parts. Its first rows decide which columns it has, and their widths."""

    def __init__(self, console: Console, first: Sequence[Row]) -> None:
        self._console = console
        self._title = "text" if first[0].file is None else "file"
        cells = [row.cells() for row in first]
        self._columns = {name: width for name, width in WIDTHS.items() if any(line[name] for line in cells)}
        available = console.width - sum(width + 2 for width in self._columns.values())
        self._name_width = max(16, min(available, max(len(line["name"]) for line in cells)))
        self._has_header = False

    def print(self, rows: Sequence[Row]) -> None:
        from rich.table import Table

        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=not self._has_header, header_style="bold"
        )
        table.add_column(self._title, width=self._name_width, overflow="fold")
        for name, width in self._columns.items():
            table.add_column(name, width=width, justify="right" if name in NUMBERS else "left", no_wrap=True)
        for row in rows:
            cells = row.cells()
            texts = [_plain(cells[name]) for name in ("name", *self._columns)]
            table.add_row(*texts, style=None if row.decoded else "red")
        self._console.print(table)
        self._has_header = True


def _plain(text: str) -> Text:
    """The text without rich's markup. Names of files may contain bytes that are not UTF-8."""
    from rich.text import Text

    return Text(text.encode("utf-8", "replace").decode())


def _console() -> Console:
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError, for which rich would exit with code 1

    return Stdout(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def checked_out(out: Path | None) -> Path | None:
    """Returns ``out``. Raises UsageError if no embeddings can be saved there."""
    if out and out.suffix not in (".npy", ".npz"):
        raise UsageError(f"--out: expected a name that ends in .npy or .npz, got {out}")
    if out and not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}")
    return out


@contextmanager
def _saving(out: Path) -> Iterator[list[Row]]:
    """Yields a list. Saves its rows to ``out`` at the end, also after an error, if any of them has an embedding."""
    rows: list[Row] = []
    # The folder shows at once whether the file can be written. The rename leaves no incomplete file.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        try:
            yield rows
        finally:
            if columns := _columns(rows):
                complete = Path(folder, out.name)
                if out.suffix == ".npy":
                    np.save(complete, columns["embedding"])
                else:
                    _save_npz(complete, columns)
                os.replace(complete, out)


def _save_npz(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Like ``np.savez``, which cannot save an array with the name ``file``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, column)


def _columns(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """An array for each field of the first row with an embedding, with zeros for rows without a value."""
    whole = next((row for row in rows if row.embedding is not None), None)
    if whole is None:
        return {}
    columns = {"text" if whole.file is None else "file": np.array([row.name for row in rows])}
    for name in ("embedding", "status", "score", "box_xyxy"):
        if (like := getattr(whole, name)) is not None:
            zeros = np.zeros_like(like)
            values = [getattr(row, name) for row in rows]
            columns[name] = np.array([zeros if value is None else value for value in values], zeros.dtype)
    return columns


def _summary(rows: Sequence[Row]) -> str:
    """The shape of the embeddings that are saved. Empty if there are none."""
    embeddings = [row.embedding for row in rows if row.embedding is not None]
    return f"embeddings {[len(rows), *embeddings[0].shape]}" if embeddings else ""
