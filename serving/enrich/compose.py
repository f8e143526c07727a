"""A deterministic text about a product, made from its metadata without a model.

The text reads like the captions that encoders are trained on: ``a red striped cotton shirt for women, long sleeve``.

- The type is copied from the shop.
- Visible properties come from the attributes; failing that, from the title; failing that, from sentences of the
  description that do not mention other products.
- Of the title's remaining words, fillers, numbers, makers, departments and repetitions are dropped.

No sentence of a description is copied, so a description cannot inject anything into the text. The word lists are
English, so a title in another language keeps nearly all of its words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

from serving.enrich import words as shop
from serving.enrich.product import Product
from serving.enrich.tokens import Tokens
from serving.enrich.words import any_of, heads, is_plural, stem

Vocabulary = Mapping[str, str]
"""Maps each word to the word that the text uses for it."""

MATERIAL = heads(shop.MATERIALS)
VISUAL: dict[str, Vocabulary] = {
    "colour": {word: said for word, said in heads(shop.COLOURS).items() if word not in MATERIAL},
    "pattern": heads(shop.PATTERNS),
    "material": MATERIAL,
    "wearer": heads(shop.WEARERS),
}
KNOWN = {word for vocabulary in VISUAL.values() for word in vocabulary}
NOT_SAID = {"plain", "anyone"}
SHADES, LITTLE, DEPARTMENTS = (set(table.split()) for table in (shop.SHADES, shop.LITTLE, shop.DEPARTMENTS))
FILLER = any_of(shop.FILLER.replace("\n", " ").split(","))
OTHERS = any_of(shop.OTHERS.split())

NAMES = {
    "colour": ("colour", "color", "main colour", "main color", "colour name", "color name"),
    "pattern": ("pattern", "print"),
    "material": ("material", "fabric", "main material", "upper material"),
    "wearer": ("gender", "age group", "audience", "target group"),
}
"""The names that shops give to the attributes."""
BRANDS = ("brand", "manufacturer", "vendor", "maker", "supplier")
FURTHER = re.compile(
    r"\b(?:neck|neckline|collar|sleeves?|length|fit|shape|style|heel|finish|closure|silhouette|waist|theme)\b"
)
"""Further attributes with visible values."""

MOST_TYPE_WORDS = 8
MOST_VALUES = 3
MOST_VALUE_WORDS = 4
MOST_EXTRAS = 6

MARKUP = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)|</?[a-z!?][^<>]*>"
    r"|https?://\S*|www\.\S*|[^\s@]{1,64}@[^\s@]{1,255}\.[a-z]+",
    re.I | re.S,
)


def compose(product: Product, tokens: Tokens) -> str:
    """One line that fits the encoder. It is empty only if no text of the product contains a word."""
    title = words_of(product.title)
    kind = words_of(re.split("[>»|]", plain(product.product_type))[-1])[:MOST_TYPE_WORDS]
    sentences = re.split("[.!?;\n\u3002\uff01\uff1f]+", plain(product.description))
    facts = [words_of(sentence) for sentence in sentences if not OTHERS.search(sentence)]
    seen = {name: see(product, title, facts, name) for name in VISUAL}
    front = {name: [value for value in seen[name] if not stems(value.split()) <= stems(kind)] for name in VISUAL}
    title = title[count_maker(title, stems(kind)) :]
    extras = find_extras(product, title, stems([*kind, *(word for values in seen.values() for word in _split(values))]))
    if not kind:
        # Only the title can name the product.
        kind, extras = extras, []
    words = [" and ".join(front["colour"]), *front["pattern"], *front["material"], *kind]
    text = " ".join(filter(None, words))
    if product.product_type and text:
        text = article(text) + text
    if front["wearer"]:
        text += f" for {' and '.join(front['wearer'])}"
    if extras:
        text += f", {' '.join(extras)}"
    attributes = words_of(" ".join(product.attributes.values()))
    text = tokens.cut(text.strip() or " ".join(title or attributes or words_of(product.description)))
    return re.sub("(?:,| for| and)+$", "", text)


def plain(text: str) -> str:
    """The text without markup, links and e-mail addresses, even if they are HTML-escaped once or twice."""
    for _ in range(3):
        text = MARKUP.sub(" ", html.unescape(text))
    return text


def words_of(text: str) -> list[str]:
    """The words in lower case: letters, marks and digits, with apostrophes and hyphens inside, but no symbols."""
    text = unicodedata.normalize("NFC", plain(text)).lower().replace("\u2019", "'")
    words = "".join(letter(one) for one in text).split()
    return [word for word in (word.strip("'-") for word in words) if word]


def letter(one: str) -> str:
    """The character if a word may contain it, nothing if it has no width, otherwise a blank."""
    category = unicodedata.category(one)
    return one if category[0] in "LMN" or one in "'-" else "" if category == "Cf" else " "


def see(product: Product, title: list[str], facts: list[list[str]], name: str) -> list[str]:
    """The values of a visible property, from the first source that has any: ``facts`` are sentences in words."""
    vocabulary, attributes = VISUAL[name], product.attributes
    values = [attributes[one] for one in NAMES[name] if one in attributes]
    sources = [
        [value for text in values for value in read_values(text, vocabulary, name == "wearer")],
        find(title, vocabulary),
    ]
    if name != "wearer":
        found_in = [find(words, vocabulary) for words in facts]
        sources += [values for values in found_in if len(values) < MOST_VALUES]
    found = next(filter(None, sources), [])
    return [value for value in dict.fromkeys(found) if value not in NOT_SAID][:MOST_VALUES]


def read_values(text: str, vocabulary: Vocabulary, known_only: bool) -> list[str]:
    """The values of an attribute. They may be the shop's own words: ``Midnight Blue / White``."""
    values = []
    for part in re.split(r"[,;/|+&]", plain(text)):
        words = [word for word in words_of(FILLER.sub(" ", part)) if not is_noise(word)]
        if words and len(words) <= MOST_VALUE_WORDS and not (known_only and not set(words) & set(vocabulary)):
            values.append(" ".join(vocabulary.get(word, word) for word in words))
    return values


