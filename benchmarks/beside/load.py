"""One closed-loop load generator for every service: threads that send the next message when the last is answered."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from benchmarks.beside.services import Ask, Service


@dataclass(frozen=True)
class Turn:
    """What one turn of a service gave."""

    rate: float
    """Photos a second, from the first message to the last answer."""
    latencies_ms: list[float]
    """Of each message."""
    generator_cores: float
    """Cores that this process kept busy meanwhile."""
    cpu_ms: float
    """Of the service's processes, a photo: it tells what an answer costs, however busy the machine is with others."""
    embeddings: np.ndarray  # [N, D], in the order of the asks


def take_turn(service: Service, asks: Sequence[Ask], clients: int, batch: int) -> Turn:
    """Send ``asks`` in messages of ``batch``, from ``clients`` connections at once."""
    messages = [service.message(asks[i : i + batch]) for i in range(0, len(asks), batch)]
    answers: list[Any] = [None] * len(messages)
    latencies_ms = [0.0] * len(messages)
    numbers = iter(range(len(messages)))
    lock = threading.Lock()
    connected = threading.Barrier(clients + 1, timeout=30)

    def work() -> None:
        with service.connect() as ask:
            connected.wait()
            while (i := next_number()) is not None:
                begin = time.perf_counter()
                answers[i] = ask(messages[i])
                latencies_ms[i] = 1e3 * (time.perf_counter() - begin)

    def next_number() -> int | None:
        with lock:
            return next(numbers, None)

    with ThreadPoolExecutor(clients) as pool:
        work_done = [pool.submit(work) for _ in range(clients)]
        connected.wait()
        spent = cpu_seconds(service.pid)
        begin, busy = time.perf_counter(), time.process_time()
        for one in work_done:
            one.result()
        seconds, busy = time.perf_counter() - begin, time.process_time() - busy
        spent = cpu_seconds(service.pid) - spent
    embeddings = np.concatenate([service.embeddings(answer) for answer in answers])
    return Turn(len(asks) / seconds, latencies_ms, busy / seconds, 1e3 * spent / len(asks), embeddings)


def cpu_seconds(pid: int) -> float:
    """What a process and those that it started have spent so far."""
    root = psutil.Process(pid)
    # The services are children of this process.
    others = [] if pid == os.getpid() else root.children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in (root, *others))
