"""What is told on a terminal, and what in a file."""

from __future__ import annotations

import io
import re

from export.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO) -> str:
    with Progress(stream) as say:
        say("loading …")
        say("detect: tracing …")
        say("detect is done")
    return stream.getvalue()


def test_in_a_file_every_step_stays_with_its_seconds():
    assert re.fullmatch(r"loading … \d\.\d s\ndetect: tracing … \d\.\d s\ndetect is done\n", tell(io.StringIO()))


def test_on_a_terminal_only_what_is_done_stays():
    told = tell(Terminal())
    assert "detect: tracing … 0 s" in told
    assert told.count("\n") == 1
    assert told.endswith("\r\x1b[Kdetect is done\n")


def test_a_step_is_told_before_it_is_done():
    stream = io.StringIO()
    with Progress(stream) as say:
        say("detect: tracing …")
        assert stream.getvalue() == "detect: tracing …"


def test_a_failure_ends_the_line():
    stream = io.StringIO()
    try:
        with Progress(stream) as say:
            say("detect: tracing …")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stream.getvalue().endswith(" s\n")
