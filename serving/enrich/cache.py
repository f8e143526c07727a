"""Answers that were paid for, kept beyond the life of the process.

Every single answer of the language model is kept, so that an item that was interrupted between its calls goes on
where it stood.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Cache(Protocol):
    """Used from one thread at a time. Raises OSError where it cannot be read or written."""

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, answer: str) -> None: ...

    def close(self) -> None: ...


def open_cache(where: str) -> Cache:
    """``redis://host:6379/0``, ``rediss://…`` or a path of a file, which several processes may share.

    Raises OSError, in one line, where that is impossible.
    """
    if where.startswith(("redis://", "rediss://", "unix://")):
        return RedisCache(where)
    return FileCache(Path(where).expanduser())


def default_file(environ: Mapping[str, str] = os.environ) -> str:
    """In the user's folder for caches."""
    return str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlclip" / "agent.sqlite")


class FileCache:
    """SQLite with a write-ahead log: readers never wait, and what was put survives the process."""

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: each answer is kept as soon as it is there. It is only ever used from one thread at a time.
            self._database = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            # Without a sync at every commit, a power cut may cost the last answers, and never the file.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise OSError(f"the agent's cache {file} cannot be opened: {error}") from None

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
    """For replicas on several machines. Keys begin with ``vlclip:``; how long they live is up to the server."""

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise OSError("a cache at redis:// needs the redis package: pip install redis") from None
        self._error: type[Exception] = redis.RedisError
        try:
            # It connects when it is asked: one that is away must keep nobody from serving.
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True
            )
        except ValueError:
            # The URL may hold a password, and so may what the package says about it.
            raise OSError("the agent's cache: expected redis://host:6379/0 or the like") from None

    def get(self, key: str) -> str | None:
        found: str | None = self._call(self._redis.get, f"vlclip:{key}")
        return found

    def put(self, key: str, answer: str) -> None:
        self._call(self._redis.set, f"vlclip:{key}", answer)

    def close(self) -> None:
        self._redis.close()

    def _call(self, command: Any, *values: str) -> Any:
        try:
            return command(*values)
        except self._error as error:
            raise OSError(f"the agent's cache at redis: {type(error).__name__}") from None
