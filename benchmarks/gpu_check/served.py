"""The steps with a server: its answers compared with the CPU's, its speed, its memory, and a process that dies."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import numpy as np

from benchmarks.callers import Callers
from benchmarks.engine import Answer, Engine, User, now
from benchmarks.gpu_check.compare import differences
from benchmarks.gpu_check.device import Place, reference_of
from benchmarks.gpu_check.in_process import percentiles
from benchmarks.gpu_check.machine import gpu_bytes
from benchmarks.gpu_check.notes import Notes
from benchmarks.machine import memory_bytes
from benchmarks.photos import Sample
from benchmarks.runs import OK, Request
from benchmarks.traffic import Ask
from serving.server.stubs import find_stubs, kill
from vlclip import Client

DEADLINE = 60.0
BATCHES = (1, 8, 32, 128)
IN_FLIGHT = (1, 4, 16)


def compare_served(place: Place, url: str, pid: int, notes: Notes, seconds: float) -> None:
    """Every photo alone and all in batches, with the CPU's answers."""
    samples, reference = place.samples, reference_of(place)
    files, types = zip(*samples, strict=True)
    with Client(url, timeout=DEADLINE) as client:
        for name, step in (("in batches", 32), ("one by one", 1)):
            parts = [client.embed_images(files[i : i + step], types[i : i + step]) for i in range(0, len(files), step)]
            found = {
                "EMBEDDING": np.concatenate([part.embedding for part in parts]),
                "BOX": np.concatenate([part.box_xyxy for part in parts]),
                "SCORE": np.concatenate([part.score for part in parts])[:, None],
                "STATUS": np.concatenate([part.status for part in parts])[:, None],
            }
            notes[name] = differences(found, reference)


def measure_speed(place: Place, url: str, pid: int, notes: Notes, seconds: float) -> None:
    """One photo's latency, then throughput at several batch sizes and numbers of requests in flight."""
    load(url, place.samples, 8, 4, 1.0)  # warms up
    alone = load(url, place.samples, 1, 1, seconds / 8)
    notes["one photo, ms"] = percentiles([done - sent for done, sent in times(alone)])
    batches, in_flight = (BATCHES, IN_FLIGHT) if place.is_gpu else (BATCHES[:2], IN_FLIGHT[:2])
    for batch, users in itertools.product(batches, in_flight):
        requests = load(url, place.samples, batch, users, seconds / (len(batches) * len(in_flight) + 2))
        notes[f"photos/s at {batch}, {users} in flight"] = rate(requests)
        if failed := Counter(one.outcome for one in requests if one.outcome != OK):
            notes[f"not answered at {batch}, {users} in flight"] = dict(failed)


def measure_memory(place: Place, url: str, pid: int, notes: Notes, seconds: float) -> None:
    """Memory of the server and of the GPU at the start, after a tenth of the time, and at the end of a load."""
    seen: list[tuple[float, float]] = []

    def look() -> None:
        seen.append((memory_bytes(pid) / 2**20, gpu_bytes() / 2**20))

    look()
    timers = [threading.Timer(share * seconds, look) for share in (0.1, 0.5)]
    for timer in timers:
        timer.start()
    requests = load(url, place.samples, *((32, 8) if place.is_gpu else (8, 2)), seconds)
    for timer in timers:
        timer.join()
    look()
    notes["seconds"] = seconds
    notes["photos/s"] = rate(requests)
    notes["server, MiB"] = [round(host) for host, _ in seen]
    notes["GPU, MiB"] = [round(device) for _, device in seen]
    if failed := Counter(one.outcome for one in requests if one.outcome != OK):
        notes["not answered"] = dict(failed)


def kill_a_process(place: Place, url: str, pid: int, notes: Notes, seconds: float) -> None:
    """Kill the process of ``detect`` under load. Its model is loaded again, and the answers are right again."""
    stubs = [stub for stub in find_stubs(f"vlclip_{pid}_") if stub.model == "detect"]
    if not stubs:
        notes["skipped"] = "detect has no process of its own"
        return
    killed: list[float] = []

    def end() -> None:
        killed.append(now())
        kill(stubs[0].pid)

    threading.Timer(seconds / 6, end).start()
    requests = load(url, place.samples, 8, 4, seconds)
    after = [one for one in requests if one.sent is not None and one.sent > killed[0]]
    again = [one.done for one in after if one.outcome == OK and one.done is not None]
    outcomes = Counter(one.outcome for one in requests)
    notes["outcomes"] = dict(outcomes)
    notes["seconds without an answer"] = min(again) - killed[0] if again else None
    replaced = [stub for stub in find_stubs(f"vlclip_{pid}_") if stub.model == "detect" and stub.pid != stubs[0].pid]
    notes["wrong"] = [
        text
        for text, is_wrong in {
            "no request was answered after the process had died": not again,
            "detect has no new process": not replaced,
        }.items()
        if is_wrong
    ]
    compare_served(place, url, pid, notes, seconds)


def load(url: str, samples: list[Sample], batch: int, users: int, seconds: float) -> list[Request]:
    """Requests of ``batch`` photos from ``users`` at once. The client splits a batch above the server's largest."""
    callers, requests = Callers(url, DEADLINE), list[Request]()

    def ask(number: int) -> Ask:
        photos = [samples[(number * batch + i) % len(samples)] for i in range(batch)]
        files, types = zip(*photos, strict=True)
        return Ask("vlclip", "product_image", types, files)

    def send(asked: Ask) -> Answer:
        answer = callers.send(asked)
        if answer.outcome != OK:
            time.sleep(0.05)  # an error comes back at once, and would be counted thousands of times
        return answer

    try:
        engine = Engine(ask, lambda request, _: requests.append(request))
        engine.send_as_users([User(send, ends=now() + seconds)] * users, itertools.count())
    finally:
        callers.close()
    return requests


def times(requests: list[Request]) -> list[tuple[float, float]]:
    return [(one.done, one.sent) for one in requests if one.outcome == OK and one.done and one.sent]


def rate(requests: list[Request]) -> float:
    """Photos a second, from the first request to the last answer."""
    answered = [(one.done, one.sent) for one in requests if one.done and one.sent]
    photos = sum(one.items for one in requests if one.outcome == OK)
    return photos / (max(done for done, _ in answered) - min(sent for _, sent in answered)) if answered else 0.0
