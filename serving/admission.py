"""Refuses what would wait too long, so that what is accepted is answered in time.

Triton's metrics say how many requests are pending in front of each model, how many items and batches it has finished,
and how long that took. All come from Triton itself: nothing is counted here that a crash, a reload or a cancelled
request could leave wrong. So

    wait = (requests pending in front of a model · items in such a request + items of the batch that it is at)
           · seconds the model takes for an item

summed over the models that are still ahead. While requests are pending all the time, those seconds are simply the time
that passes for each item that is finished; what the batches took says the same where there are pauses, and too much
where batches are of very different sizes. The less of both counts. Without metrics everything is accepted.

    VLCLIP_METRICS     the host and port that has them; by default localhost:8002
"""

from __future__ import annotations

import http.client
import itertools
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serving.triton_metrics import parse_metrics

PERIOD = 0.05
"""Seconds between two looks at the metrics, while requests come."""
STALE = 1.0
"""Seconds after which what was seen says nothing any more: no request has come in the meantime."""
MEMORY = 4.0
"""Seconds after which a measured speed counts half."""
PENDING = "nv_inference_pending_request_count"
COUNTS = (
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_success",
    "nv_inference_compute_infer_duration_us",
)
"""Items, batches and requests that were finished, and the time of their batches, added up for each request."""


@dataclass
class Model:
    """What is known of a model that is ahead."""

    pending: float = 0.0
    counts: Sequence[float] = (0.0,) * len(COUNTS)
    recent: Sequence[float] = (0.0,) * len(COUNTS)
    """What the counts rose by, the older the less."""
    busy: tuple[float, float] = (0.0, 0.0)
    """Seconds in which requests were pending all the time, and items finished in them, the older the less."""

    def see(self, pending: float, counts: Sequence[float], passed: float) -> None:
        fade = 0.5 ** (passed / MEMORY)
        # After a restart they begin at 0 again.
        risen = [max(0.0, new - old) for new, old in zip(counts, self.counts, strict=True)]
        self.recent = [fade * old + new for old, new in zip(self.recent, risen, strict=True)]
        was_busy = bool(self.pending and pending and passed < STALE)
        self.busy = fade * self.busy[0] + was_busy * passed, fade * self.busy[1] + was_busy * risen[0]
        self.pending, self.counts = pending, counts

    @property
    def batch(self) -> float:
        """Items of a batch."""
        items, batches, _, _ = self.recent
        return items / batches if batches else 0.0

    @property
    def seconds_per_item(self) -> float:
        _, _, requests, microseconds = self.recent
        by_batches = 1e-6 * microseconds / (requests * self.batch) if requests and self.batch else 0.0
        seconds, items = self.busy
        return min(by_batches, seconds / items) if items else by_batches

    def seconds(self, items: float) -> float:
        """For the items that are pending, and before them for the batch that it is at."""
        return (items + self.batch) * self.seconds_per_item if self.pending else 0.0


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
        if wait > self.max_wait:
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
        queued = sum(model.seconds(self._items(int(model.pending))) for model in models)
        return queued + self._unseen * max(model.seconds_per_item for model in models)

    def see(self, metrics: str, now: float) -> None:
        """Takes in what Triton's metrics say at the time ``now``."""
        values: defaultdict[tuple[str, str], float] = defaultdict(float)
        for sample in parse_metrics(metrics, PENDING, *COUNTS):
            values[sample.name, sample.labels["model"]] += sample.value  # over the versions that are loaded
        for name, model in self.models.items():
            model.see(values[PENDING, name], [values[what, name] for what in COUNTS], now - self._seen_at)
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
