"""English words of shops: visible properties of products, audiences, marketing fillers; and how words are compared."""

from __future__ import annotations

import re
from pathlib import Path

VOCABULARY = Path(__file__).with_name("vocabulary")


def read(name: str) -> str:
    """A table of words, from the folder ``vocabulary``."""
    return (VOCABULARY / f"{name}.txt").read_text(encoding="utf-8")


COLOURS, PATTERNS, MATERIALS, WEARERS = map(read, ("colours", "patterns", "materials", "wearers"))
"""Each line is a family: a word, its synonyms after "/", and narrower words after ":". A text about a product may call
any of the narrower words by the first word or a synonym. Plurals are listed, since many mean another thing: a glass is
a material, glasses are not."""
SHADES, LITTLE, DEPARTMENTS, FILLER = map(read, ("shades", "little", "departments", "filler"))
ENGLISH, OTHER_LANGUAGES = map(read, ("english", "other_languages"))
"""Function words, which tell the language of a text."""
OTHERS = read("others")
"""Words that show that a sentence may be about other products."""

SINGULAR_IN_S = re.compile(r"(?:ss|us|lens|canvas)$")
ENDINGS = ((re.compile("ie$"), "y"), (re.compile("[fv]e$"), "f"), (re.compile("([osxz]|[cs]h)e$"), r"\1"))
"""Endings that a plural shares with the singular of another word: shoes and potatoes, gloves and leaves."""


def is_plural(word: str) -> bool:
    """Whether a word in lower case looks like an English plural."""
    return len(word) > 3 and word.endswith("s") and not SINGULAR_IN_S.search(word)


def stem(word: str) -> str:
    """A key that an English noun in lower case shares with its plural and its genitive, such as ``sho`` for shoes.

    Like Harman's S-stemmer ("How effective is suffixing?", 1991), it removes inflection only. A stemmer such as
    Porter's also joins bed and bedding or organizer and organic, which are different things in a shop.
    """
    word = re.sub("'s?$", "", word) or word
    word = word[:-1] if is_plural(word) else word
    for ending, replacement in ENDINGS:
        word = ending.sub(replacement, word)
    return word


def any_of(phrases: list[str]) -> re.Pattern[str]:
    """A pattern for any of the phrases, as whole words, in singular or plural."""
    longest_first = sorted((phrase.strip() for phrase in phrases), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})s?\b", re.I)


def families(table: str) -> dict[str, frozenset[str]]:
    """Maps each word to the words that justify it: itself, its synonyms, and for a family's first word, the family."""
    justify: dict[str, set[str]] = {}
    for line in table.strip().splitlines():
        same, _, narrower = line.partition(":")
        same_words = same.replace("/", " ").split()
        for word in same_words:
            justify.setdefault(word, set()).update(same_words, narrower.split())
        for word in narrower.split():
            justify.setdefault(word, set()).add(word)
    return {word: frozenset(words) for word, words in justify.items()}


def heads(table: str) -> dict[str, str]:
    """Maps each word to the first of its synonyms, and a narrower word to itself."""
    found: dict[str, str] = {}
    for line in table.strip().splitlines():
        same, _, narrower = line.partition(":")
        head, *others = same.replace("/", " ").split()
        found |= {word: found.get(word, word) for word in narrower.split()}
        found |= {head: head, **{word: found.get(word, head) for word in others}}
    return found
