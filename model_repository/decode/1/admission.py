"""Refuses what would wait too long, so that what is accepted is answered in time.

Triton's metrics say how many requests are pending in front of each model, and how many items and batches it has
finished. All come from Triton itself: nothing is counted here that a crash, a reload or a cancelled request could leave
wrong. So

    wait = (requests pending in front of a model · items in such a request + items of the batch that it is at)
           · seconds the model takes for an item

summed over the models that are still ahead. Without metrics everything is accepted.

    VLCLIP_METRICS     the host and port that has them; by default localhost:8002
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

PERIOD = 0.05
"""Seconds between two looks at the metrics, while requests come."""
STALE = 1.0
"""Seconds after which what was seen says nothing any more: no request has come in the meantime."""
ALWAYS = 4
"""Requests that are accepted between two looks when nothing is pending: a wrong speed could not be corrected else."""
MEMORY = 4.0
"""Seconds of work after which a measured speed counts half."""
LINE = re.compile(
    r'^nv_inference_(pending_request_count|count|exec_count)\{[^}]*\bmodel="(\w+)"[^}]*\} (\S+)$', re.MULTILINE
)


@dataclass
class Model:
    """What is known of a model that is ahead: its speed is measured while requests are pending in front of it."""

    pending: float = 0.0
    finished: float = 0.0
    batches: float = 0.0
    busy_seconds: float = 0.0
    busy_items: float = 0.0
    busy_batches: float = 0.0

    def see(self, pending: float, finished: float, batches: float, passed: float) -> None:
        if self.pending and passed < STALE:
            fade = 0.5 ** (passed / MEMORY)
            self.busy_seconds = fade * self.busy_seconds + passed
            self.busy_items = fade * self.busy_items + max(0.0, finished - self.finished)
            self.busy_batches = fade * self.busy_batches + max(0.0, batches - self.batches)
        self.pending, self.finished, self.batches = pending, finished, batches

    @property
    def at_work(self) -> float:
        """Items of the batch that it is at: where requests wait, there is one."""
        return self.busy_items / max(self.busy_batches, 1.0) if self.pending else 0.0

    @property
    def seconds_per_item(self) -> float:
        return self.busy_seconds / max(self.busy_items, 1.0)


@dataclass
class Admission:
    """Knows how long a request would wait in front of ``models``; ``max_wait`` seconds are the most to accept."""

    max_wait: float
    models: Mapping[str, Model]
    address: str = field(default_factory=lambda: os.environ.get("VLCLIP_METRICS", "localhost:8002"))

    def __post_init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=1000)
        self._unseen = 0
        self._seen_at = 0.0
        self._wanted = threading.Event()
        threading.Thread(target=self._watch, name="admission", daemon=True).start()

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Admission:
        """From the texts in ``config.pbtxt``; the models are separated by blanks."""
        return cls(float(parameters["max_wait_seconds"]), {name: Model() for name in parameters["ahead"].split()})

    def refusal(self, items: int) -> str | None:
        """Why a request of so many items is refused; None if it may go on."""
        wait = self.wait()
        idle = not any(model.pending for model in self.models.values())
        if wait > self.max_wait and not (idle and self._unseen < ALWAYS):
            return f"overloaded: {wait:.1f} s of work are waiting, {self.max_wait:g} s at most: try again later"
        self._sizes.append(items)
        self._unseen += items
        return None

    def wait(self) -> float:
        """Seconds until a request that comes now would have its turn."""
        self._wanted.set()
        if time.monotonic() - self._seen_at > STALE:
            return 0.0
        models = self.models.values()
        queued = sum((self._items(int(model.pending)) + model.at_work) * model.seconds_per_item for model in models)
        return queued + self._unseen * max(model.seconds_per_item for model in models)

    def see(self, metrics: str, now: float) -> None:
        """Takes in what Triton's metrics say at the time ``now``."""
        values: Counter[tuple[str, str]] = Counter()
        for what, model, value in LINE.findall(metrics):
            values[what, model] += float(value)  # type: ignore[assignment]  # over the versions that are loaded
        for name, model in self.models.items():
            pending, finished, batches = (
                values[what, name] for what in ("pending_request_count", "count", "exec_count")
            )
            model.see(pending, finished, batches, now - self._seen_at)
        self._unseen, self._seen_at = 0, now

    def _items(self, requests: int) -> float:
        """In the last so many requests that were accepted; an instance of the leaf has seen its share of them."""
        sizes = list(itertools.islice(reversed(self._sizes), requests))
        return requests * sum(sizes) / len(sizes) if sizes else requests

    def _watch(self) -> None:
        triton = http.client.HTTPConnection(self.address, timeout=STALE)
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                triton.request("GET", "/metrics")
                self.see(triton.getresponse().read().decode(), time.monotonic())
            except (OSError, http.client.HTTPException):
                triton.close()
            time.sleep(PERIOD)
