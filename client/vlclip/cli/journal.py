"""The rows of an unfinished ``--out``: a run that was interrupted continues after them.

``x.parquet.partial`` has a line that describes the run, and then a line for each row, in the order of the input: the
key of its item, and the row. A run that is killed leaves at most an incomplete last line, which is cut off.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlclip.cli.exits import UsageError
from vlclip.cli.rows import Item, Row

ADVICE = "Delete it to start again, or choose another --out"


class Journal:
    """The rows of ``out`` so far, in a file beside it, which one process at a time may have open.

    run  the options that decide what the rows say
    """

    def __init__(self, out: Path, run: dict[str, Any]) -> None:
        self.path = Path(f"{out}.partial")
        self.count = 0
        self._resumed = False
        self._header = f"{json.dumps(run)}\n".encode()
        self._file = self.path.open("a+b")
        with suppress(ImportError):
            self._lock()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """After an error the rows stay, if there are any. Without an error they are in ``out``."""
        if self._resumed and (kind is None or not self.count):
            self.path.unlink(missing_ok=True)
        elif self._resumed:
            print(f"vlclip: {self.path} has {self.count} rows. Run the same command again to continue", file=sys.stderr)
        self._file.close()

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            busy = os.fstat(self._file.fileno()).st_nlink == 0  # the other process has just finished
        except BlockingIOError:
            busy = True
        if busy:
            self._file.close()
            raise UsageError(f"{self.path} is in use: another vlclip writes it. Wait for it, or choose another --out")

    def resume(self, items: Iterable[Item], statuses: Counter[str]) -> Iterator[Item]:
        """The items that have no row yet. Counts the statuses of the rows.

        Raises UsageError if the rows are not those of the first items.
        """
        self._file.seek(0)
        begin = self._file.read(len(self._header))
        if not self._header.startswith(begin):
            raise UsageError(f"{self.path} is of a run with other options. {ADVICE}")
        if begin != self._header:
            self._file.truncate(0)
            self._file.write(self._header)
        remaining, end = iter(items), len(self._header)
        for key, row in self._lines():
            item = next(remaining, None)
            if item is None or item.key != key:
                got = "nothing" if item is None else f'"{item.name}"'
                raise UsageError(f"{self.path} is of other input: its row {self.count + 1} is not {got}. {ADVICE}")
            statuses[row.get("status", "")] += 1
            self.count += 1
            end = self._file.tell()
        self._file.truncate(end)
        self._resumed = True
        return remaining

    def append(self, rows: Sequence[Row], columns: Iterable[str]) -> None:
        lines = [json.dumps([row.item.key, row.to_json(columns)]) for row in rows]
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        self.count += len(rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        return (row for _, row in self._lines())

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The key and the row of each line, up to the first line that is not complete."""
        self._file.seek(len(self._header))
        while (line := self._file.readline()).endswith(b"\n"):
            try:
                key, row = json.loads(line)
            except ValueError:
                return
            yield key, row
