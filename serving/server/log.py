"""Triton's log: one file, which every new start of Triton appends to.

A file that was asked for is kept whole. One that nobody asked for lies in /tmp, which may be memory, and is emptied
when it has grown large.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

from serving.errors import SetupError

LIMIT_BYTES = 16 << 20
# Complaints of a Triton without a GPU, which would hide the error that matters.
NOISE = re.compile("CudaDriverHelper|unable to create stream|Internal - failed to load all models")


class Log:
    """``limit`` is the size at which the file is emptied, in bytes; ``echo`` repeats what comes in on stderr."""

    def __init__(self, file: Path, *, limit: int | None = None, echo: bool = False):
        self.file = file
        self._limit = limit
        self._echo = echo
        self._begin = self._read = self._size()

    def open(self) -> BinaryIO:
        """For a Triton that is to start. Raises SetupError."""
        try:
            stream = self.file.open("ab")
        except OSError as error:
            raise SetupError(f"Triton's log cannot be written: {error}") from error
        self.follow()
        self.mark()
        return stream

    def mark(self) -> None:
        """Have :meth:`has` and :meth:`excerpt` look at what comes from here on."""
        self._begin = self._size()

    def has(self, words: str) -> bool:
        return words.encode() in self._read_from(self._begin)

    def follow(self) -> None:
        """Repeat what is new, and empty the file once it is too large. To be called often."""
        size = self._size()
        if size < self._read:
            # Emptied by others, as by logrotate's copytruncate.
            self._begin = self._read = 0
        if self._echo:
            news = self._read_from(self._read)
            sys.stderr.write(news.decode(errors="replace"))
            size = self._read + len(news)
        self._read = size
        if self._limit is not None and size > self._limit:
            os.truncate(self.file, 0)
            self._begin = self._read = 0

    def excerpt(self) -> str:
        """The errors with what follows each, else the last lines; tables left out."""
        log = self._read_from(max(self._begin, self._size() - LIMIT_BYTES)).decode(errors="replace").splitlines()
        lines = [line for line in log if not re.match("[|+]|$", line)]
        errors, in_error = [], False
        for line in lines:
            # A line of Triton's own starts with its level and the date, as in "E1123 05:42:05.121180 6048 file.cc:1]".
            if re.match(r"[IWE]\d{4} ", line):
                in_error = line.startswith("E")
            elif re.match(r"error|terminate|Signal \(", line):
                in_error = True
            if in_error and not NOISE.search(line):
                errors.append(line)
        return "\n".join(errors[-30:] or lines[-10:])

    def _size(self) -> int:
        """0 for a pipe too, such as /dev/stderr, of which nothing is read back."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def _read_from(self, offset: int) -> bytes:
        if self._size() <= offset:
            return b""
        with self.file.open("rb") as stream:
            stream.seek(offset)
            return stream.read()
