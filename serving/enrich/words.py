"""English words of shops: visible properties of products, audiences, marketing fillers; and how words are compared."""

from __future__ import annotations

import re

# Each line is a family: a word, its synonyms after "/", and narrower words after ":". A text about a product may call
# any of the narrower words by the first word or a synonym. Plurals are listed, since many mean another thing: a glass
# is a material, glasses are not.
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
WEARERS = """
women / woman womens women's ladies lady's lady female her
men / man mens men's gents gentlemen male him
girls / girl girl's
boys / boy boy's
kids / kid kid's children childrens children's child junior youth
teens / teen teenagers teenager
babies / baby baby's babys infant infants newborn toddler toddlers
anyone / everyone everybody adults adult unisex all
"""
SHADES = "light dark deep pale bright pastel neon"
FILLER = """
new, new in, new arrival, new season, best seller, bestseller, best-seller, best selling, hot deal, hot item, top
rated, top seller, trendy, trending, must have, must-have, popular,
sale, on sale, deal, discount, discounted, clearance, offer, cheap, bargain, free shipping, free delivery, fast
shipping, fast delivery, express shipping, limited edition, limited time, special edition, special offer, exclusive,
ideal gift, as seen online, as seen on tv, ideal, collection, edition, buy now, order now, order today, shop now, shop
online, in stock, while stocks last,
gift, gift idea, great gift, perfect gift, gift for her, gift for him,
top quality, premium quality, high quality, best quality, super quality, quality, premium, luxury, amazing, awesome,
stylish, original, authentic, genuine, official, perfect, guaranteed, imported,
print, printed, pattern, patterned, design, colour, color,
size, one size, pack, pack of, piece, set of, xxs, xs, xl, xxl, xxxl, cm, mm, ml, kg, oz, lb, inch, inches, co, inc,
ltd, llc, gmbh
"""
DEPARTMENTS = """
accessories apparel appliances automotive bags beauty books clothing clothes electronics fashion food footwear
furniture garden grocery health home household jewellery jewelry kitchen kitchenware office outdoor outdoors pets
shoes sports toys
"""
ENGLISH = "the and with for of in is this a from to your it on made by"
OTHER_LANGUAGES = """
der die das und mit für aus ein eine von im ist le la les et avec pour une des du est el los las con para por il lo gli
di per della een het van voor met och för med av på na z do w og til и в для из на
"""
"""Function words, which tell the language of a text."""
LITTLE = "a an the and or of in on at to by for from with without your our my its this that these those is are it as"
OTHERS = """
also other others another available choose choice option options variant variants assorted differ vary match
matches matching pair goes not never no instead unlike than
"""
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
