"""open_clip's cleaning of texts as normalizers of the ``tokenizers`` package.

open_clip cleans with ``ftfy.fix_text``, two rounds of ``html.unescape``, whitespace collapse and ``str.lower``.
Normalizers express these, with tables taken from ftfy itself:

- typographic quotes, Latin ligatures, full-width forms, control characters, terminal colours, NFC;
- the HTML entities of Latin-1 and of typography by name (``&eacute;``, ``&nbsp;``, ``&trade;``), and the numeric
  ones of ASCII punctuation (``&#39;``);
- lower case with the final sigma.

They cannot express the following, so that the ids differ from open_clip's:

- ftfy's repair of mojibake (``Ã©`` for ``é``);
- other numeric entities (``&#233;``), rarer named ones, entities without their semicolon;
- in a line with a ``<``, ftfy unescapes nothing and open_clip unescapes later: the result differs only if ftfy would
  have repaired the unescaped text.
"""

from __future__ import annotations

import html
import re
from html.entities import name2codepoint
from typing import Any

from ftfy import chardata
from tokenizers import Regex, normalizers

from export.errors import UnsupportedModel

PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
# The whitespace of str.split().
WHITESPACE = r"[\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
TERMINAL_ESCAPE = r"\x{1b}\[((?:\d|;)*)([a-zA-Z])"
CONTROL = r"[\x{00}-\x{08}\x{0b}\x{0e}-\x{1f}\x{7f}\x{206a}-\x{206f}\x{feff}\x{fff9}-\x{fffc}]"


def entity_table() -> dict[str, str]:
    """HTML entities that occur in shops' texts, with their characters.

    ``&amp;`` comes first, so that ``&amp;nbsp;`` works: open_clip unescapes twice, and ``&amp;amp;lt;`` ends as
    ``&lt;`` there and here.
    """
    names = [f"&{name};" for name in name2codepoint if name != "amp"]
    numbers = [f"&#{ord(char)};" for char in "!\"#%'()*+,-./:;<=>?@[]_|\xa0"]
    return {entity: html.unescape(entity) for entity in ["&amp;", *names, *numbers, "&apos;", "&#039;", "&#x27;"]}


def fix_text_normalizers() -> list[Any]:
    """ftfy's fixes that are tables or patterns, in ftfy's order."""
    replace = normalizers.Replace
    ligatures = [replace(chr(point), text) for point, text in chardata.LIGATURES.items()]
    widths = [replace(chr(point), text) for point, text in chardata.WIDTH_MAP.items() if chr(point) != text]
    # Bytes of Windows-1252 that were read as Latin-1: control characters that no text means.
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
    """The normalizer for one of open_clip's cleaning functions: ``lower``, ``whitespace`` or ``canonicalize``.

    Raises:
        UnsupportedModel: another cleaning function.
    """
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
    """The name of a tokenizer's cleaning function, such as ``lower``. Tokenizers without a choice canonicalize."""
    if not hasattr(tokenizer, "clean_fn"):
        return "canonicalize"
    return re.sub(r"^_clean_", "", getattr(tokenizer.clean_fn, "__name__", "?"))
