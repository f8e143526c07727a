"""Counts tokens with the encoder's own tokenizer, so that texts fit the encoder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

CHARACTERS = 1024
"""Characters that ``tokenize`` reads, ``max_characters`` of its config."""


class Tokens:
    """Counts tokens as ``tokenize`` does. ``limit`` is the length to which it cuts texts, None if it does not."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tokenizer = Tokenizer.from_file(str(file))
        truncation = self._tokenizer.truncation
        self.limit: int | None = truncation["max_length"] if truncation else None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def served(cls, tokenize: Path, known: Tokens | None = None) -> Tokens:
        """The tokenizer of the newest version in the folder of the model ``tokenize``. Returns ``known`` if it is that.

        A new version replaces the encoder's tokenizer but does not reload this model, so this is called for each batch.
        """
        files = {int(file.parent.name): file for file in tokenize.glob("[0-9]*/tokenizer.json")}
        if not files:
            raise FileNotFoundError(f"no tokenizer.json in {tokenize}: put tokenize into the same repository as enrich")
        newest = files[max(files)]
        return known if known and known.file == newest else cls(newest)

    def count(self, text: str) -> int:
        """The number of tokens, including those that mark the beginning and the end."""
        return len(self._tokenizer.encode(text.strip()).ids)

    def fits(self, text: str) -> bool:
        return len(text) <= CHARACTERS and self.count(text) <= (self.limit or sys.maxsize)

    def cut(self, text: str) -> str:
        """The longest beginning that fits: whole words, or whole letters if the first word alone is too long."""
        if self.fits(text):
            return text
        words = text.strip()[:CHARACTERS].split()
        return self._longest(words, " ") or self._longest(words[0], "")

    def _longest(self, parts: Sequence[str], joint: str) -> str:
        low, high = 0, len(parts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(joint.join(parts[:middle])) else (low, middle - 1)
        # A longer text can have fewer tokens, so the binary search may have stopped at a text that is too long.
        while low and not self.fits(joint.join(parts[:low])):
            low -= 1
        return joint.join(parts[:low])
