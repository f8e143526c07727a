"""Errors of an export. Each message is one sentence for the user.

ExportError
├── UsageError        the options contradict each other, or name something unknown
├── SourceError       a file is missing, damaged or of another architecture
├── UnsupportedModel  the model cannot be exported (yet)
├── GraphError        the graph does not have the tensors of ``serving.repository.specs``
├── ParityError       the results of the graph differ from PyTorch's by more than the tolerance
├── PlanError         TensorRT refuses the graph, or the plan has other tensors or dtypes
└── MachineError      TensorRT or a GPU is missing
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExportError(Exception):
    """Base class. The model repository is unchanged unless the message says otherwise."""


class UsageError(ExportError):
    pass


class SourceError(ExportError):
    pass


class UnsupportedModel(ExportError):
    pass


class GraphError(ExportError):
    pass


class ParityError(ExportError):
    pass


class PlanError(ExportError):
    pass


class MachineError(ExportError):
    pass


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """``unknown("encoder", "ViT-B32", …)`` → "unknown encoder 'ViT-B32'; did you mean 'ViT-B-32'?" """
    known = list(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
    spelled = [next(k for k in known if k.lower() == match) for match in near]
    if spelled:
        return UsageError(f"unknown {kind} {name!r}; did you mean {' or '.join(map(repr, spelled))}?")
    some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
    return UsageError(f"unknown {kind} {name!r}; known are {some}")


def first_line(error: BaseException) -> str:
    """The first line of a library's error, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
