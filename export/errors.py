"""What can go wrong in an export, each with one sentence for the person who asked for it.

ExportError
├── UsageError        the request makes no sense, or names something unknown
├── SourceError       a file that is missing, damaged or of another architecture
├── UnsupportedModel  a model that is understood, but not exported (yet)
├── GraphError        the exported graph does not keep the contract of ``serving.repository.specs``
├── ParityError       the exported graph is not equal to PyTorch within its tolerance
├── PlanError         TensorRT refuses the graph, or built something else
└── MachineError      TensorRT or a GPU is not here
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExportError(Exception):
    """Base of all: the model repository is as it was before, unless the sentence says otherwise."""


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
    """Of a foreign error, for one of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
