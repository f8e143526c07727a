"""What a step has found so far: a dictionary that is written to its file with every change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any


class Notes(MutableMapping[str, Any]):
    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, Any] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._write()

    def __delitem__(self, name: str) -> None:
        del self._values[name]
        self._write()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self._values, indent=2))
        os.replace(partial, self._file)


def read_notes(file: Path) -> dict[str, Any]:
    """What a step has written, even if it was killed; empty if it has written nothing."""
    if not file.is_file():
        return {}
    values: dict[str, Any] = json.loads(file.read_text())
    return values
