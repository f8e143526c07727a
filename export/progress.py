"""Progress lines of an export.

A line that ends in … names the step that is running. On a terminal it shows the seconds until the next line replaces
it. In a file or a pipe it stays, followed by the seconds that the step took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Live
from rich.progress import TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5.0
Say = Callable[[str], None]
"""Takes one progress line."""


class Progress:
    """Prints progress lines. As a context it ends the last line in any case.

    with Progress() as say:
        say("detect: tracing …")
        say("detect is done")
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._begin: float | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, line: str) -> None:
        self._end()
        if not line.endswith("…"):
            self._console.print(line)
        elif self._console.is_interactive:
            columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._live = Live(*columns, console=self._console, transient=True)
            self._live.add_task(line, total=None)
            self._live.start()
        else:
            self._begin = time.monotonic()
            self._console.print(line, end="")
            self._console.file.flush()

    def _end(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        elif self._begin is not None:
            self._console.print(f" {time.monotonic() - self._begin:.1f} s")
            self._begin = None


def throttled(say: Say, what: str) -> Say:
    """Pass on the steps of a task, one every few seconds, as lines such as "detect: verifying, row 3 …"."""
    last = time.monotonic()

    def step(name: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{what}, {name} …")

    return step
