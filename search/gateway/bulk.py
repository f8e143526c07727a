"""Products line by line (NDJSON), written while they arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from search.gateway.problems import Problem, problem_of
from search.gateway.schemas import Written, written
from search.ingest import BATCH, LoadPhoto
from search.records import BadRow, Product, product_of
from search.shop import Shop

KEPT = 1000
"""Bad lines that an answer names."""


async def write(
    body: AsyncIterator[bytes], shop: Shop, load_photo: LoadPhoto, *, max_bytes: int, seconds: float
) -> Written:
    """Insert or replace the products of a body. A bad line costs only itself.

    Raises Problem if the body stalls for ``seconds``, a line is longer than ``max_bytes``, or a batch cannot be
    written. Its sentence says how many lines were written before.
    """
    total = Written(products=0, unchanged=0, photos={}, statuses={}, bad_count=0, bad=[])
    batch: list[Product | BadRow] = []
    ids: set[str] = set()
    done = read = size = 0

    async def flush() -> None:
        nonlocal batch, done, size
        rows, batch = batch, []
        ids.clear()
        _add(total, written(await run_in_threadpool(shop.upsert, rows, load_photo=load_photo)))
        done, size = read, 0

    try:
        async for line in _lines(body, max_bytes, seconds):
            if line.strip():
                row = _row(line, read + 1)
                # Within a batch, the order of two rows of one product is not kept.
                if isinstance(row, Product) and row.id in ids:
                    await flush()
                if isinstance(row, Product):
                    ids.add(row.id)
                batch.append(row)
            read += 1
            size += len(line)
            if len(batch) == BATCH or size > max_bytes:
                await flush()
        if batch:
            await flush()
    except Exception as error:
        stalled = isinstance(error, asyncio.TimeoutError)
        problem = problem_of(Problem(408, f"no more of the body came for {seconds:g} s") if stalled else error)
        problem.detail += f" (the first {done} lines are written)"
        raise problem from None
    return total


async def _lines(body: AsyncIterator[bytes], max_bytes: int, seconds: float) -> AsyncIterator[bytes]:
    rest = bytearray()
    while (chunk := await asyncio.wait_for(_next(body), seconds)) is not None:
        *lines, last = chunk.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > max_bytes:
            raise Problem(413, f"a line has more than {max_bytes >> 20} MiB; send fewer or smaller photos")
    if rest:
        yield bytes(rest)


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await body.__anext__()
    except StopAsyncIteration:
        return None


def _row(line: bytes, number: int) -> Product | BadRow:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("expected an object")
        return product_of(row)
    except (ValueError, RecursionError) as error:
        return BadRow(f"line {number}", str(error))


def _add(total: Written, more: Written) -> None:
    total.products += more.products
    total.unchanged += more.unchanged
    total.bad_count += more.bad_count
    total.bad += more.bad[: KEPT - len(total.bad)]
    for counts, further in ((total.photos, more.photos), (total.statuses, more.statuses)):
        for name, count in further.items():
            counts[name] = counts.get(name, 0) + count
