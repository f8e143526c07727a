"""BERT's tokenizer for prompts of one phrase: ``[CLS] words . [SEP]``, padded to a fixed length.

Grounding DINO's text masks split a prompt at full stops and question marks. A prompt here is one phrase, so these are
taken as blanks, and the one full stop that the model was trained to expect is put behind the words, also where they
are cut. ``[CLS]`` and its like spelled out in a text are words in brackets.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from export.errors import UnsupportedModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

LONGEST = 32
"""Tokens of a padded prompt; a product type of 29 pieces of words has room."""
STOPS = "[.?]"


class PhraseTokenizer:
    """Texts to ids (B, T) by transformers' ``BertTokenizer``, framed and padded: the truth for ``build``'s file."""

    def __init__(self, bert: Any, length: int = LONGEST):
        special = [bert.cls_token, bert.sep_token, bert.pad_token, bert.unk_token, "."]
        vocabulary = bert.get_vocab()
        if missing := [token for token in special if token not in vocabulary]:
            raise UnsupportedModel(f"the prompt tokenizer has no {missing[0]!r}: only BERT's WordPiece can be exported")
        self.bert, self.length = bert, length
        self.start, self.end, self.padding, _, self.stop = (vocabulary[token] for token in special)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        import re

        import torch

        rows = []
        for text in texts:
            phrase = re.sub(STOPS, " ", text)
            words = self.bert(phrase, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            row = [self.start, *words[: self.length - 3], self.stop, self.end]
            rows.append(row + [self.padding] * (self.length - len(row)))
        return torch.tensor(rows)

    def build(self) -> Tokenizer:
        """The same as one file for the ``tokenizers`` package."""
        from tokenizers import Regex, Tokenizer, normalizers, processors

        backend = self.bert.backend_tokenizer
        tokenizer = Tokenizer(backend.model)
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(STOPS), " "), backend.normalizer])
        tokenizer.pre_tokenizer = backend.pre_tokenizer
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A . [SEP]",
            special_tokens=[("[CLS]", self.start), (".", self.stop), ("[SEP]", self.end)],
        )
        tokenizer.enable_truncation(self.length)
        tokenizer.enable_padding(length=self.length, pad_id=self.padding, pad_token=self.bert.pad_token)
        return tokenizer


def character_tokenizer() -> Any:
    """A WordPiece tokenizer of our own for random weights: words fall into ASCII characters, under BERT's ids.

    Not BERT's vocabulary, which comes with the published weights. Special tokens and single characters stand where
    BERT's English vocabulary has them, since transformers knows the full stop by its number; the places between are
    unused.
    """
    from transformers import BertTokenizer

    characters = [char for char in map(chr, range(ord("!"), ord("~") + 1)) if char not in string.ascii_uppercase]
    vocabulary = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [f"[unused{n}]" for n in range(99, 994)]
    vocabulary += characters
    vocabulary += [f"##{char}" for char in characters if char.isalnum()]
    return BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)})
