"""What the command line prints: rows as a table or as JSON, as they arrive, a progress bar, and problems."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlclip.cli.rows import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

PIPED_WIDTH = 200
"""Columns of a table that is not printed on a terminal; wide, so that names are not folded."""

WIDTHS = {
    "status": 12,
    "score": 5,
    "box_xyxy": 19,
    "similarity": 10,
    "rounds": 6,
    "prompts": 12,
    "truncated": 9,
    "text": 60,
    "embedding": 25,
}
TITLES = {"box_xyxy": "box"}
NUMBERS = ("score", "box_xyxy", "similarity", "rounds")


class Screen:
    """Prints rows. On a terminal, a progress bar on stderr shows how many of ``count()`` rows have arrived.

    form   "table", "json", or "problems", which prints only the rows that failed, on stderr
    """

    def __init__(self, form: str, columns: Sequence[str], count: Callable[[], int | None], done: int = 0) -> None:
        self._form, self._columns, self._count, self._done = form, columns, count, done
        self._open = ExitStack()
        self._console = console()
        self._table: _Table | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Screen:
        if sys.stderr.isatty():
            self._bar = self._open.enter_context(_bar())
            self._bar.add_task("", total=self._count(), completed=self._done)
            if sys.stdout.isatty():
                # One console writes to the terminal, so that the bar does not overwrite rows.
                self._console = self._bar.console
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, rows: Sequence[Row]) -> None:
        if self._form == "json":
            for row in rows:
                self._console.out(json.dumps(row.to_json(self._columns)), highlight=False)
        elif self._form == "table":
            self._table = self._table or _Table(self._console, rows)
            self._table.print(rows)
        else:
            for row in rows:
                if row.failed:
                    self._print_problem(f"vlclip: {row.problem}")
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], len(rows))

    def _print_problem(self, line: str) -> None:
        if self._bar:
            self._bar.console.out(line, highlight=False)
        else:
            print(line.encode("utf-8", "replace").decode(), file=sys.stderr)


def print_list(as_json: bool, objects: Sequence[Any], titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Prints a short table, or its objects as JSON."""
    from rich.table import Table

    stdout = console()
    if as_json:
        for one in objects:
            stdout.out(json.dumps(one), highlight=False)
        return
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for line in cells:
        table.add_row(*map(_plain, line))
    stdout.print(table)


class _Table:
    """A table that is printed in parts. Its first rows decide which columns it has, and their widths."""

    def __init__(self, console: Console, first: Sequence[Row]) -> None:
        self._console = console
        self._title = _title(first[0])
        cells = [_cells(row) for row in first]
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
            justify = "right" if name in NUMBERS else "left"
            overflow, no_wrap = ("fold", False) if name == "text" else ("ellipsis", True)
            table.add_column(
                TITLES.get(name, name),
                width=width,
                justify=justify,  # type: ignore[arg-type]
                overflow=overflow,  # type: ignore[arg-type]
                no_wrap=no_wrap,
            )
        for row in rows:
            cells = _cells(row)
            texts = [_plain(cells[name]) for name in ("name", *self._columns)]
            table.add_row(*texts, style="red" if row.failed else None)
        self._console.print(table)
        self._has_header = True


def _title(row: Row) -> str:
    if row.item.product is not None:
        return "product"
    return "text" if row.item.path is None else "file"


FORMATS: dict[str, Callable[[Any], str]] = {
    "score": lambda score: f"{score:.2f}",
    "similarity": lambda similarity: f"{similarity:.3f}",
    "box_xyxy": lambda box: " ".join(f"{x:.0f}" for x in box),
    "truncated": lambda truncated: "yes" if truncated else "",
    "embedding": lambda embedding: " ".join(f"{x:+.3f}" for x in embedding[:3]) + " …",
}


def _cells(row: Row) -> dict[str, str]:
    """The text of each column of a table; empty for fields without a value."""
    cells = {name: FORMATS.get(name, str)(row.values[name]) if name in row.values else "" for name in WIDTHS}
    if cells["text"]:
        cells["embedding"] = ""  # the text says more
    name = row.problem if row.reason else row.item.name
    return {**cells, "name": name, "status": (row.status or "").replace("_", " ")}


def _plain(text: str) -> Text:
    """The text without rich's markup. Names of files may contain bytes that are not UTF-8."""
    from rich.text import Text

    return Text(text.encode("utf-8", "replace").decode())


def console() -> Console:
    """The console of stdout."""
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
