"""Checks of a text about a product, without a model, so that no product description can manipulate them.

They compare words, not meanings. For example, only the Evaluator can notice that a colour belongs to another product.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from serving.enrich import words as shop
from serving.enrich.product import Product
from serving.enrich.tokens import CHARACTERS, Tokens
from serving.enrich.words import families, stem

FAMILIES = {"colour": families(shop.COLOURS), "pattern": families(shop.PATTERNS), "material": families(shop.MATERIALS)}
NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {word: str(number) for number, word in enumerate(NUMBER_WORDS, start=2)}

MARKUP = re.compile(
    r"[<>{}\[\]|`*#~^_\\=]|&\w+;|https?:|www\.|\S@\S|\b\w+\.(?:com|net|org|io|shop)\b|\n|\s-\s.*\s-\s", re.I
)
INSTRUCTIONS = re.compile(
    r"\b(?:as an ai|language model|i(?:'m| am) (?:sorry|unable)|i (?:can(?:'t|not)|will|have) |sorry|here (?:is|are)"
    r"|sure|certainly|instructions?|ignore|disregard|previous|prompts?|system|assistant|user|critique|evaluator"
    r"|summarizer|refiner|rewritten|json|the (?:text|answer|product data)|click|buy now|order now|visit)\b"
    r"|^(?:text|answer|title)\s*:",
    re.I,
)
ENGLISH, OTHER_LANGUAGES = (frozenset(table.split()) for table in (shop.ENGLISH, shop.OTHER_LANGUAGES))


def problems(text: str, product: Product, tokens: Tokens) -> list[str]:
    """Sentences that say what to change. The list is empty if all checks pass.

    Colours, patterns and materials are compared as English words, so they are not checked if the product's own texts
    are in another language.
    """
    if not text.strip():
        return ["The text is empty."]
    return [sentence for check in CHECKS for sentence in check(text, product, tokens)]


def phrases(text: str, length: int = 6) -> set[str]:
    """All sequences of ``length`` words in the text. If two texts share one, the one quotes the other."""
    words = _words(text)
    return {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}


def _length(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if len(text) > CHARACTERS:
        yield f"The text has {len(text)} characters; only {CHARACTERS} are read. Make it shorter."
    elif not tokens.fits(text):
        yield f"The text has {tokens.count(text)} tokens; only {tokens.limit} are read. Make it shorter."


def _markup(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if found := MARKUP.search(text):
        yield f"Write plain words, without markup, links or lists: {found[0].strip() or 'a line break'!r}."
    if any(unicodedata.category(one)[0] == "C" and one != "\n" for one in text):
        yield "Write plain words: there are characters that cannot be seen."


def _language(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    said = _said(product)
    if foreign := _scripts(text) - _scripts(said) - {"LATIN"}:
        yield f"Write in English: there are letters of {', '.join(sorted(foreign)).title()}."
    known = set(_words(said))
    words = [word for word in _words(text) if word not in known]
    others = [word for word in words if word in OTHER_LANGUAGES]
    if _is_english(product) and len(others) > sum(word in ENGLISH for word in words):
        yield f"Write in English: {others[0]!r} is not."


def _instructions(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    # Words of the type and the title are not instructions: a "system camera" is a product.
    names = f"{product.product_type} {product.title}".casefold()
    if found := next((f[0] for f in INSTRUCTIONS.finditer(text) if f[0].casefold().strip() not in names), None):
        yield f"Describe the product and speak to nobody: {found.strip()!r}."


def _subject(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    """The text must share a word with the product, whose description does not count: it may mention anything."""
    names = _stems(" ".join([product.product_type, product.title, *product.attributes.values()]))
    if names and _is_english(product) and not names & _stems(text):
        yield f"Say what the product is: {product.product_type or product.title}."


def _attributes(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if not _is_english(product):
        return
    said = set(_words(_said(product)))
    for kind, known in FAMILIES.items():
        for word in dict.fromkeys(_words(text)):
            if word in known and not known[word] & said:
                yield f"The product is nowhere said to be {word}: leave out the {kind} {word!r}."


def _numbers(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    said = _numerals(_said(product))
    for number in dict.fromkeys(_numerals(text)):
        if number not in said:
            yield f"The number {number} is nowhere in the product: leave it out."


def _repetition(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    words = _words(text)
    if repeated := next((word for word in words if words.count(word) > 2 and len(word) > 3), None):
        yield f"Do not repeat words: {repeated!r}."


CHECKS: tuple[Callable[[str, Product, Tokens], Iterator[str]], ...] = (
    _length, _markup, _language, _instructions, _subject, _attributes, _numbers, _repetition,
)  # fmt: skip


def _said(product: Product) -> str:
    pairs = [f"{name} {text}" for name, text in product.attributes.items()]
    return " ".join([product.product_type, product.title, product.description, *pairs])


def _words(text: str) -> list[str]:
    """The words in lower case. A compound with hyphens counts as a whole and in parts."""
    found = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", unicodedata.normalize("NFKC", text).casefold())
    return [word for compound in found for word in dict.fromkeys([compound, *compound.split("-")])]


def _stems(text: str) -> set[str]:
    """The stems of all words of three letters or more, without function words."""
    return {stem(word) for word in _words(text) if len(word) > 2 and word not in ENGLISH}


def _numerals(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text)
    digits = [number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)*", text)]
    return digits + [NUMBERS[word] for word in _words(text) if word in NUMBERS]


def _scripts(text: str) -> set[str]:
    return {unicodedata.name(one, "UNKNOWN").split()[0] for one in unicodedata.normalize("NFKC", text) if one.isalpha()}


def _is_english(product: Product) -> bool:
    """Whether function words and letters suggest English. A short text without either counts as English."""
    said = _said(product)
    words = re.findall(r"[^\W\d_]+", said.casefold())
    letters = sum(map(str.isalpha, said))
    latin = sum(one.isalpha() and unicodedata.name(one, "").startswith("LATIN") for one in said)
    return 2 * latin >= letters and sum(w in ENGLISH for w in words) >= sum(w in OTHER_LANGUAGES for w in words)
