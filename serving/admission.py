"""Refuses a request that would wait too long, so that accepted requests are answered in time.

The first leaf of a pipeline asks here before it does any work. The estimate comes from Triton's metrics, which stay
correct when a process crashes, a model is reloaded or a request is cancelled:

    wait = (requests pending for a model · items per request + items of the batch that the model works on)
           · seconds that the model takes per item

summed over the models that are still ahead. While requests are pending all the time, the seconds per item are the time
that passes per finished item. Where there are pauses, Triton's compute time per batch says the same; where batches
differ much in size, it says too much. The smaller of the two estimates counts. Without metrics everything is accepted.

    VLCLIP_METRICS     host and port of the metrics; localhost:8002 by default
"""

from __future__ import annotations

import http.client
import itertools
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from serving.triton_metrics import parse_metrics

PERIOD = 0.05
"""Seconds between two reads of the metrics while requests come."""
STALE = 1.0
"""Age in seconds at which metrics are ignored: no request has come since."""
HALF_LIFE = 4.0
"""Seconds after which a measured speed has half its weight."""
PENDING = "nv_inference_pending_request_count"
COUNTS = (
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_success",
    "nv_inference_compute_infer_duration_us",
)
"""Finished items, batches and requests, and the compute time of their batches, which each request of a batch adds."""


@dataclass
class Model:
    """The load of one model."""

    pending: float = 0.0
    counts: Sequence[float] = (0.0,) * len(COUNTS)
    """The values of ``COUNTS`` when they were last read."""
    recent: Sequence[float] = (0.0,) * len(COUNTS)
    """How much ``counts`` rose; recent changes weigh more."""
    busy: tuple[float, float] = (0.0, 0.0)
    """Seconds in which requests were always pending, and items that were finished in them; recent ones weigh more."""

    def update(self, pending: float, counts: Sequence[float], passed: float) -> None:
        """Take in new values, ``passed`` seconds after the last ones."""
        fade = 0.5 ** (passed / HALF_LIFE)
        # After a restart the counters begin at 0.
        risen = [max(0.0, new - old) for new, old in zip(counts, self.counts, strict=True)]
        self.recent = [fade * old + new for old, new in zip(self.recent, risen, strict=True)]
        self.busy = fade * self.busy[0], fade * self.busy[1]
        if self.pending and pending and passed < STALE:
            self.busy = self.busy[0] + passed, self.busy[1] + risen[0]
        self.pending, self.counts = pending, counts

    @property
    def batch(self) -> float:
        """Items per batch."""
        items, batches, _, _ = self.recent
        return items / batches if batches else 0.0

    @property
    def seconds_per_item(self) -> float:
        _, _, requests, microseconds = self.recent
        by_batches = 1e-6 * microseconds / (requests * self.batch) if requests and self.batch else 0.0
        seconds, items = self.busy
        return min(by_batches, seconds / items) if items else by_batches

    def wait(self, items: float) -> float:
        """Seconds for the batch that the model works on and the pending ``items``."""
        return (items + self.batch) * self.seconds_per_item if self.pending else 0.0


@dataclass
class Admission:
    """Estimates how long a request would wait for ``models``, and accepts at most ``max_wait`` seconds."""

    max_wait: float
    models: Mapping[str, Model]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=1000)
        self._accepted_since = 0
        self._updated_at = float("-inf")
        self._asked = threading.Event()

    @classmethod
    def open(cls, parameters: Mapping[str, str]) -> Admission | None:
        """Read ``max_wait_seconds`` and ``ahead`` of a config, and watch the metrics; None where a config has neither.

        ``ahead`` has the names of the models, separated by blanks.
        """
        if "max_wait_seconds" not in parameters:
            return None
        models = {name: Model() for name in parameters["ahead"].split()}
        admission = cls(float(parameters["max_wait_seconds"]), models)
        threading.Thread(target=admission._watch, name="admission", daemon=True).start()
        return admission

    def refusal(self, items: int) -> str | None:
        """The message for a request of this many items that is refused; None for one that is accepted."""
        wait = self.wait()
        if wait > self.max_wait:
            return f"overloaded: {wait:.1f} s of work are waiting, {self.max_wait:g} s at most: try again later"
        self._sizes.append(items)
        self._accepted_since += items
        return None

    def wait(self) -> float:
        """Seconds that a request would wait if it came now."""
        self._asked.set()
        age = self.clock() - self._updated_at
        if age > STALE:
            return 0.0
        models = self.models.values()
        queued = sum(model.wait(self._items(int(model.pending))) for model in models)
        accepted = self._accepted_since * max(model.seconds_per_item for model in models)
        # The models have worked since the metrics were read.
        return max(0.0, queued + accepted - age)

    def update(self, metrics: str) -> None:
        """Take in the text of Triton's metrics."""
        values: defaultdict[tuple[str, str], float] = defaultdict(float)
        for sample in parse_metrics(metrics, PENDING, *COUNTS):
            values[sample.name, sample.labels["model"]] += sample.value  # of all versions that are loaded
        now = self.clock()
        for name, model in self.models.items():
            model.update(values[PENDING, name], [values[count, name] for count in COUNTS], now - self._updated_at)
        self._accepted_since, self._updated_at = 0, now

    def _items(self, requests: int) -> float:
        """Estimated items in this many pending requests, from the sizes of recently accepted requests."""
        sizes = list(itertools.islice(reversed(self._sizes), requests))
        return requests * sum(sizes) / len(sizes) if sizes else requests

    def _watch(self) -> None:
        triton = http.client.HTTPConnection(os.environ.get("VLCLIP_METRICS", "localhost:8002"), timeout=STALE)
        while True:
            self._asked.wait()
            self._asked.clear()
            try:
                triton.request("GET", "/metrics")
                self.update(triton.getresponse().read().decode())
            except (OSError, http.client.HTTPException):
                triton.close()
            time.sleep(PERIOD)
