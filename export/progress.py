"""What an export tells while it is at work.

A line that ends in … says what is being done now. On a terminal it counts the seconds until the next line takes its
place; in a file or a pipe it stays, with the seconds that it took.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO

TICK_SECONDS = 0.5


class Progress:
    """Prints lines; a context, which ends the last of them whatever happens.

    with Progress() as say:
        say("detect: tracing …")
        say("detect is done")
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._is_live = self._stream.isatty()
        self._current: str | None = None
        self._begin = 0.0
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, line: str) -> None:
        self._end()
        if line.endswith("…"):
            self._start(line)
        else:
            self._write(f"{line}\n")

    def _start(self, line: str) -> None:
        self._current, self._begin = line, time.monotonic()
        if self._is_live:
            self._ended.clear()
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        else:
            self._write(line)

    def _end(self) -> None:
        if self._current is None:
            return
        self._current = None
        if self._ticker:
            self._ended.set()
            self._ticker.join()
            self._ticker = None
            self._write("\r\x1b[K")
        else:
            self._write(f" {time.monotonic() - self._begin:.1f} s\n")

    def _tick(self) -> None:
        line = self._current
        while True:
            told = f"{line} {time.monotonic() - self._begin:.0f} s"
            # A line that wraps could not be taken back.
            self._write("\r\x1b[K" + told[: shutil.get_terminal_size().columns - 1])
            if self._ended.wait(TICK_SECONDS):
                return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
