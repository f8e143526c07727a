"""Publishes what a leaf counts on Triton's metrics port.
Each number is a message to Triton of some 10 µs, so a thread sends them, and adds up counts before: no request waits.
"""

import os
from collections import Counter
from queue import SimpleQueue
from threading import Event, Thread

import triton_python_backend_utils as pb_utils

PERIOD = 0.1
"""Seconds for which numbers are gathered."""


class Metrics:
    """Metrics whose names begin with ``prefix``: ``families`` has for each its kind (counter, gauge or histogram) and
    what it says, ``buckets`` the upper bounds of the histograms. All carry ``labels``.

    They carry the process id too: while a model is loaded anew or in another version, two processes publish under one
    name, and of two metrics with the same labels, Triton 2.51 crashes at the second once the first is deleted.
    """

    def __init__(self, prefix, families, buckets, **labels):
        self.families = {
            name: pb_utils.MetricFamily(prefix + name, says, getattr(pb_utils.MetricFamily, kind.upper()))
            for name, (kind, says) in families.items()
        }
        self.buckets, self.labels = buckets, {**labels, "pid": str(os.getpid())}
        self.metrics = {}
        self.numbers = SimpleQueue()
        self.closing = Event()
        self.thread = Thread(target=self.publish, name="metrics")
        self.thread.start()

    def add(self, name, amount=1, **labels):
        self.numbers.put((name, "increment", amount, tuple(sorted(labels.items()))))

    def set(self, name, value):
        self.numbers.put((name, "set", value, ()))

    def observe(self, name, value):
        self.numbers.put((name, "observe", value, ()))

    def publish(self):
        going_on = True
        while going_on:
            numbers = [self.numbers.get()]
            self.closing.wait(PERIOD)
            while not self.numbers.empty():
                numbers.append(self.numbers.get())
            going_on = None not in numbers
            self.send(filter(None, numbers))

    def send(self, numbers):
        sums = Counter()
        for name, change, value, labels in numbers:
            if change == "increment":
                sums[name, labels] += value
            else:
                getattr(self.metric(name, labels), change)(value)
        for (name, labels), value in sums.items():
            self.metric(name, labels).increment(value)

    def metric(self, name, labels):
        if (name, labels) not in self.metrics:
            buckets = {"buckets": self.buckets[name]} if name in self.buckets else {}
            self.metrics[name, labels] = self.families[name].Metric(labels={**self.labels, **dict(labels)}, **buckets)
        return self.metrics[name, labels]

    def close(self):
        self.closing.set()
        self.numbers.put(None)
        self.thread.join()
        # Triton wants a family deleted after its metrics.
        self.metrics.clear()
        self.families.clear()
