"""open_clip's ``SimpleTokenizer`` as one ``tokenizer.json`` for the ``tokenizers`` package.

The file holds the cleaning, the vocabulary, the end-of-text token kept under truncation, and the padding, so that
a server needs neither torch nor open_clip to make the very same ids.

open_clip cleans with ``ftfy.fix_text``, two rounds of ``html.unescape``, whitespace collapse and ``str.lower``.
Normalizers express these, with tables taken from ftfy itself:

- typographic quotes, Latin ligatures, full-width forms, control characters, terminal colours, NFC;
- the HTML entities of Latin-1 and of typography by name (``&eacute;``, ``&nbsp;``, ``&trade;``), and the numeric
  ones of ASCII punctuation (``&#39;``);
- lower case with the final sigma.

What they cannot express, so that the ids differ from open_clip's:

- ftfy's repair of mojibake (``Ã©`` for ``é``);
- other numeric entities (``&#233;``), rarer named ones, entities without their semicolon;
- in a line that holds a ``<``, ftfy unescapes nothing, open_clip then does: the same but for what ftfy would have
  mended in the unescaped text;
- ``<start_of_text>`` and ``<end_of_text>`` spelled out in a text: taken as the tokens, also where punctuation in
  front of them makes open_clip read them as punctuation.
"""

from __future__ import annotations

import html
import re
from html.entities import name2codepoint
from typing import TYPE_CHECKING, Any

from export.errors import UnsupportedModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers

# Of the `regex` pattern of SimpleTokenizer. Texts are in lower case when they come here, but for the long s,
# which has no other lower case and which IGNORECASE takes for an s.
WORDS = r"<[s\x{17f}]tart_of_text>|<end_of_text>|'[s\x{17f}]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
# What str.split() takes for whitespace.
WHITESPACE = r"[\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
TERMINAL_ESCAPE = r"\x{1b}\[((?:\d|;)*)([a-zA-Z])"
CONTROL = r"[\x{00}-\x{08}\x{0b}\x{0e}-\x{1f}\x{7f}\x{206a}-\x{206f}\x{feff}\x{fff9}-\x{fffc}]"


def entity_table() -> dict[str, str]:
    """HTML entities that occur in shops' texts, with their characters; ``&amp;`` first, so that ``&amp;nbsp;`` works.

    Two rounds of unescaping in the original: ``&amp;amp;lt;`` ends as ``&lt;`` there and here.
    """
    names = [f"&{name};" for name in name2codepoint if name != "amp"]
    numbers = [f"&#{ord(char)};" for char in "!\"#%'()*+,-./:;<=>?@[]_|\xa0"]
    return {entity: html.unescape(entity) for entity in ["&amp;", *names, *numbers, "&apos;", "&#039;", "&#x27;"]}


def fix_text_normalizers() -> list[Any]:
    """ftfy's fixes that are tables or patterns, in ftfy's order."""
    from ftfy import chardata
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    ligatures = [replace(chr(point), text) for point, text in chardata.LIGATURES.items()]
    widths = [replace(chr(point), text) for point, text in chardata.WIDTH_MAP.items() if chr(point) != text]
    # Bytes of Windows-1252 that were read as Latin-1: control characters that nobody means.
    c1 = [(chr(n), bytes([n]).decode("windows-1252", "ignore")) for n in range(0x80, 0xA0)]
    return [
        replace(Regex(TERMINAL_ESCAPE), ""),
        *(replace(control, meant) for control, meant in c1 if meant),
        *ligatures,
        *widths,
        replace(Regex(chardata.SINGLE_QUOTE_RE.pattern), "'"),
        replace(Regex(chardata.DOUBLE_QUOTE_RE.pattern), '"'),
        replace(Regex(CONTROL), ""),
        normalizers.NFC(),
    ]


def cleaning(kind: str) -> normalizers.Normalizer:
    """open_clip's cleaning functions by their names: ``lower``, ``whitespace``, ``canonicalize``."""
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    final_sigma = replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς")
    collapse = [replace(Regex(WHITESPACE), " "), normalizers.Strip()]
    lower = [final_sigma, normalizers.Lowercase()]
    steps = {
        "lower": [*collapse, *lower],
        "whitespace": collapse,
        "canonicalize": [replace("_", " "), replace(Regex(PUNCTUATION), ""), *lower, *collapse],
    }
    if kind not in steps:
        raise UnsupportedModel(f"a tokenizer that cleans by {kind!r} cannot be exported yet")
    entities = [replace(entity, char) for entity, char in entity_table().items()]
    return normalizers.Sequence([*fix_text_normalizers(), *entities, *steps[kind]])


def clean_kind(tokenizer: Any) -> str:
    """Which cleaning a ``SimpleTokenizer`` was built with; it keeps the function only."""
    name = getattr(tokenizer.clean_fn, "__name__", "?")
    return re.sub(r"^_clean_", "", name)


def build_tokenizer(simple: Any) -> Tokenizer:
    """A ``tokenizers.Tokenizer`` that gives the ids of open_clip's tokenizer; those of ``transformers`` are built
    by ``export.hf_tokenizer``.

    Raises:
        UnsupportedModel: another kind of tokenizer, or one that drops tokens at random.
    """
    from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

    if isinstance(simple, (HFTokenizer, SigLipTokenizer)):
        from export.hf_tokenizer import build_hf_tokenizer

        return build_hf_tokenizer(simple)
    if not isinstance(simple, SimpleTokenizer):
        raise UnsupportedModel(f"texts tokenized by {type(simple).__name__} cannot be exported")
    if simple.reduction_fn is not None:
        raise UnsupportedModel("a tokenizer with a reduction mask drops tokens by chance and cannot be exported")

    start, end = (simple.decoder[i] for i in (simple.sot_token_id, simple.eot_token_id))
    # A vocabulary file that ends with a newline gives open_clip one empty merge; it can never apply.
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
