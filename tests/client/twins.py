"""One blocking interface to both clients, so that a test is written once and runs with each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, cast

import vlclip

Twin = Callable[..., AbstractContextManager[vlclip.Client]]
_END = object()


class Blocking:
    """The methods of an AsyncClient, or of its stream. Each runs in the event loop, and blocks until it is done."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name == "stream":
            return Blocking(attribute, self._loop)

        def call(*arguments: Any, **options: Any) -> Any:
            result = attribute(*arguments, **options)
            return self._iterate(result) if isinstance(result, AsyncGenerator) else self.wait(result)

        return call

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        async def result() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(result(), self._loop).result()

    def _iterate(self, parts: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while (part := self.wait(anext(parts, _END))) is not _END:
                yield part
        finally:
            self.wait(parts.aclose())


@contextmanager
def blocking_async_client(*arguments: Any, **options: Any) -> Iterator[vlclip.Client]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with closing(Blocking(vlclip.AsyncClient(*arguments, **options), loop)) as client:
            yield cast(vlclip.Client, client)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


TWINS: dict[str, Twin] = {"sync": vlclip.Client, "async": blocking_async_client}


def first_column(result: Any) -> list[float]:
    column: list[float] = result.embedding[:, 0].tolist()
    return column


def numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]
