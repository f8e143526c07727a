"""Progress lines on a terminal and in a file."""

from __future__ import annotations

import io
import re

import pytest

from export.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO) -> str:
    with progress(stream) as say:
        say("loading …")
        say("detect: tracing …")
        say("detect is done")
    return stream.getvalue()


def test_in_a_file_every_step_stays() -> None:
    assert tell(io.StringIO()) == "loading …\ndetect: tracing …\ndetect is done\n"


def test_on_a_terminal_only_finished_lines_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    printed = tell(Terminal())
    assert "detect: tracing … 0:00:00" in re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert printed.endswith("\x1b[2Kdetect is done\n")


def test_a_step_is_printed_before_it_runs() -> None:
    stream = io.StringIO()
    with progress(stream) as say:
        say("detect: tracing …")
        assert stream.getvalue() == "detect: tracing …\n"
