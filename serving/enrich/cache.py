"""A persistent cache of the language model's answers, so that none is paid for twice.

It keeps the answer of every call, so that an item that was interrupted between two calls continues where it stopped.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol


class Cache(Protocol):
    """Use it from one thread at a time. Its methods raise OSError if it cannot be read or written."""

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, answer: str) -> None: ...

    def close(self) -> None: ...


def open_cache(where: str) -> Cache:
    """Open the cache at ``redis://host:6379/0``, ``rediss://…`` or the path of a file; processes can share either.

    Raises OSError with a message of one line if that fails.
    """
    if where.startswith(("redis://", "rediss://", "unix://")):
        return RedisCache(where)
    return FileCache(Path(where).expanduser())


def default_file(environ: Mapping[str, str] = os.environ) -> str:
    """The default file, in the user's cache folder."""
    return str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlclip" / "agent.sqlite")


class FileCache:
    """SQLite with a write-ahead log, so that readers never wait and answers survive a crash of the process."""

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit keeps each answer at once. Several threads use the connection, but only one at a time.
            self._database = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            # Without a sync at every commit, a power cut can lose the last answers but never corrupts the file.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise OSError(f"cannot open the agent's cache {file}: {error}") from None

    def get(self, key: str) -> str | None:
        found = self._execute("SELECT answer FROM answers WHERE key = ?", key).fetchone()
        return found[0] if found else None

    def put(self, key: str, answer: str) -> None:
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer)

    def close(self) -> None:
        self._database.close()

    def _execute(self, statement: str, *values: str) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise OSError(f"the agent's cache: {error}") from None


class RedisCache:
    """A cache that several machines share. Keys begin with ``vlclip:``. The Redis server decides when they expire."""

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise OSError("a cache at redis:// needs the package redis: pip install redis") from None
        self._error: type[Exception] = redis.RedisError
        try:
            # The client connects at the first call, so the server starts even if Redis is down.
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True
            )
        except ValueError:
            # The URL may contain a password, and the package's message may quote it.
            raise OSError("the agent's cache: expected a URL such as redis://host:6379/0") from None

    def get(self, key: str) -> str | None:
        return self._call(self._redis.get, f"vlclip:{key}")

    def put(self, key: str, answer: str) -> None:
        self._call(self._redis.set, f"vlclip:{key}", answer)

    def close(self) -> None:
        self._redis.close()

    def _call(self, command: Callable[..., str | None], *values: str) -> str | None:
        try:
            return command(*values)
        except self._error as error:
            raise OSError(f"the agent's cache at redis: {type(error).__name__}") from None
