"""How tests run the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vlclip

Run = Callable[..., tuple[int, str, str]]
"""Runs `vlclip` in this process. Returns its exit code, stdout and stderr."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1]), "COLUMNS": "100"}

VERSION = "000000e1-000001e1-000002e1-7fffffff"
"""Of the rows of `FakeTriton`."""


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Runs `vlclip` in its own process, with real signals and standard input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "vlclip", *arguments], env=ENVIRONMENT, **{**pipes, **options})


def objects(stdout: str | bytes) -> list[dict[str, Any]]:
    """The JSON objects that were printed."""
    return [json.loads(line) for line in stdout.splitlines()]


def cells(stdout: str) -> list[list[str]]:
    """The cells of the table that was printed."""
    return [re.split(r"  +", line.strip()) for line in stdout.splitlines()]
