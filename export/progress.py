"""Progress lines of an export.

A line that ends in … names the step that is running. On a terminal it shows the seconds until the next line replaces
it. In a file or a pipe it stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5.0
Say = Callable[[str], None]
"""Takes one progress line."""


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Say]:
    """Yield a function that prints progress lines.

    with progress() as say:
        say("detect: tracing …")
        say("detect is done")
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
    with ExitStack() as step:

        def say(line: str) -> None:
            step.close()
            if line.endswith("…") and console.is_interactive:
                columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
                step.enter_context(Progress(*columns, console=console, transient=True)).add_task(line, total=None)
            else:
                console.print(line)

        yield say


def throttled(say: Say, what: str) -> Say:
    """Pass on the steps of a task, one every few seconds, as lines such as "detect: verifying, row 3 …"."""
    last = time.monotonic()

    def step(name: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{what}, {name} …")

    return step
