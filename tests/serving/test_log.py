"""The log file, to which Triton writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.server.log import Log


def write(log: Log, lines: Sequence[str]) -> None:
    """Append lines as Triton does, which is given the file as its output, and follow the log meanwhile."""
    with log.open() as stream:
        for i in range(0, len(lines), 100):
            os.write(stream.fileno(), "".join(f"{line}\n" for line in lines[i : i + 100]).encode())
            log.follow()


def test_the_log_of_an_earlier_run_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("from yesterday\n")
    log = Log(tmp_path / "log", echo=True)
    write(log, ["I1123 05:42:05.1 1 main.cc:1] fine", "E1123 05:42:05.2 1 main.cc:2] the first died", "of this"])
    assert log.excerpt() == "E1123 05:42:05.2 1 main.cc:2] the first died\nof this"
    write(log, ["error: the second"])
    assert log.excerpt() == "error: the second"
    whole = log.file.read_text()
    assert whole.startswith("from yesterday\nI1123 05:42:05.1 1 main.cc:1] fine\n")
    assert capsys.readouterr().err == whole.removeprefix("from yesterday\n")


def test_a_log_with_a_limit_stays_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "log", limit=10_000, echo=True)
    lines = [f"line {i} {'.' * 90}" for i in range(2_000)]
    write(log, lines)
    assert log.file.stat().st_size <= 10_000 < sum(map(len, lines))
    write(log, ["error: the end"])
    assert log.has("the end")
    assert log.excerpt() == "error: the end"
    assert capsys.readouterr().err.endswith(f"{lines[-1]}\nerror: the end\n")


def test_the_trace_of_a_crash_is_part_of_the_excerpt(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    write(log, ["I1123 05:42:05.1 1 main.cc:1] fine", "Signal (11) received.", " 0# 0x000055", " 1# 0x000066"])
    assert log.excerpt() == "Signal (11) received.\n 0# 0x000055\n 1# 0x000066"


def test_errors_of_long_ago_are_not_shown_for_what_happened_just_now(tmp_path: Path) -> None:
    now = 0.0
    log = Log(tmp_path / "log", clock=lambda: now)
    old, fine, new = (
        "E1123 05:42:05.1 1 a.cc:1] old",
        "I1123 05:42:06.1 1 a.cc:2] fine",
        "E1123 06:00:00.1 1 a.cc:3] new",
    )
    write(log, [old])
    with log.file.open("a") as stream:
        for line, seconds, recent in [
            ("", 5.0, old),
            (fine, 16.0, old),
            ("", 27.0, f"{old}\n{fine}"),
            (new, 28.0, new),
        ]:
            stream.write(line + "\n")
            stream.flush()
            now = seconds
            log.follow()
            assert log.excerpt(recent=True) == recent
    assert log.excerpt() == f"{old}\n{new}"


def test_a_log_that_another_program_empties_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "log", echo=True)
    write(log, ["before"] * 10)
    log.file.write_text("")
    write(log, ["after"])
    assert capsys.readouterr().err.splitlines()[-2:] == ["before", "after"]
