"""What is plainly wrong with a text that claims to describe a product, whoever wrote it.

These checks need no model, so no description can talk them out of anything. They know words, not meanings: that a
product's shop offers it in other colours too is for the Evaluator to notice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from product import Product
from tokens import Tokens

# A line is one family: the first word is what any of the others may be called as well. Words after a "/" mean the same.
COLOURS = """
black / jet ebony onyx noir
white / snow ivory cream eggshell alabaster pearl
grey / gray greyish grayish : charcoal anthracite slate silver ash graphite gunmetal
red / reddish : crimson scarlet burgundy maroon ruby cherry wine bordeaux vermilion brick rust
orange / orangish : tangerine apricot peach coral amber rust terracotta
yellow / yellowish : mustard lemon gold golden canary amber saffron ochre
green / greenish : olive khaki mint lime emerald sage teal forest moss jade turquoise pistachio
blue / bluish : navy azure cobalt teal turquoise sky indigo denim cyan aqua sapphire petrol
purple / violet : lilac lavender mauve plum aubergine magenta burgundy
pink / pinkish : rose fuchsia magenta salmon blush coral
brown / brownish : chocolate chestnut tan camel cognac mocha beige taupe bronze copper terracotta walnut
beige : sand taupe ecru cream camel khaki nude oatmeal
gold / golden gilded gilt : brass
silver / silvery : chrome steel
multicoloured / multicolored multicolour multicolor colourful colorful rainbow
transparent / clear see-through translucent
"""
PATTERNS = """
striped / stripe stripes stripy pinstripe pinstriped
checked / check checks checkered chequered checker plaid gingham tartan
dotted / dot dots polka dotty spotted spots
floral / flower flowers flowered flowery botanical
plain / solid one-colour one-color unicolour unicolor self-coloured
paisley
camouflage / camo
leopard / animal : zebra tiger
geometric / geometrical
herringbone
houndstooth
marbled / marble
embroidered / embroidery
"""
MATERIALS = """
wood / wooden timber : oak pine beech walnut bamboo teak acacia birch ash mahogany plywood
metal / metallic : steel stainless iron aluminium aluminum brass copper chrome titanium tin zinc
steel : stainless
aluminium / aluminum
leather / leathery : suede nubuck
cotton : denim corduroy canvas flannel jersey
wool / woolen woollen woolly : cashmere merino tweed felt
silk / silky
satin
linen
velvet / velour
polyester
nylon
plastic : acrylic polypropylene polyethylene vinyl pvc melamine polycarbonate
glass : crystal
ceramic / ceramics : porcelain stoneware earthenware terracotta china
stone : marble granite slate
rubber : silicone latex
paper / cardboard
rattan / wicker
fleece
fur / furry
faux : vegan imitation
"""
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=2
    )
}

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
ENGLISH = frozenset(re.findall(r"\w+", "the and with for of in is this a from to your it on made by"))
OTHER_LANGUAGES = frozenset(
    re.findall(
        r"\w+",
        "der die das und mit für aus ein eine von im ist le la les et avec pour une des du est el los las con para por"
        " il lo gli di per della een het van voor met och för med av på na z do w og til и в для из на",
    )
)


def problems(text: str, product: Product, tokens: Tokens) -> list[str]:
    """Sentences that say what to change; none where nothing is wrong.

    Colours, patterns and materials are compared as English words. Of a product whose own texts are in another language
    they prove nothing, so there the numbers and everything else are checked, and these are not.
    """
    if not text.strip():
        return ["The text is empty."]
    return [sentence for check in CHECKS for sentence in check(text, product, tokens)]


def runs(text: str, length: int = 6) -> set[str]:
    """So many words in a row, wherever in the text: two texts that share one quote each other."""
    words = _words(text)
    return {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}


def _length(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if not tokens.fits(text):
        yield f"The text has {tokens.count(text)} tokens; only {tokens.limit} are read. Make it shorter."


def _markup(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if found := MARKUP.search(text):
        yield f"Write plain words, without markup, links or lists: {found[0].strip() or 'a line break'!r}."
    if any(unicodedata.category(one)[0] == "C" and one != "\n" for one in text):
        yield "Write plain words: there are characters that cannot be seen."


def _script(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if foreign := _scripts(text) - _scripts(_said(product)) - {"LATIN"}:
        yield f"Write in English: there are letters of {', '.join(sorted(foreign)).title()}."


def _instructions(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    # A "system camera" is a product, and what its type or title says is no instruction.
    names = f"{product.product_type} {product.title}".casefold()
    if found := next((f[0] for f in INSTRUCTIONS.finditer(text) if f[0].casefold().strip() not in names), None):
        yield f"Describe the product and speak to nobody: {found.strip()!r}."


def _subject(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    """The description is left out here: it is the place where a shop's seller writes what he likes."""
    names = _stems(" ".join([product.product_type, product.title, *product.attributes.values()]))
    if names and _is_english(product) and not names & _stems(text):
        yield f"Say what the product is: {product.product_type or product.title}."


def _attributes(text: str, product: Product, tokens: Tokens) -> Iterator[str]:
    if not _is_english(product):
        return
    said = set(_words(_said(product)))
    for kind, families in FAMILIES.items():
        for word in dict.fromkeys(_words(text)):
            if word in families and not families[word] & said:
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
    _length, _markup, _script, _instructions, _subject, _attributes, _numbers, _repetition,
)  # fmt: skip


def _families(table: str) -> dict[str, frozenset[str]]:
    """Each word to the words that justify it: itself, its synonyms, and for a family's name all of the family."""
    justify: dict[str, set[str]] = {}
    for line in table.strip().splitlines():
        same, _, narrower = line.partition(":")
        same_words = same.replace("/", " ").split()
        for word in same_words:
            justify.setdefault(word, set()).update(same_words, narrower.split())
        for word in narrower.split():
            justify.setdefault(word, set()).add(word)
    return {word: frozenset(words) for word, words in justify.items()}


FAMILIES = {"colour": _families(COLOURS), "pattern": _families(PATTERNS), "material": _families(MATERIALS)}


def _said(product: Product) -> str:
    pairs = [f"{name} {text}" for name, text in product.attributes.items()]
    return " ".join([product.product_type, product.title, product.description, *pairs])


def _words(text: str) -> list[str]:
    """In lower case, with compounds both whole and in parts."""
    found = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", unicodedata.normalize("NFKC", text).casefold())
    return [word for compound in found for word in dict.fromkeys([compound, *compound.split("-")])]


def _stems(text: str) -> set[str]:
    """Words of three letters and more, singular and plural alike."""
    return {word.rstrip("es") for word in _words(text) if len(word) > 2} - ENGLISH


def _numerals(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text)
    digits = [number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)*", text)]
    return digits + [NUMBERS[word] for word in _words(text) if word in NUMBERS]


def _scripts(text: str) -> set[str]:
    return {unicodedata.name(one, "UNKNOWN").split()[0] for one in unicodedata.normalize("NFKC", text) if one.isalpha()}


def _is_english(product: Product) -> bool:
    """As far as little words and letters tell; short texts without either pass for English."""
    said = _said(product)
    words = re.findall(r"[^\W\d_]+", said.casefold())
    letters = sum(map(str.isalpha, said))
    latin = sum(one.isalpha() and unicodedata.name(one, "").startswith("LATIN") for one in said)
    return 2 * latin >= letters and sum(w in ENGLISH for w in words) >= sum(w in OTHER_LANGUAGES for w in words)
