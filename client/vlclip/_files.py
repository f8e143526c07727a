"""The content of files, from their paths and from open files. What is not a file gets a sentence instead.

A long text that was passed as a path, such as a photo in base64, is not repeated in the message.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
import reprlib
from typing import Any

from vlclip.errors import InvalidInputError

BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+=*\s*")
BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "UklGR")
"""The first characters of JPEG, PNG and WebP files in base64."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def short(value: Any) -> str:
    """The value for a message, at most 80 characters of it."""
    return _SHORT.repr(os.fspath(value) if isinstance(value, os.PathLike) else value)


def content_at(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of the file at a path. Raises OSError if it cannot be read. ``what`` names it in errors."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        got, advice = _mistake(str(os.fspath(path)), error)
        if not got:
            raise
    # Outside of the handler, so that the traceback does not show Python's message, which has the whole text.
    raise InvalidInputError(f"{what}: expected the path of a file, got {got}", advice=advice)


def _mistake(name: str, error: Exception) -> tuple[str, str]:
    """What was passed as a path, and advice. Both are empty if it was a path."""
    if not name:
        return "an empty text", ""
    if isinstance(error, IsADirectoryError):
        return f"the folder {short(name)}", "Pass its files: Path(folder).glob('*.jpg')"
    if name.startswith("data:"):
        return f"a data URI of {len(name)} characters", "Pass its bytes: base64.b64decode(uri.partition(',')[2])"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
        return f"the URL {short(name.partition('?')[0])}", "Download the file and pass its bytes"
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    if BASE64.fullmatch(name) and (len(name) > 255 or name.startswith(BASE64_STARTS)):
        return f"{len(name)} characters of base64", "Pass the bytes: base64.b64decode(text)"
    if too_long:
        return f"a text of {len(name)} characters", ""
    if isinstance(error, ValueError):
        return "a text with a null byte", "Pass the content of a file as bytes"
    return "", ""


def content_of(file: Any, what: str) -> bytes:
    """The content of an open file, from its start if it can be read again. Raises OSError if it cannot be read."""
    if isinstance(file, io.TextIOBase):
        raise InvalidInputError(f"{what}: expected a file opened with mode 'rb', got a file in text mode")
    at_start = True
    try:
        try:
            _not_awaitable(file.seek(0), what)
        except (AttributeError, OSError):  # a pipe or a response
            at_start = False
        content = _not_awaitable(file.read(), what)
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{what}: expected an open file, got a closed one ({error})") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        kind = type(content).__name__
        raise InvalidInputError(f"{what}: expected a file opened with mode 'rb', got one whose read() returns {kind}")
    if not content and not at_start:
        problem = f"{what}: expected a file with content, got one at its end that cannot be read from its start again"
        raise InvalidInputError(problem, advice="Keep what was read from it, and pass that")
    return bytes(content)


def _not_awaitable(value: Any, what: str) -> Any:
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that it was never awaited
        problem = f"{what}: expected a file whose read() returns bytes, got an asynchronous one"
        raise InvalidInputError(problem, advice="Pass `await file.read()`")
    return value
