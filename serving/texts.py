"""How much of a caller's text is read."""

from __future__ import annotations


def beginning(raw: bytes, characters: int) -> tuple[str, bool]:
    """The first ``characters`` of a text in UTF-8, and whether there are more. The time does not depend on the rest.

    Bytes that are not UTF-8 are read as U+FFFD.
    """
    # A character has 4 bytes at most, so these bytes hold one more if the text has one.
    text = raw[: 4 * (characters + 1)].decode(errors="replace")
    return text[:characters], len(text) > characters
