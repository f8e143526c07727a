"""Triton's log, to which every start of Triton appends, and the server's own reports.

A log file that the user named is kept whole. The default one lies in /tmp, which may be memory, so it is emptied when
it becomes large.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from serving.errors import SetupError

LIMIT_BYTES = 16 << 20
RECENT_SECONDS = 10.0
"""What was written in this time, or in twice this time, belongs to what happened last."""
# Errors of every Triton without a GPU, which would hide the one that matters.
NOISE = re.compile("CudaDriverHelper|unable to create stream|Internal - failed to load all models")


class Log:
    """``limit`` is the size in bytes at which the file is emptied. ``echo`` repeats new lines on stderr."""

    def __init__(
        self,
        file: Path,
        *,
        limit: int | None = None,
        echo: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.file = file
        self._limit = limit
        self._echo = echo
        self._clock = clock
        self._begin = self._read = self._recent = self._next_recent = self._size()
        self._moved_at = clock()

    def open(self) -> BinaryIO:
        """The file, for a Triton that starts. Raises SetupError."""
        try:
            stream = self.file.open("ab")
        except OSError as error:
            raise SetupError(f"Triton's log cannot be written: {error}") from error
        self.follow()
        self.mark()
        return stream

    def mark(self) -> None:
        """Let :meth:`has` and :meth:`excerpt` ignore what was written so far."""
        self._begin = self._size()

    def has(self, words: str) -> bool:
        return words.encode() in self._read_from(self._begin)

    def follow(self) -> None:
        """Repeat what is new, and empty the file if it is too large. Call this often."""
        size = self._size()
        if size < self._read:
            # Another program emptied it, such as logrotate with copytruncate.
            self._begin_again()
        if self._echo:
            new = self._read_from(self._read)
            with contextlib.suppress(OSError):
                sys.stderr.write(new.decode(errors="replace"))
            size = self._read + len(new)
        self._read = size
        if self._limit is not None and size > self._limit:
            os.truncate(self.file, 0)
            self._begin_again()
        if self._clock() - self._moved_at >= RECENT_SECONDS:
            self._recent, self._next_recent, self._moved_at = self._next_recent, self._read, self._clock()

    def excerpt(self, *, recent: bool = False) -> str:
        """The errors, each with the lines that follow it; the last lines if there is no error. Tables are left out.

        With ``recent``, only errors of the last seconds count.
        """
        begin = max(self._begin, self._size() - LIMIT_BYTES)
        errors = find_errors(self._lines_from(max(begin, self._recent) if recent else begin))
        return "\n".join(errors[-30:] or self._lines_from(begin)[-10:])

    def _lines_from(self, offset: int) -> list[str]:
        log = self._read_from(offset).decode(errors="replace").splitlines()
        return [line for line in log if not re.match("[|+]|$", line)]

    def _begin_again(self) -> None:
        self._begin = self._read = self._recent = self._next_recent = 0

    def _size(self) -> int:
        """0 for a pipe, such as /dev/stderr, which cannot be read back."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def _read_from(self, offset: int) -> bytes:
        if self._size() <= offset:
            return b""
        with self.file.open("rb") as stream:
            stream.seek(offset)
            return stream.read()


def find_errors(lines: Sequence[str]) -> list[str]:
    """The lines of a log that report an error, each with the lines that follow it."""
    errors, in_error = [], False
    for line in lines:
        # Triton's own lines start with a level and the date, as in "E1123 05:42:05.121180 6048 file.cc:1]".
        if re.match(r"[IWE]\d{4} ", line):
            in_error = line.startswith("E")
        elif re.match(r"error|terminate|Signal \(", line):
            in_error = True
        if in_error and not NOISE.search(line):
            errors.append(line)
    return errors


def report(message: str) -> None:
    """Print a message of the server on stderr, with the time."""
    with contextlib.suppress(OSError):  # Nobody reads stderr any more. The server goes on.
        print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
