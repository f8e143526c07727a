"""Many items: every result is correct and in its place, and memory does not grow."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.twins import Twin, first_column


@pytest.mark.parametrize("calls", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_concurrent_calls_while_every_third_request_is_refused(triton: FakeTriton, twin: Twin, calls: int) -> None:
    """No result is lost, duplicated or in another's place, and no call exceeds its deadline."""
    triton.refuse_every, triton.keep_requests = 3, False

    def work(call: int) -> None:
        items = range(call * 10, call * 10 + call % 9 + 1)  # 1 to 9 items, in batches of 4
        assert first_column(client.embed_texts(map(str, items))) == list(items)

    with twin(triton.address, timeout=vlclip.Timeout(total=60)) as client, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(calls)))
    assert triton.refused == triton.received // 3 > calls / 3


def test_memory_does_not_grow_with_the_number_of_items(triton: FakeTriton, twin: Twin) -> None:
    triton.max_batch_size, triton.keep_requests = 64, False
    marks: list[int] = []
    done = 0
    with twin(triton.address) as client:
        for part in client.stream.embed_texts("7" * 20 for _ in range(100_000)):
            done += len(part)
            if done >= 20_000 * (len(marks) + 1):
                marks.append(resident_bytes())
    assert done == 100_000
    assert len(marks) == 5
    assert marks[-1] - marks[0] < 8 << 20


def resident_bytes() -> int:
    """The memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
