"""Whether a text fits the encoder, by the tokenizer file of the encoder itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer


class Tokens:
    """Counts as ``tokenize`` does; ``limit`` is the number of tokens at which it cuts, None where it never does."""

    def __init__(self, file: Path):
        self.file = file
        self._tokenizer = Tokenizer.from_file(str(file))
        truncation = self._tokenizer.truncation
        self.limit: int | None = truncation["max_length"] if truncation else None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def served(cls, tokenize: Path, known: Tokens | None = None) -> Tokens:
        """Of the newest version in the folder of the model ``tokenize``; ``known`` itself where it is of that one.

        A version that comes in changes the encoder and its tokenizer, but not this model, which must look for itself.
        """
        files = {int(file.parent.name): file for file in tokenize.glob("[0-9]*/tokenizer.json")}
        if not files:
            raise FileNotFoundError(
                f"no tokenizer.json in {tokenize}: enrich must lie beside the tokenize it writes for"
            )
        newest = files[max(files)]
        return known if known and known.file == newest else cls(newest)

    def count(self, text: str) -> int:
        """With the tokens that mark its beginning and end."""
        return len(self._tokenizer.encode(text.strip()).ids)

    def fits(self, text: str) -> bool:
        return self.count(text) <= (self.limit or sys.maxsize)

    def cut(self, text: str) -> str:
        """The beginning that fits, in whole words; in letters, where one word alone is too long."""
        if self.fits(text):
            return text
        words = text.split()
        return self._longest(words, " ") or self._longest(words[0], "")

    def _longest(self, parts: Sequence[str], joint: str) -> str:
        low, high = 0, len(parts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(joint.join(parts[:middle])) else (low, middle - 1)
        # Tokens need not grow with the text: where they did not, the search may have stopped at one that is too long.
        while low and not self.fits(joint.join(parts[:low])):
            low -= 1
        return joint.join(parts[:low])