def find(words: list[str], vocabulary: Vocabulary) -> list[str]:
    """The values of a vocabulary among the words, without repetitions. A colour keeps its shade: ``light blue``."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if word in vocabulary:
            has_shade = vocabulary is VISUAL["colour"] and before in SHADES
            found.append(f"{before} {vocabulary[word]}" if has_shade else vocabulary[word])
    return list(dict.fromkeys(found))


def find_extras(product: Product, title: list[str], said: set[str]) -> list[str]:
    """Words of the title and of further attributes whose stems are not in ``said``."""
    makers = stems(_split(product.attributes.get(name, "").lower() for name in BRANDS))
    kept = words_of(FILLER.sub(" ", " ".join(title)))
    if kept and kept[-1] in DEPARTMENTS:
        kept.pop()
    values = [words_of(value) for name, value in product.attributes.items() if FURTHER.search(name)]
    kept += [word for value in values if len(value) <= MOST_VALUE_WORDS for word in value]
    extras: dict[str, str] = {}
    for word in kept:
        if not (is_noise(word) or word in KNOWN or stem(word) in said | makers):
            extras.setdefault(stem(word), word)
    return list(extras.values())[:MOST_EXTRAS]


def count_maker(title: list[str], kind: set[str]) -> int:
    """The number of words at the beginning of a title that are a maker's name: those before the first known word.

    If the first known word is of the type (``kind`` has its stems), the word before it belongs to it: ``coffee mug``.
    """
    known = (
        stem(word) in kind or word in KNOWN or FILLER.match(" ".join(title[n : n + 3])) for n, word in enumerate(title)
    )
    first = next((n for n, is_known in enumerate(known) if is_known), 0)
    return first - 1 if first and stem(title[first]) in kind else first


def is_noise(word: str) -> bool:
    return word in LITTLE or any(map(str.isdigit, word)) or (len(word) == 1 and word.isascii())


def stems(words: Iterable[str]) -> set[str]:
    return set(map(stem, words))


def article(text: str) -> str:
    """The article of an English singular, as far as letters tell."""
    if not text.isascii() or is_plural(text.split()[-1]):
        return ""
    return "an " if text[0] in "aeiou" else "a "


def _split(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in text.split()]
