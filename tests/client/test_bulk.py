"""Many items: all of them right, and memory that stays where it was."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from typing import Any

import numpy as np
import pytest

import vlclip


@pytest.mark.parametrize(
    ("kind", "requests"),
    [
        ("async", 2_000),
        ("sync", 2_000),
        pytest.param("async", 10_000, marks=pytest.mark.slow),
        pytest.param("sync", 10_000, marks=pytest.mark.slow),
    ],
)
def test_thousands_of_requests_of_which_every_third_is_refused(triton, kind, requests):
    """Every result right and in its place, none lost or doubled, no call past its deadline by more than 100 ms."""
    triton.unavailable, triton.keep_requests = 0.3, False
    got: dict[int, list[Any]] = {}
    slowest = []
    callers = 8 if kind == "sync" else 20
    each = requests // callers
    timeout = vlclip.Timeout(total=20)

    def check(first: int, n: int, result: vlclip.TextEmbeddings, took: float) -> None:
        assert first not in got
        got[first] = result.embedding[:, 0].tolist()
        assert len(got[first]) == n
        slowest.append(took)

    sizes = np.random.default_rng(0).integers(1, 10, 4000).tolist()

    def plan(k: int) -> list[tuple[int, int]]:
        """Calls of 1 to 9 items, in batches of 4: (first item, number of items)."""
        calls: list[tuple[int, int]] = []
        sent, first = 0, k * 500_000
        for size in sizes[k * 100 :] + sizes:
            if sent >= each:
                return calls
            calls.append((first, size))
            first, sent = first + size, sent + -(-size // 4)
        raise AssertionError

    if kind == "sync":
        with vlclip.Client(triton.address, timeout=timeout) as client:

            def work(k: int) -> None:
                for first, n in plan(k):
                    begun = time.monotonic()
                    result = client.embed_texts(map(str, range(first, first + n)))
                    check(first, n, result, time.monotonic() - begun)

            threads = [threading.Thread(target=work, args=(k,)) for k in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    else:

        async def main() -> None:
            async with vlclip.AsyncClient(triton.address, timeout=timeout) as client:

                async def work(k: int) -> None:
                    for first, n in plan(k):
                        begun = time.monotonic()
                        result = await client.embed_texts(map(str, range(first, first + n)))
                        check(first, n, result, time.monotonic() - begun)

                await asyncio.gather(*map(work, range(callers)))

        asyncio.run(main())
    wanted = {first: n for k in range(callers) for first, n in plan(k)}
    assert {first: len(numbers) for first, numbers in got.items()} == wanted
    for first, numbers in got.items():
        assert numbers == np.arange(first, first + wanted[first], dtype=np.float32).tolist()
    assert triton.answered >= requests
    assert triton.refused > 0.25 * requests
    assert max(slowest) < 20.1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_memory_is_flat_over_100_000_items(triton, kind):
    triton.max_batch_size, triton.keep_requests = 64, False
    marks: list[int] = []

    def watch(done: int) -> None:
        if done >= 20_000 * (len(marks) + 1):
            marks.append(resident())

    texts = ("7" * 20 for _ in range(100_000))
    done = 0
    if kind == "sync":
        with vlclip.Client(triton.address) as client:
            for part in client.stream.embed_texts(texts):
                done += len(part)
                watch(done)
    else:

        async def main() -> int:
            done = 0
            async with vlclip.AsyncClient(triton.address) as client:
                async for part in client.stream.embed_texts(texts):
                    done += len(part)
                    watch(done)
            return done

        done = asyncio.run(main())
    assert done == 100_000
    assert len(marks) == 5
    assert marks[-1] - marks[0] < 8 << 20


def resident() -> int:
    """Bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
