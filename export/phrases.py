"""BERT's tokenizer for prompts of one phrase: ``[CLS] words . [SEP]``, padded to a fixed length.

Grounding DINO's text masks split a prompt at full stops and question marks. A prompt here is one phrase, so these are
replaced by blanks. The one full stop that the model expects follows the words, also if they are truncated. Special
tokens such as ``[CLS]`` that are spelled out in a text are read as words in brackets.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, normalizers, processors
from torch import Tensor

from export.errors import UnsupportedModel

LONGEST = 32
"""Number of tokens of a padded prompt, of which 29 are for words."""
STOPS = "[.?]"


class PhraseTokenizer:
    """Texts to ids (B, T) with transformers' ``BertTokenizer``. It is the reference for the file of ``build``."""

    def __init__(self, bert: Any, length: int = LONGEST):
        special = [bert.cls_token, bert.sep_token, bert.pad_token, bert.unk_token, "."]
        vocabulary = bert.get_vocab()
        if missing := [token for token in special if token not in vocabulary]:
            raise UnsupportedModel(f"the prompt tokenizer has no {missing[0]!r}: only BERT's WordPiece can be exported")
        self.bert, self.length = bert, length
        self.start, self.end, self.padding, _, self.stop = (vocabulary[token] for token in special)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            phrase = re.sub(STOPS, " ", text)
            words = self.bert(phrase, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            row = [self.start, *words[: self.length - 3], self.stop, self.end]
            rows.append(row + [self.padding] * (self.length - len(row)))
        return torch.tensor(rows)

    def build(self) -> Tokenizer:
        """The same as a ``tokenizers.Tokenizer``."""
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
    """A WordPiece tokenizer for random weights, which splits words into ASCII characters.

    BERT's own vocabulary comes with the published weights. Special tokens and single characters have the ids of BERT's
    English vocabulary, because transformers recognizes the full stop by its id. The ids between them are unused.
    """
    from transformers import BertTokenizer

    characters = [char for char in map(chr, range(ord("!"), ord("~") + 1)) if char not in string.ascii_uppercase]
    vocabulary = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [f"[unused{n}]" for n in range(99, 994)]
    vocabulary += characters
    vocabulary += [f"##{char}" for char in characters if char.isalnum()]
    return BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)})
