"""Publishes what a leaf counts on Triton's metrics port.

Each number is a message to Triton that takes about 10 µs. A thread sends them, and adds up counts first, so that no
request waits.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Literal

import triton_python_backend_utils as pb_utils

PERIOD = 0.1
"""Seconds between two messages to Triton; counts are added up in the meantime."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]
Number = tuple[str, Literal["increment", "set", "observe"], float, Labels]
"""The name of a metric, what to do to it, the value and the labels."""


class Metrics:
    """The metrics of one process. All of them carry ``labels`` and the process id.

    Without the process id, Triton 2.51 would crash: while a model is reloaded, two processes publish the same name, and
    of two metrics with equal labels the second is invalid once the first is deleted.

    Args:
        prefix: what every published name begins with.
        families: the kind and the description of each metric, by name.
        buckets: the upper bounds of each histogram, by name.
    """

    def __init__(
        self,
        prefix: str,
        families: Mapping[str, tuple[Kind, str]],
        buckets: Mapping[str, Sequence[float]],
        **labels: str,
    ) -> None:
        self._families = {
            name: pb_utils.MetricFamily(prefix + name, text, getattr(pb_utils.MetricFamily, kind.upper()))
            for name, (kind, text) in families.items()
        }
        self._buckets = buckets
        self._labels = {**labels, "pid": str(os.getpid())}
        self._metrics: dict[tuple[str, Labels], pb_utils.Metric] = {}
        self._numbers: SimpleQueue[Number | None] = SimpleQueue()
        self._closing = Event()
        self._thread = Thread(target=self._publish, name="metrics", daemon=True)
        self._thread.start()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Increase a counter or a gauge. An amount of 0 creates the series, which a rate needs from the start."""
        self._numbers.put((name, "increment", amount, tuple(sorted(labels.items()))))

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._numbers.put((name, "set", value, ()))

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        self._numbers.put((name, "observe", value, ()))

    def close(self) -> None:
        """Publish the numbers that are left, then delete the metrics."""
        self._closing.set()
        self._numbers.put(None)
        self._thread.join()
        # Triton requires that a family is deleted after its metrics.
        self._metrics.clear()
        self._families.clear()

    def _publish(self) -> None:
        is_open = True
        while is_open:
            numbers = [self._numbers.get()]
            self._closing.wait(PERIOD)
            while not self._numbers.empty():
                numbers.append(self._numbers.get())
            is_open = None not in numbers
            self._send(number for number in numbers if number)

    def _send(self, numbers: Iterable[Number]) -> None:
        sums: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        for name, change, value, labels in numbers:
            if change == "increment":
                sums[name, labels] += value
            else:
                getattr(self._metric(name, labels), change)(value)
        for (name, labels), total in sums.items():
            self._metric(name, labels).increment(total)

    def _metric(self, name: str, labels: Labels) -> pb_utils.Metric:
        if (name, labels) not in self._metrics:
            buckets = {"buckets": self._buckets[name]} if name in self._buckets else {}
            self._metrics[name, labels] = self._families[name].Metric(
                labels={**self._labels, **dict(labels)}, **buckets
            )
        return self._metrics[name, labels]
