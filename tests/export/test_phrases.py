"""tokenizer.json of prompts against transformers' BERT tokenizer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from transformers.models.grounding_dino.modeling_grounding_dino import SPECIAL_TOKENS

from export.errors import UnsupportedModel
from export.examples import TEXTS
from export.phrases import PhraseTokenizer, character_tokenizer

FRAME = [101, 1012, 102]
PIECES = [*TEXTS, " ", ".", "a. b? c", "1.5 l", "[SEP] mug [PAD]", "e\u0301", "mug " * 100, "x" * 300, "\x00\ufffd"]


@pytest.fixture(scope="module")
def phrases() -> PhraseTokenizer:
    return PhraseTokenizer(character_tokenizer())


def test_the_file_gives_the_same_ids(phrases: PhraseTokenizer) -> None:
    tokenizer = Tokenizer.from_str(phrases.build().to_str())
    assert [encoding.ids for encoding in tokenizer.encode_batch(PIECES)] == phrases(PIECES).tolist()


def test_a_prompt_is_one_phrase_with_its_frame(phrases: PhraseTokenizer) -> None:
    for text, row in zip(PIECES, phrases(PIECES).tolist(), strict=True):
        present = [token for token in row if token]
        assert row == present + [0] * (phrases.length - len(present))
        assert [present[0], *present[-2:]] == FRAME, text
        assert not set(present[1:-2]) & set(SPECIAL_TOKENS), text


def test_other_vocabularies_are_refused() -> None:
    from transformers import BertTokenizer

    with pytest.raises(UnsupportedModel, match=r"no '\.'"):
        PhraseTokenizer(BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}))
