"""open_clip's ``HFTokenizer`` and ``SigLipTokenizer`` as one ``tokenizer.json``.

Both clean a text in Python and pass it to a fast tokenizer of ``transformers``, which contains a
``tokenizers.Tokenizer``. The file holds that tokenizer, with open_clip's cleaning before its normalizer, and with the
truncation and padding that open_clip requests in each call. A language (NLLB) is already part of the inner tokenizer's
template.

``tokenizers`` looks for special tokens before it cleans, open_clip after. Therefore a token that no cleaned text can
contain (``</s>`` without punctuation, ``[CLS]`` in lower case) is removed from the search: it still ends or pads a
text, and if a text spells it out, the ids are open_clip's.

The ids differ from open_clip's, in addition to the cases of ``export.cleaning``, only if a text spells out a special
token that survives cleaning (``</s>`` under ``whitespace``): in the blanks next to it, and with ``strip_sep_token`` in
a spelled-out separator.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, normalizers

from export.cleaning import clean_kind, cleaning
from export.errors import UnsupportedModel


def build_hf_tokenizer(original: Any) -> Tokenizer:
    """A ``tokenizers.Tokenizer`` that gives the same ids as open_clip's ``HFTokenizer`` or ``SigLipTokenizer``.

    Raises:
        UnsupportedModel: a slow tokenizer, one without padding, or the mode ``clips``, whose class token comes after
            the padding.
    """
    hf = original.tokenizer
    backend = getattr(hf, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UnsupportedModel(f"{type(hf).__name__} has no fast tokenizer inside and cannot be exported")
    if getattr(original, "tokenizer_mode", ""):
        raise UnsupportedModel(f"the tokenizer mode {original.tokenizer_mode!r} cannot be exported")
    if hf.pad_token_id is None:
        raise UnsupportedModel(f"{type(hf).__name__} has no padding token: its texts have no common length")

    clean = cleaning(clean_kind(original))
    state = json.loads(backend.to_str())
    kept = [token for token in state["added_tokens"] if clean.normalize_str(token["content"]) == token["content"]]
    state["added_tokens"] = kept
    if getattr(original, "strip_sep_token", False):
        state["post_processor"] = without_separator(state["post_processor"], hf.sep_token_id)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if any(tokenizer.token_to_id(token["content"]) != token["id"] for token in kept):
        raise UnsupportedModel(f"the added tokens of {type(hf).__name__} cannot keep their ids")
    own = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([clean, own]) if own else clean
    tokenizer.enable_truncation(original.context_length, direction=hf.truncation_side)
    tokenizer.enable_padding(
        direction=hf.padding_side,
        length=original.context_length,
        pad_id=hf.pad_token_id,
        pad_token=hf.pad_token,
    )
    return tokenizer


def without_separator(post_processor: dict[str, Any] | None, separator: int | None) -> dict[str, Any] | None:
    """A post-processor that writes 0 where it wrote ``separator``, as open_clip's ``strip_sep_token`` does.

    Handles the four kinds of post-processors that ``tokenizers`` writes for texts: ``BertProcessing``,
    ``RobertaProcessing``, ``TemplateProcessing``, and a ``Sequence`` of them.
    """
    if post_processor is None:
        return None
    changed = dict(post_processor)
    if changed["type"] == "Sequence":
        changed["processors"] = [without_separator(part, separator) for part in changed["processors"]]
    if changed["type"] == "TemplateProcessing":
        changed["special_tokens"] = {
            name: {**token, "ids": [0 if number == separator else number for number in token["ids"]]}
            for name, token in changed["special_tokens"].items()
        }
    if changed["type"] in ("BertProcessing", "RobertaProcessing"):
        for role in ("sep", "cls"):
            token, number = changed[role]
            changed[role] = [token, 0 if number == separator else number]
    return changed
