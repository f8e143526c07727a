"""open_clip's ``HFTokenizer`` and ``SigLipTokenizer`` as one ``tokenizer.json``.

Both clean a text in Python and give it to a fast tokenizer of ``transformers``, which is a ``tokenizers.Tokenizer``
inside. The file holds that one, with open_clip's cleaning in front of its normalizer, and with the truncation and
padding that open_clip asks for in each call. A language (NLLB) is in the inner tokenizer's template already.

``tokenizers`` looks for special tokens before it cleans, open_clip after. So a token that no cleaned text can hold
(``</s>`` without punctuation, ``[CLS]`` in lower case) is taken out of the search: it still ends or pads a text, and
spelled out in a text it is what open_clip makes of it.

What differs beside what ``export.tokenizer`` lists, only where a text spells a special token that survives cleaning
(``</s>`` under ``whitespace``): blanks beside it, and with ``strip_sep_token`` a spelled-out separator.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from export.errors import UnsupportedModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def build_hf_tokenizer(original: Any) -> Tokenizer:
    """A ``tokenizers.Tokenizer`` that gives the ids of open_clip's ``HFTokenizer`` or ``SigLipTokenizer``.

    Raises:
        UnsupportedModel: a slow tokenizer, one without padding, or the mode ``clips``, whose class token follows
            the padding.
    """
    from tokenizers import Tokenizer, normalizers

    from export.tokenizer import clean_kind, cleaning

    hf = original.tokenizer
    backend = getattr(hf, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UnsupportedModel(f"{type(hf).__name__} has no fast tokenizer inside and cannot be exported")
    if getattr(original, "tokenizer_mode", ""):
        raise UnsupportedModel(f"the tokenizer mode {original.tokenizer_mode!r} cannot be exported")
    if hf.pad_token_id is None:
        raise UnsupportedModel(f"{type(hf).__name__} has no padding token: its texts have no common length")

    # SigLipTokenizer has no choice of cleaning.
    kind = clean_kind(original) if hasattr(original, "clean_fn") else "canonicalize"
    clean = cleaning(kind)
    state = json.loads(backend.to_str())
    kept = [token for token in state["added_tokens"] if clean.normalize_str(token["content"]) == token["content"]]
    state["added_tokens"] = kept
    if getattr(original, "strip_sep_token", False):
        state["post_processor"] = without_separator(state["post_processor"], hf.sep_token_id)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if any(tokenizer.token_to_id(token["content"]) != token["id"] for token in kept):
        raise UnsupportedModel(f"the added tokens of {type(hf).__name__} cannot keep their numbers")
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

    The four kinds of post-processors that ``tokenizers`` writes for texts: ``BertProcessing``,
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
