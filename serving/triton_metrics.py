"""Reads the text of Triton's ``/metrics``, in Prometheus' format.

Admission reads it every 50 ms, for which the parser of ``prometheus_client``, pure Python, is too slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line of the text."""

    name: str
    """With its ending, such as ``_total``, ``_sum`` or ``_bucket``."""
    labels: dict[str, str]
    value: float
    kind: str
    """``counter``, ``gauge``, ``histogram`` or ``summary``; empty where the text does not say."""

    def __str__(self) -> str:
        """The name and the sorted labels, such as ``nv_inference_count{model="crop",version="1"}``."""
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


def parse_metrics(text: str, *names: str) -> Iterator[Sample]:
    """The samples with one of these names, in the order of the text; all samples if no name is given.

    Escape sequences in the values of labels are kept as they are.
    """
    wanted = "|".join(map(re.escape, names)) or r"[\w:]+"
    kind = ""
    for line in re.finditer(rf"^(?:# TYPE \S+ (\w+)|({wanted})(?:\{{(.*)\}})? (\S+))", text, re.MULTILINE):
        said, name, labels, value = line.groups()
        if said:
            kind = said
        else:
            yield Sample(name, dict(LABEL.findall(labels or "")), float(value), kind)
