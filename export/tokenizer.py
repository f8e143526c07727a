"""Any tokenizer of open_clip as one ``tokenizer.json`` for the ``tokenizers`` package.

The file holds the cleaning, the vocabulary, the end-of-text token that truncation keeps, and the padding. A server
needs neither torch nor open_clip to produce the same ids.

One difference from ``SimpleTokenizer`` remains in addition to those of ``export.cleaning``: ``<start_of_text>`` and
``<end_of_text>`` spelled out in a text are read as the tokens, also where punctuation in front of them makes open_clip
read them as punctuation.
"""

from __future__ import annotations

from typing import Any

from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from export.cleaning import clean_kind, cleaning
from export.errors import UnsupportedModel
from export.hf_tokenizer import build_hf_tokenizer

# The pattern of SimpleTokenizer. Cleaned texts are in lower case except for the long s, which has no other lower case
# and which IGNORECASE takes for an s.
WORDS = r"<[s\x{17f}]tart_of_text>|<end_of_text>|'[s\x{17f}]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(original: Any) -> Tokenizer:
    """A ``tokenizers.Tokenizer`` that gives the same ids as a tokenizer of open_clip.

    Raises:
        UnsupportedModel: a tokenizer of an unknown kind, or one that drops tokens at random.
    """
    if isinstance(original, (HFTokenizer, SigLipTokenizer)):
        return build_hf_tokenizer(original)
    if isinstance(original, SimpleTokenizer):
        return build_simple_tokenizer(original)
    raise UnsupportedModel(f"texts tokenized by {type(original).__name__} cannot be exported")


def build_simple_tokenizer(simple: Any) -> Tokenizer:
    """CLIP's own byte-pair encoding."""
    if simple.reduction_fn is not None:
        raise UnsupportedModel("a tokenizer with a reduction mask drops tokens at random and cannot be exported")
    start, end = (simple.decoder[i] for i in (simple.sot_token_id, simple.eot_token_id))
    # If a vocabulary file ends with a newline, open_clip reads one empty merge, which never applies.
    merges = [pair for pair in simple.bpe_ranks if len(pair) == 2]
    tokenizer = Tokenizer(models.BPE(vocab=simple.encoder, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = cleaning(clean_kind(simple))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=True, special=True) for token in (start, end)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, simple.sot_token_id), (end, simple.eot_token_id)],
    )
    tokenizer.enable_truncation(simple.context_length)
    tokenizer.enable_padding(length=simple.context_length, pad_id=0, pad_token=simple.decoder[0])
    return tokenizer
